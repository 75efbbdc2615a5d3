"""Which Linux a module needs: glibc, libstdc++, and the platform tag that says so truly."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from build_recipes.formats.elf import Symbols
from build_recipes.kit.data import Model, load_toml

Version = tuple[int, ...]


class Linked(Protocol):
    """What of a module matters to the loader; an `Elf` has it."""

    @property
    def needed(self) -> tuple[str, ...]:
        """DT_NEEDED."""

    @property
    def version_needs(self) -> dict[str, tuple[str, ...]]:
        """Library to symbol versions."""

    @property
    def symbols(self) -> Symbols:
        """Dynamic symbols."""

    @property
    def soname(self) -> str:
        """DT_SONAME."""

    def exports(self, name: str) -> bool:
        """Whether it defines the symbol."""


class Tag(Model, frozen=True):
    """The newest libraries a manylinux tag allows."""

    glibc: str
    """glibc of the tag: ``2.28`` for manylinux_2_28."""
    GLIBCXX: str
    """Newest libstdc++ symbol version."""
    CXXABI: str
    """Newest C++ runtime symbol version."""


class System(Model, frozen=True):
    """abi.toml."""

    system: list[str]
    """Libraries every tagged system has."""
    driver: list[str]
    """Libraries that come with the GPU driver."""
    brought: list[str]
    """Patterns of symbols that no library of a wheel has to bring."""
    prefixes: dict[str, list[str]]
    """Library stem to what its symbols begin with."""
    unversioned: dict[str, str]
    """Symbols of libstdc++ that come without a version, and the version that has them."""
    tag: list[Tag]
    """Tags, oldest first."""


@functools.cache
def system() -> System:
    """What systems bring, from abi.toml."""
    return load_toml(Path(__file__).with_name("abi.toml"), System)


def version(text: str) -> Version:
    """``2.28`` as ``(2, 28)``; empty where there is no number."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text))


def required(modules: Iterable[Linked]) -> dict[str, Version]:
    """The newest version of each symbol family asked for: ``{"GLIBC": (2, 29), "GLIBCXX": (3, 4, 21)}``."""
    newest: dict[str, Version] = {}
    for module in modules:
        for library, versions in module.version_needs.items():
            if library not in system().system:
                continue
            for one in versions:
                family, _, number = one.partition("_")
                if number[:1].isdigit():
                    newest[family] = max(newest.get(family, ()), version(number))
        for symbol, owner in module.symbols.undefined.items():
            if not owner and symbol in system().unversioned:
                family, _, number = system().unversioned[symbol].partition("_")
                newest[family] = max(newest.get(family, ()), version(number))
    return newest


def required_glibc(modules: Iterable[Linked]) -> tuple[int, int]:
    """The least glibc on which the modules load, as a manylinux tag counts it: ``(2, 29)``.

    A libstdc++ newer than that glibc's tag allows raises it to the tag that has both; (2, 17) at least, for
    no older tag exists on aarch64.
    """
    wanted = required(modules)
    glibc = max(wanted.get("GLIBC", ()), (2, 17))
    holding = (version(tag.glibc) for tag in system().tag if _holds(tag, wanted))
    newest = max(glibc, next(holding, version(system().tag[-1].glibc)))
    return newest[0], newest[1]


def _holds(tag: Tag, wanted: dict[str, Version]) -> bool:
    return version(tag.GLIBCXX) >= wanted.get("GLIBCXX", ()) and version(tag.CXXABI) >= wanted.get(
        "CXXABI", ()
    )


def tag_glibc(platform_tag: str) -> tuple[int, int] | None:
    """glibc a platform tag promises: ``manylinux_2_28_aarch64`` is (2, 28); ``linux_aarch64`` none."""
    found = re.search(r"manylinux_(\d+)_(\d+)_", platform_tag)
    if found:
        return int(found[1]), int(found[2])
    if "manylinux2014_" in platform_tag:
        return 2, 17
    return None
