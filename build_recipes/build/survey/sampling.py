"""One unit of each module, really compiled: of all releases and devices, each source for each target once.

Two pairs whose unit has the same command, the same files of the tree and the same compilers and torch compile the same
thing, so it is compiled for the first only. What was tried is kept beside the survey's cells, so an ended run goes on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from build_recipes.build.units.costs import expected
from build_recipes.build.units.graph import Command, plain
from build_recipes.kit import process
from build_recipes.kit.console import say
from build_recipes.kit.data import decoded, write_atomic

MEASURE = Path(__file__).with_name("measure.py")


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
    """CPU seconds."""
    gib: float = 0.0
    """Peak memory of its largest process, GiB."""
    error: str = ""
    """The compiler's first error."""


@dataclass(frozen=True)
class Bench:
    """A configured tree in which units are compiled."""

    pair: str
    """Tag and device."""
    folder: Path
    """CMake's build folder, directly in the build tree."""
    env: Mapping[str, str]
    compilers: str
    """What compiles, and against which torch: their versions."""
    kept: Path
    """Folder with what was tried."""
    deadline: float = float("inf")
    """`time.monotonic` value by which the last unit must have ended."""
    jobs: int = 1


def try_all(modules: Mapping[str, Sequence[Command]], bench: Bench) -> dict[str, Sample]:
    """Compile the cheapest unit of each module, or find it compiled, the cheapest first.

    :param modules: target to its commands.
    :returns: without modules that have no unit, and without those whose unit would not end before the deadline.
    """
    chosen = {target: one for target, commands in modules.items() if (one := choose(commands)) is not None}
    order = sorted(chosen, key=lambda target: expected(chosen[target].unit).seconds)
    with ThreadPoolExecutor(bench.jobs) as pool:
        made = dict(zip(order, pool.map(lambda target: try_one(chosen[target], bench), order), strict=True))
    return {target: tried for target in modules if (tried := made.get(target)) is not None}


def choose(commands: Sequence[Command]) -> Command | None:
    """The unit that stands for a module: of those that nvcc compiles, else of all, the one that costs least."""
    left = [one for one in commands if one.cuda] or list(commands)
    return min(left, key=lambda one: (expected(one.unit).seconds, one.unit), default=None)


def try_one(command: Command, bench: Bench) -> Sample | None:
    """Compile a unit, or find it compiled; None where it would not end in time."""
    words = plain(command.command)
    note = bench.kept / f"{digest(words, bench)}.json"
    if (before := _read(note)) is not None:
        return before
    if time.monotonic() + expected(command.unit).seconds > bench.deadline:
        return None
    output = bench.folder / words[words.index("-o") + 1]
    output.parent.mkdir(parents=True, exist_ok=True)
    cost = output.with_name(f"{output.name}.cost")
    done = process.run([sys.executable, "-I", "-S", MEASURE, cost, *words], cwd=bench.folder, env=bench.env)
    cpu_s, rss_kib = map(float, cost.read_text().split()) if cost.is_file() else (0.0, 0.0)
    output.unlink(missing_ok=True)
    cost.unlink(missing_ok=True)
    said = [line for line in done.tail if "error" in line.lower() or "fatal" in line.lower()]
    error = "" if done.ok else _portable((said or [*done.tail, "it said nothing"])[0], bench)[:300]
    made = Sample(
        command.unit, command.codes, bench.pair, done.ok, round(cpu_s, 1), round(rss_kib / 2**20, 2), error
    )  # fmt: skip
    bench.kept.mkdir(parents=True, exist_ok=True)
    write_atomic(note, json.dumps(asdict(made), indent=1) + "\n")
    say(f"  {made.unit}: {'compiled' if made.ok else made.error} in {made.seconds:.0f} CPU s, {made.gib} GiB")
    return made


def _read(note: Path) -> Sample | None:
    try:
        return decoded(note.read_bytes(), Sample)
    except (OSError, ValueError):
        return None


# -- what makes two units the same ---------------------------------------------------------------

_OUTPUTS = ("-o", "-MF", "-MT")


def digest(words: Sequence[str], bench: Bench) -> str:
    """What a unit is made from: its command without outputs, the compilers, and each file of the tree that it
    includes, directly or not. Includes are read without their conditions: too many count, never too few."""
    given = [word for before, word in zip(["", *words], words, strict=False) if before not in _OUTPUTS]
    plain_words = [_portable(word, bench) for word in given if word not in _OUTPUTS]
    source = bench.folder / words[words.index("-c") + 1]
    folders = [bench.folder / word for word in _folders(words)]
    seal = hashlib.sha256(repr((plain_words, bench.compilers)).encode())
    for path in sorted(closure(source, folders, bench.folder.parent)):
        seal.update(f"{_portable(str(path), bench)} {_file(path, path.stat().st_mtime_ns)[0]}\n".encode())
    return seal.hexdigest()[:32]


def closure(source: Path, folders: Sequence[Path], tree: Path) -> set[Path]:
    """A source and the files below a folder that it includes, directly or not.

    :param folders: where the compiler looks, in its order. Of those outside the tree (torch, CUDA, C++) the versions
        count.
    """
    own = [
        folder for folder in folders if folder.is_relative_to(tree) and "site-packages" not in folder.parts
    ]
    seen: set[Path] = set()
    left = [source]
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _file(path, path.stat().st_mtime_ns)[1]:
            left += next(([one] for folder in (path.parent, *own) if (one := folder / name).is_file()), [])
    return seen


_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]', re.MULTILINE)


@functools.lru_cache(maxsize=1 << 15)
def _file(path: Path, changed: int) -> tuple[str, tuple[str, ...]]:
    """A file's SHA-256, and what it includes."""
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), tuple(
        name.decode("utf-8", "replace") for name in _INCLUDE.findall(data)
    )


def _folders(words: Sequence[str]) -> Iterator[str]:
    for before, word in zip(["", *words], words, strict=False):
        if before in ("-I", "-isystem", "-iquote"):
            yield word
        elif match := re.match(r"(?:-I|-isystem=)(.+)", word):
            yield match.group(1)


def _portable(text: str, bench: Bench) -> str:
    return text.replace(f"{bench.folder.parent}/", "")
