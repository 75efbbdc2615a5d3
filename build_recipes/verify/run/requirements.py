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
_SECONDS = 300.0


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
        deadline, sources = time.monotonic() + _SECONDS, list[str]()
        while True:
            left_out.write_text(
                "".join(f"{name} ; python_version < '3'\n" for name in sources), encoding="utf-8"
            )
            try:
                ended = process.run(words, env=environment, deadline=deadline)
            except TimeoutError:
                return Requirements(UNKNOWN, platform, python, f"no answer in {_SECONDS:.0f} s")
            if ended.ok:
                chosen = asked.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
                count = sum("==" in line for line in chosen)
                return Requirements(RESOLVED, platform, python, count=count, from_source=tuple(sources))
            why = " ".join(" ".join(ended.tail).split())
            bare = _NO_WHEELS.search(why)
            if bare is None or bare[1] in sources or len(sources) > 20:
                status = UNKNOWN if _NOT_OFFLINE.search(why) else UNSATISFIABLE
                return Requirements(status, platform, python, why, from_source=tuple(sources))
            sources.append(bare[1])
