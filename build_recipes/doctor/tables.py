"""The doctor's table of facts, ``doctor.toml``."""

from __future__ import annotations

import functools
from pathlib import Path

from build_recipes.kit.data import Model, load_toml


class Heaviest(Model, frozen=True):
    """The compile unit that needs most memory."""

    gib: float
    """Peak memory of its largest process, GiB."""
    unit: str
    measured: bool
    """Measured for this capability, or assumed from another."""


class Tables(Model, frozen=True):
    """doctor.toml; its comments say where each table is from."""

    jetpack: dict[str, str]
    driver_cuda: dict[str, str]
    newest_gcc: dict[str, int]
    triton_of_torch: dict[str, str]
    ptxas_of_triton: dict[str, str]
    ptxas_knows: dict[str, str]
    heaviest: dict[str, Heaviest]


@functools.cache
def tables() -> Tables:
    """doctor.toml, read once."""
    return load_toml(Path(__file__).with_name("doctor.toml"), Tables)


def minor(version: str) -> str:
    """``13.0`` of ``13.0.88``."""
    return ".".join(version.split(".")[:2])


def numbers(version: str) -> tuple[int, ...]:
    """A dotted version as numbers, for comparing: ``13.0`` is (13, 0)."""
    return tuple(int(part) for part in version.split("."))
