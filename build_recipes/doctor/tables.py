"""The doctor's table of facts, ``doctor.toml``."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from build_recipes.kit.data import Model, load_toml


class Tables(Model, frozen=True):
    """doctor.toml; its comments say where each table is from."""

    jetpack: dict[str, str]
    driver_cuda: dict[str, str]
    newest_gcc: dict[str, int]
    triton_of_torch: dict[str, str]
    ptxas_of_triton: dict[str, str]
    ptxas_knows: dict[str, str]
    cuda_for_glibc: dict[str, str]


@functools.cache
def tables() -> Tables:
    """doctor.toml, read once."""
    return load_toml(Path(__file__).with_name("doctor.toml"), Tables)


def jetpack_of(l4t: str) -> str | None:
    """JetPack of an L4T release: the table's, that of its nearest older patch release, or what is newer than all."""
    known = tables().jetpack
    if l4t in known:
        return known[l4t]
    newest = max(known, key=numbers)
    if numbers(l4t) > numbers(newest):
        return f"newer than {known[newest]}"
    same = [one for one in known if minor(one) == minor(l4t) and numbers(one) <= numbers(l4t)]
    return known[max(same, key=numbers)] if same else None


def cuda_of_driver(driver: str) -> str | None:
    """Newest CUDA that a driver surely runs: its branch's, else that of the nearest older branch that is known."""
    branch = numbers(driver)[0]
    older = [one for one in tables().driver_cuda if int(one) <= branch]
    return tables().driver_cuda[max(older, key=int)] if older else None


def driver_is_newer(driver: str) -> bool:
    """Whether a driver's branch is newer than all that are known, so that it may run more than is told."""
    return numbers(driver)[0] > max(map(int, tables().driver_cuda))


def minor(version: str) -> str:
    """``13.0`` of ``13.0.88``."""
    return ".".join(version.split(".")[:2])


def numbers(version: str) -> tuple[int, ...]:
    """A dotted version as numbers, for comparing: ``13.0`` is (13, 0)."""
    return tuple(map(int, re.findall(r"\d{1,9}", version))) or (0,)
