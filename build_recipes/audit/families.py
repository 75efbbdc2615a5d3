"""Kernel families: what an entry function is for, and which GPUs need it."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from build_recipes.kit.data import Model, load_toml


class Family(Model, frozen=True):
    """One family of families.toml; the file's head says what the fields mean."""

    title: str
    names: list[str | list[str]] = msgspec.field(default_factory=list)
    modules: list[str] = msgspec.field(default_factory=list)
    on: list[tuple[int, int]] = msgspec.field(default_factory=lambda: [(0, 10_000)])
    seldom: list[tuple[int, int]] = msgspec.field(default_factory=list)
    core: bool = False
    jit_seconds: float = 10.0
    """CPU seconds in which a driver compiles one unit's PTX."""

    def needed(self, capability: int) -> bool:
        """Whether a GPU of this capability (110 for 11.0) takes this path."""
        return any(least <= capability <= most for least, most in self.on)

    def possible(self, capability: int) -> bool:
        """Whether it is needed, or taken there for some models or on request."""
        return self.needed(capability) or any(least <= capability <= most for least, most in self.seldom)


class FamilyTable(Model, frozen=True):
    """families.toml."""

    required: list[list[str]]
    """Modules without which no model runs; one of each list must be there."""
    idle: list[str]
    """Parts of names of kernels that are empty on purpose."""
    ptx: dict[str, str]
    """PTX ISA version to the least CUDA version of a driver that compiles it."""
    family: dict[str, Family]
    """The families; first fit wins."""


@functools.cache
def family_table() -> FamilyTable:
    """The families, from families.toml."""
    return load_toml(Path(__file__).with_name("families.toml"), FamilyTable)


@functools.cache
def _rules() -> list[tuple[str, tuple[str, ...]]]:
    """Family and the parts that must all occur in a name, in order."""
    return [
        (family, (part,) if isinstance(part, str) else tuple(part))
        for family, one in family_table().family.items()
        for part in one.names
    ]


@functools.cache
def _of_module(module: str) -> str | None:
    return next(
        (name for name, one in family_table().family.items() if any(p in module for p in one.modules)), None
    )


@functools.cache
def _of_symbol(symbol: str) -> str:
    for family, (first, *others) in _rules():
        if first in symbol and all(part in symbol for part in others):
            return family
    return "other"


def classify(module: str, symbol: str) -> str | None:
    """Family of an entry function; None for a kernel that is empty on purpose."""
    if any(part in symbol for part in family_table().idle):
        return None
    return _of_module(module) or _of_symbol(symbol)
