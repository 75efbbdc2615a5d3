"""One unit of each module, really compiled: of a release and a device, each source for each target once.

Two pairs whose unit has the same source, targets and torch compile the same thing, so it is compiled for the first
only. What was tried is kept beside the survey's cells.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from build_recipes.build.units.costs import expected
from build_recipes.build.units.graph import Command
from build_recipes.kit import process
from build_recipes.kit.console import say
from build_recipes.kit.data import parse_json, write_atomic

COMPILER = re.compile(r"(?:nvcc|(?:[\w.]+-)*(?:g\+\+|gcc|c\+\+|cc)(?:-\d+)?)$")
"""Name of a compiler's program, with a CPU before it or a version behind it."""


@dataclass(frozen=True)
class Sample:
    """A unit that was compiled alone."""

    unit: str
    """`costs.unit_name`."""
    codes: tuple[str, ...]
    """What device code it was to hold."""
    pair: str
    """Tag and device for which it was compiled."""
    ok: bool
    seconds: float
    """Wall time."""
    error: str = ""
    """The compiler's first error."""


def plain(command: str) -> list[str]:
    """A compile command of the graph without launchers and compiler cache.

    :raises ValueError: it calls no compiler.
    """
    words = shlex.split(command)
    for index, word in enumerate(words):
        if COMPILER.match(Path(word).name):
            return words[index:]
    raise ValueError(f"no compiler in {command[:200]}")


def choose(commands: Sequence[Command]) -> Command | None:
    """The unit that stands for a module: of those that nvcc compiles, else of all, the one that costs least."""
    left = [one for one in commands if one.cuda] or list(commands)
    return min(left, key=lambda one: (expected(one.unit).seconds, one.unit), default=None)


def try_one(
    commands: Sequence[Command], *, pair: str, torch: str, folder: Path, env: Mapping[str, str], kept: Path
) -> Sample | None:
    """Compile a module's unit, or find it compiled; None where there is none.

    :param kept: folder with what was tried.
    :param folder: CMake's build folder, in which the command is run.
    """
    command = choose(commands)
    if command is None:
        return None
    words = plain(command.command)
    source = Path(words[words.index("-c") + 1])
    digest = hashlib.sha256(
        repr((command.codes, torch)).encode() + (folder / source).read_bytes()
    ).hexdigest()
    note = kept / f"{digest[:32]}.json"
    if (before := _read(note)) is not None:
        return before
    output = folder / words[words.index("-o") + 1]
    output.parent.mkdir(parents=True, exist_ok=True)
    done = process.run(words, cwd=folder, env=env)
    output.unlink(missing_ok=True)
    said = [line for line in done.tail if "error" in line.lower() or "fatal" in line.lower()]
    error = (
        "" if done.ok else (said or [*done.tail, "it said nothing"])[0].replace(f"{folder.parent}/", "")[:300]
    )
    made = Sample(command.unit, command.codes, pair, done.ok, round(done.seconds, 1), error)
    kept.mkdir(parents=True, exist_ok=True)
    write_atomic(note, json.dumps(asdict(made), indent=1) + "\n")
    say(f"  {made.unit}: {'compiled' if made.ok else made.error} in {made.seconds:.0f} s")
    return made


def _read(note: Path) -> Sample | None:
    try:
        row = parse_json(note.read_text(encoding="utf-8"))
        return Sample(**{**row, "codes": tuple(row["codes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
