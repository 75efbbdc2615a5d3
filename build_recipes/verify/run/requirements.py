"""Whether the requirements of a package and of vLLM can be installed together on a device: uv's resolver says.

Nothing is installed or built, and no code of a package is run: the platform is the device's, not this machine's, and
wheels are read alone. What is published without any wheel is named, and what it needs in turn is not looked at.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from build_recipes.facts.device import Device
from build_recipes.kit import process
from build_recipes.kit.errors import CouldNotCheck
from build_recipes.verify.read.tree import VLLM, Tree

RESOLVED, UNSATISFIABLE, UNKNOWN = "resolved", "unsatisfiable", "unknown"

_NOT_OFFLINE = re.compile(
    r"(?i)network connectivity is disabled|network was disabled|offline|error sending request|dns error|timed out"
)
_NO_WHEELS = re.compile(
    r"\b([A-Za-z0-9][\w.-]*?)(?:\[[^\]]*\])?(?:[=<>~!]=?\S+)? has no (?:usable )?wheels(?! with)"
)
_OTHER_WHEELS = re.compile(
    r"\b([A-Za-z0-9][\w.-]*?)(?:\[[^\]]*\])?((?:[=<>~!]=?[^\s,]+,?)*) ha(?:s|ve) no wheels with a matching"
)
_HINT = re.compile(
    r"Wheels are available for `([\w.-]+)` \(v([^)]+)\) [^:]*: ((?:`[^`]+`(?:, and |, | and )?)+)"
)
_SECONDS = 300.0


class Lacking(msgspec.Struct, frozen=True):
    """A distribution that has wheels, and none for the device."""

    name: str
    version: str
    """As uv names it (``==0.0.1``); empty where it means all versions."""
    wheels: tuple[str, ...]
    """Tags of the wheels that there are, as far as uv tells them."""

    def __str__(self) -> str:
        there = f" (there are some for {', '.join(self.wheels)})" if self.wheels else ""
        return f"{self.name}{self.version} has no wheel for it{there}"


class Requirements(msgspec.Struct, frozen=True):
    """What the resolver said."""

    status: str
    """``resolved``, ``unsatisfiable`` or ``unknown`` (the index was not asked, or did not answer)."""
    platform: str
    """What it was resolved for, as uv names it."""
    python: str
    why: str = ""
    """The resolver's own words, where it found no way."""
    count: int = 0
    """Number of distributions that would be installed."""
    no_wheel: tuple[Lacking, ...] = ()
    """Distributions that are published as wheels for other machines alone: with these left out, the others were
    resolved."""
    from_source: tuple[str, ...] = ()
    """Distributions that are published without a wheel: they are built where they are installed."""


def lines(tree: Tree) -> list[str]:
    """The requirements of a tree, extras left out: its metadata, or ``requirements/`` of a source tree."""
    found = []
    for line in tree.index.requires or tree.index.extras.get("common.txt", "").splitlines():
        text = line.partition("#")[0].strip()
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if "extra" not in str(wanted.marker or "") and wanted.name.lower() != VLLM:
            found.append(text)
    return found


def resolve(package: Tree, vllm: Tree, device: Device, python: str, *, offline: bool) -> Requirements:
    """Resolve both together.

    :param python: such as ``3.12``.
    :param offline: answer from uv's cache alone.
    :raises CouldNotCheck: uv is not there.
    """
    program = Path(sys.executable).with_name("uv")
    uv = str(program) if program.exists() else shutil.which("uv")
    if uv is None:
        raise CouldNotCheck("uv is not there", "./inv sets it up")
    platform = f"{device.machine}-manylinux_{device.glibc.replace('.', '_')}"
    with tempfile.TemporaryDirectory(prefix="verify-requirements-") as folder:
        asked = Path(folder) / "requirements.in"
        asked.write_text("\n".join([*lines(vllm), *lines(package)]) + "\n", encoding="utf-8")
        left_out = Path(folder) / "from-source.txt"
        words = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:"]
        words += ["--python-platform", platform, "--python-version", python, "--override", str(left_out)]
        words += [*["--offline"] * offline, str(asked), "--output-file", str(asked.with_suffix(".txt"))]
        environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
        deadline, sources, lacking, first = time.monotonic() + _SECONDS, list[str](), list[Lacking](), ""
        while True:
            left_out.write_text(
                "".join(
                    f"{name} ; python_version < '3'\n" for name in (*sources, *(e.name for e in lacking))
                ),
                encoding="utf-8",
            )
            try:
                ended = process.run(words, env=environment, deadline=deadline)
            except TimeoutError:
                return Requirements(UNKNOWN, platform, python, f"no answer in {_SECONDS:.0f} s")
            if ended.ok:
                chosen = asked.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
                count = sum("==" in line for line in chosen)
                status = UNSATISFIABLE if lacking else RESOLVED
                return Requirements(status, platform, python, first, count, tuple(lacking), tuple(sources))
            why = " ".join(" ".join(ended.tail).split())
            other, bare = _lacking(why), _NO_WHEELS.search(why)
            if other is not None and other.name not in {e.name for e in lacking} and len(lacking) < 20:
                first = first or why
                lacking.append(other)
            elif bare is not None and bare[1] not in sources and len(sources) <= 20:
                sources.append(bare[1])
            else:
                status = UNKNOWN if _NOT_OFFLINE.search(why) and not lacking else UNSATISFIABLE
                return Requirements(status, platform, python, first or why, 0, tuple(lacking), tuple(sources))


def _lacking(why: str) -> Lacking | None:
    """The distribution that has wheels for other machines alone, in uv's words."""
    found = _OTHER_WHEELS.search(why)
    if found is None:
        return None
    tags = [
        tag for name, _, listed in _HINT.findall(why) if name == found[1] for tag in listed.split("`")[1::2]
    ]
    return Lacking(found[1], found[2].rstrip(","), tuple(tags))
