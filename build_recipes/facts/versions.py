"""Facts about ranges of vLLM versions, loaded from vllm.toml, and the tags that name a version."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Collection
from pathlib import Path

import msgspec
from packaging.version import Version

from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import NotATag, ToolchainMismatch, UnknownTag, UnsupportedPair, UsageError

Python = tuple[int, int]
"""A Python minor version: ``(3, 12)``."""


class CudaToolkitFacts(Model, frozen=True, kw_only=True):
    """The CUDA toolkit that is assembled from wheels where the machine has none that fits."""

    version: str
    """Version of the ``cuda-toolkit`` project on PyPI."""
    extras: list[str]
    """Its extras that a compile of vLLM needs."""
    tools: list[str]
    """Requirements for the inspection tools that the toolkit's extras do not name."""
    newest_gcc: int
    """Newest major of GCC that its nvcc takes as host compiler."""


class VersionFacts(Model, frozen=True, kw_only=True):
    """What holds for one range of vLLM versions."""

    since: str
    """First version of the range."""
    before: str = ""
    """First version after the range; empty for an open end."""
    torch: str
    """The torch this range pins in its requirements."""
    torch_index: str
    """Package index that has that torch with CUDA for both architectures."""
    alternatives: list[str]
    """Other torch versions tested with this range, in order of preference, all from PyPI."""
    nvcc_main: str
    """CUDA of the official wheels: another nvcc adds ``+cuXYZ`` to the version."""
    python: tuple[Python, Python]
    """First and last Python minor version supported."""
    requirements: str
    """Build requirements file, relative to the source tree."""
    cxx: int
    """C++ standard."""
    gcc: str = ""
    """Oldest GCC, empty where nothing is known to fail."""
    gcc_of: dict[str, str] = msgspec.field(default_factory=dict)
    """Module to the oldest GCC that compiles it, where that is newer than `gcc`."""
    rust: str = ""
    """Rust toolchain, empty where no Rust is built."""
    refused: dict[str, str] = msgspec.field(default_factory=dict)
    """Device to the reason why this range can never work on it."""

    def oldest_gcc(self, modules: Collection[str] | None = None) -> tuple[str, str]:
        """The oldest GCC that does, and who asks for it.

        :param modules: targets that are compiled; all where it is None.
        """
        asked = [("10" if self.cxx >= 20 else "9", f"C++{self.cxx}"), (self.gcc or "0", "vLLM's CMake")]
        asked += [(gcc, name) for name, gcc in self.gcc_of.items() if modules is None or name in modules]
        return max(asked, key=lambda pair: Version(pair[0]))

    def pythons(self) -> list[Python]:
        """Every supported Python minor version, oldest first."""
        (major, first), (_, last) = self.python
        return [(major, minor) for minor in range(first, last + 1)]

    def check_device(self, tag: str, device: str) -> None:
        """Refuse a device this range can never work on.

        :raises UnsupportedPair: with the reason.
        """
        if device in self.refused:
            raise UnsupportedPair(
                f"vLLM {tag} {self.refused[device]}", f"--tag v{self.before} or newer (./inv plan --tag ...)"
            )

    def check_python(self, tag: str, python: Python) -> None:
        """Refuse a Python that this range's CMake refuses, before anything is fetched.

        :raises ToolchainMismatch: naming those that it takes.
        """
        first, last = self.python
        if not first <= python <= last:
            here, low, high = ("{}.{}".format(*version) for version in (python, first, last))
            raise ToolchainMismatch(
                f"vLLM {tag} is built with Python {low} to {high}; this is {here}",
                f"python{high} ./inv ... (uv python install {high} brings one)",
            )


class VllmFacts(Model, frozen=True, kw_only=True):
    """The whole of vllm.toml."""

    releases: list[str]
    repository: str
    official_wheel_machine: str
    last_torchaudio: str
    """The last torchaudio on PyPI: it goes with the torch of the same version only."""
    cuda_toolkit: CudaToolkitFacts
    c23_glibc: tuple[int, int]
    """The glibc from which on a wheel that is built there needs it, whatever its sources call."""
    host_code_units: list[str]
    """Units (fnmatch patterns) that CMake compiles as CUDA without an architecture, and that hold no kernel."""
    ranges: list[VersionFacts]


@functools.cache
def facts() -> VllmFacts:
    """vllm.toml, read once."""
    return load_toml(Path(__file__).with_name("vllm.toml"), VllmFacts)


def for_version(version: str) -> VersionFacts:
    """The facts that hold for a vLLM version (``0.12.0``).

    :raises UnknownTag: older than every range.
    """
    wanted = Version(version)
    for entry in reversed(facts().ranges):
        if Version(entry.since) <= wanted and (not entry.before or wanted < Version(entry.before)):
            return entry
    oldest = facts().ranges[0].since
    raise UnknownTag(f"nothing is known about vLLM {version}; {oldest} is the oldest", f"--tag v{oldest}")


MOST_TAG = 200
"""Characters of a tag: it names files, and a file's name ends at 255."""


def version_of(tag: str) -> str:
    """The version a release tag names: ``v0.12.0`` is 0.12.0.

    :raises NotATag: a branch, a commit, or a version without its ``v``.
    """
    if len(tag) > MOST_TAG:
        raise NotATag(
            f"'{tag[:40]}…' has {len(tag)} characters", f"use a tag such as --tag v{facts().releases[-1]}"
        )
    if re.fullmatch(r"v\d+\.\d+.*", tag):
        try:
            Version(tag[1:])
        except ValueError:
            pass
        else:
            return tag[1:]
    if not tag:
        raise UsageError("no tag was given", f"say which vLLM: --tag v{facts().releases[-1]}")
    if re.fullmatch(r"\d+\.\d+.*", tag):
        known = [f"v{name}" for name in sorted(facts().releases, key=Version)]
        meant = f"v{tag}" if f"v{tag}" in known else nearest(f"v{tag}", known)[0]
        raise NotATag(f"'{tag}' is not a tag: vLLM's tags begin with v", f"--tag {meant}")
    what = "a commit" if re.fullmatch(r"[0-9a-f]{7,40}", tag) else "a branch or no tag at all"
    raise NotATag(
        f"'{tag}' is {what}; a build starts from a release tag, because a branch moves",
        f"use a tag such as --tag v{facts().releases[-1]}, or --source DIR for a tree of your own",
    )


def nearest(tag: str, known: list[str]) -> list[str]:
    """The tags most like ``tag``, best first: of the same minor version, its neighbours, the spelling.

    :param known: tags, oldest first.
    """
    try:
        wanted = Version(tag.removeprefix("v"))
    except ValueError:
        return difflib.get_close_matches(tag, known, n=3) or known[-1:]
    minor = [name for name in known if Version(name[1:]).release[:2] == wanted.release[:2]]
    below = [name for name in known if Version(name[1:]) < wanted]
    above = [name for name in known if Version(name[1:]) > wanted]
    return list(dict.fromkeys([*minor[::-1], *below[-1:], *above[:1]]))[:3]


def check_known(tag: str, releases: list[str] | None = None) -> str:
    """The version ``tag`` names, when it is a release.

    :param releases: versions an index has just named; the list in vllm.toml where it is None (a tag newer
        than all of that list is then let through, because the list ages).
    :raises NotATag: see `version_of`.
    :raises UnknownTag: no such release; names the nearest.
    """
    version = version_of(tag)
    known = releases if releases is not None else facts().releases
    if version in known:
        return version
    ordered = sorted(known, key=Version)
    if releases is None and Version(version) > Version(ordered[-1]):
        return version
    near = nearest(tag, [f"v{name}" for name in ordered])
    raise UnknownTag(f"vLLM has no tag {tag}; the nearest are {', '.join(near)}", f"--tag {near[0]}")


def as_dict(entry: VersionFacts) -> dict[str, object]:
    """Facts as plain data, for ``--json``."""
    plain: dict[str, object] = msgspec.to_builtins(entry)
    return plain
