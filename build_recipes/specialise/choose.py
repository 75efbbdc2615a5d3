"""Which images of a translation unit a wheel for one device keeps, and which it has to make."""

from __future__ import annotations

import base64
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.audit.families import family_table
from build_recipes.audit.scan import Target, Unit
from build_recipes.facts import architectures
from build_recipes.facts.device import Device
from build_recipes.formats.fatbin import Entry
from build_recipes.kit.data import Model, load_toml

NATIVE, MADE, JIT = "native", "made native", "left to the driver"
"""`JIT`: all of them in a slim wheel; in a native one those of families that the device takes seldom."""
EMPTY, UNNEEDED, FOREIGN = "only exits", "not needed", "for other GPUs"
"""Why a unit ends with nothing: its SASS only exits; its PTX is of families the device never takes; nothing of it
runs there."""


class Nothing(Model, frozen=True):
    """nothing.toml."""

    arch: int
    ptx: str
    entry: str


@functools.cache
def nothing() -> Nothing:
    """The image of a unit that has none for the device."""
    return load_toml(Path(__file__).with_name("nothing.toml"), Nothing)


@functools.cache
def nothing_entry() -> bytes:
    """That image as an entry of a container."""
    return base64.b64decode(nothing().entry)


@dataclass(frozen=True)
class Choice:
    """What becomes of one unit's images."""

    what: str
    """`NATIVE`, `MADE` and `JIT`, or `EMPTY`, `UNNEEDED` and `FOREIGN` where nothing is left."""
    keep: tuple[Entry, ...] = ()
    """Images that stay."""
    make: Entry | None = None
    """PTX that is assembled for the device."""
    families: tuple[str, ...] = ()
    """Kernel families of the unit."""


def choose(
    entries: Sequence[Entry],
    unit: Unit | None,
    device: Device,
    *,
    native: bool,
    keep_ptx: bool = False,
    remake: Collection[str] = (),
) -> Choice:
    """Choose for one unit, as a driver would: the best SASS that loads, else the newest PTX.

    :param unit: what the audit knows of it; None for a container without entries.
    :param native: assemble PTX, instead of leaving it to the driver.
    :param keep_ptx: keep the newest PTX beside SASS, for GPUs to come.
    :param remake: families whose SASS is taken away first; their PTX is assembled, needed or not.
    """
    families = tuple(unit.families) if unit else ()
    again = any(one in remake for one in families)
    rows = [family_table().family[one] for one in families]
    needed = again or not rows or any(one.needed(device.number) for one in rows)
    possible = needed or any(one.possible(device.number) for one in rows)
    sass = [
        one
        for one in entries
        if one.kind == "sass" and architectures.loads(one.arch, one.suffix, device.number) and not again
    ]
    best = max(sass, key=_rank, default=None)
    text = [
        one
        for one in entries
        if one.kind == "ptx" and architectures.compiles(one.arch, one.suffix, device.number)
    ]
    newest = max(text, key=_rank, default=None)
    spare = (newest,) if newest and needed and keep_ptx else ()
    if best is not None:
        if unit and _only_exits(unit, best):
            return Choice(EMPTY, families=families)
        kept = tuple(one for one in sass if _rank(one)[:2] == _rank(best)[:2])
        return Choice(NATIVE, (*kept, *spare), families=families)
    if newest is None:
        return Choice(FOREIGN, families=families)
    if not possible:
        return Choice(UNNEEDED, families=families)
    if native and needed:
        return Choice(MADE, spare, newest, families)
    return Choice(JIT, (newest,), families=families)


def _rank(entry: Entry) -> tuple[int, str, tuple[int, int]]:
    return entry.arch, entry.suffix, entry.version


def _only_exits(unit: Unit, entry: Entry) -> bool:
    """Whether all kernels of an image are empty: they launch without an error and write nothing."""
    counts = unit.targets.get(Target("sass", entry.arch, entry.suffix, ""), {}).values()
    return bool(counts) and not any(real for real, _ in counts)
