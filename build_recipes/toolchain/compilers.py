"""The C++ compiler of a build, chosen among those that the machine has, before anything is fetched.

Whether the distribution has one that fits is asked of its own package lists (``apt-cache``, ``dnf``), not known here.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from build_recipes.kit import process
from build_recipes.kit.errors import ToolchainMismatch, ToolFailed


@dataclass(frozen=True)
class Compiler:
    """A GCC of this machine."""

    cxx: str
    """``g++``, ``aarch64-linux-gnu-g++-13``, or a path."""
    version: str
    """``12.2.0``."""

    @property
    def cc(self) -> str:
        """The C compiler that goes with it."""
        folder, _, name = self.cxx.rpartition("/")
        plain = re.sub(r"g\+\+|c\+\+", lambda match: "gcc" if match.group() == "g++" else "cc", name)
        return f"{folder}/{plain}" if folder else plain

    @property
    def default(self) -> bool:
        """Whether it is what CMake would take by itself in a native build."""
        return self.cxx == "g++"


@dataclass(frozen=True)
class Wanted:
    """What a build asks of its compiler."""

    machine: str
    """CPU it compiles for."""
    cross: bool
    oldest: str
    """``13``, ``11.3``."""
    why: str
    """Who asks for `oldest`."""
    newest: int
    """Newest major that nvcc takes as host compiler."""

    @property
    def prefix(self) -> str:
        """Of the programs' names."""
        return f"{self.machine}-linux-gnu-" if self.cross else ""

    def fits(self, version: str) -> bool:
        """Whether a GCC of that version does."""
        found = Version(version)
        return found >= Version(self.oldest) and found.major <= self.newest


def there(prefix: str) -> Iterator[Compiler]:
    """The GCCs of this machine: what CXX names, the default one, then those with a version in their names, newest
    first.

    :param prefix: ``aarch64-linux-gnu-`` for a cross compiler.
    """
    names = [f"{prefix}g++"] if prefix else [os.environ.get("CXX", ""), "g++"]
    found: dict[int, str] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if Path(folder).is_dir():
            for path in Path(folder).glob(f"{prefix}g++-*"):
                if match := re.fullmatch(re.escape(f"{prefix}g++-") + r"(\d+)", path.name):
                    found[int(match.group(1))] = path.name
    for name in dict.fromkeys(
        filter(None, [*names, *(found[major] for major in sorted(found, reverse=True))])
    ):
        if shutil.which(name):
            try:
                version = process.capture([name, "-dumpfullversion", "-dumpversion"]).strip()
                Version(version)
            except (ToolFailed, ValueError):
                continue
            yield Compiler(name, version)


def newest_symbols(compiler: Compiler) -> tuple[int, ...]:
    """The newest version of symbols in a compiler's C++ library, ``(3, 4, 30)``; empty where it is not found."""
    try:
        path = Path(process.capture([compiler.cxx, "-print-file-name=libstdc++.so.6"]))
        found = re.findall(rb"GLIBCXX_(\d+)\.(\d+)\.(\d+)\0", path.read_bytes())
    except (ToolFailed, OSError):
        return ()
    return max((tuple(map(int, one)) for one in found), default=())


def choose(wanted: Wanted) -> Compiler | None:
    """The first compiler of this machine that fits; None where it has none at all.

    :raises ToolchainMismatch: it has some, and none fits.
    """
    seen = list(there(wanted.prefix))
    for one in seen:
        if wanted.fits(one.version):
            return one
    if not seen:
        return None
    have = ", ".join(f"{one.cxx} {one.version}" for one in seen)
    raise ToolchainMismatch(
        f"{wanted.why} needs GCC {wanted.oldest} to {wanted.newest}; this machine has {have}", advice(wanted)
    )


def advice(wanted: Wanted) -> str:
    """What to type for a compiler that fits: a package that this distribution has, else where there is one."""
    least = Version(wanted.oldest).major + (Version(wanted.oldest).minor > 0)
    for major in range(least, wanted.newest + 1):
        name = f"g++-{major}" + (f"-{wanted.machine}-linux-gnu" if wanted.cross else "")
        if _offered(name):
            return f"sudo apt-get install -y {name}  # the build finds it by its name"
    where = "cross-compile" if wanted.cross else "build"
    bound = " (for a board with an older glibc than theirs, with --sysroot DIR)" if wanted.cross else ""
    return (
        f"this distribution has no package of it: {where} on one that has, such as Debian 13 or Ubuntu 24.04 "
        f"(g++-13, g++-14){bound}, or put a GCC {wanted.oldest} or newer on PATH as {wanted.prefix}g++-{least}"
    )


def _offered(package: str) -> bool:
    """Whether apt's lists have a package; False where there is no apt, or it has no lists."""
    if not shutil.which("apt-cache"):
        return False
    try:
        text = process.capture(["apt-cache", "policy", package], env={**os.environ, "LC_ALL": "C"})
    except ToolFailed:
        return False
    # a name that apt does not have is taken for a regular expression: g++-14 is found in clang-14-doc
    candidate = re.search(rf"^{re.escape(package)}:\n(?:\s.*\n)*?\s+Candidate: (\S+)", text, re.MULTILINE)
    return candidate is not None and candidate.group(1) != "(none)"
