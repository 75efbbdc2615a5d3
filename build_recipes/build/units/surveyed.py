"""Compile units of releases, as `invoke survey` read them from configured trees (``surveyed.json.xz``).

They say what a build will compile, and so what it will cost, before its tree is configured.
"""

from __future__ import annotations

import functools
import json
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.version import Version

from build_recipes.kit.data import write_atomic

Units = Mapping[str, "tuple[str, ...] | None"]
"""Target of a module to its units (`costs.unit_name`): none of them is 'CMake compiles nothing of it for that device',
None is 'not known', because the tree that defines them was not at hand."""

FILE = Path(__file__).with_name("surveyed.json.xz")
MOST = 64 << 20
"""Bytes the table may have when it is unpacked."""


def units_of(tag: str, arch_list: str) -> Units | None:
    """The units of a tag's modules for a device; None where that pair was not surveyed.

    :param arch_list: `Device.arch_list`.
    """
    found = table().get(tag, {}).get(arch_list)
    if found is None:
        return None
    return {
        target: None if units is None else tuple(f"{target}/{unit}" for unit in units)
        for target, units in found.items()
    }


def targets(tag: str) -> tuple[str, ...]:
    """Targets of all modules of a tag, sorted; none where it was not surveyed on any device."""
    return tuple(sorted({target for units in table().get(tag, {}).values() for target in units}))


def nearest(tag: str, version: str, arch_list: str) -> tuple[str, str]:
    """The surveyed tag and architecture most like a tag and a device: itself, else the next older tag, else the
    oldest; of an architecture that was never surveyed, the one that compiles most. Empty texts where there is none."""
    known = sorted(
        (one for one, row in table().items() if arch_list in row), key=lambda one: Version(one[1:])
    )
    if not known:
        rows = {
            arch: sum(len(units or ()) for units in found.values())
            for row in table().values()
            for arch, found in row.items()
        }
        return nearest(tag, version, max(rows, key=lambda arch: rows[arch])) if rows else ("", "")
    if tag in known:
        return tag, arch_list
    older = [one for one in known if Version(one[1:]) <= Version(version)]
    return (older[-1] if older else known[0]), arch_list


def perhaps(tag: str, version: str, arch_list: str, targets: Iterable[str]) -> list[str]:
    """Of some targets those of which a device compiles something, or of which that is not known."""
    known = units_of(*nearest(tag, version, arch_list)) or {}
    return [target for target in targets if known.get(target) != ()]


def likely(tag: str, version: str, arch_list: str) -> tuple[dict[str, tuple[str, ...]], str]:
    """The units a tag compiles for a device, as far as any survey tells, and in words which.

    A module whose units the nearest survey does not know has those of the release before it that knows them, else of
    the one after it; one that no survey knows is left out.
    """
    own, arch = nearest(tag, version, arch_list)
    if not own:
        return {}, "no survey"
    basis = f"{own} for {arch}"
    found = dict(units_of(own, arch) or {})
    others = sorted((one for one, row in table().items() if arch in row), key=lambda one: Version(one[1:]))
    before = [one for one in others if Version(one[1:]) <= Version(own[1:])]
    order = [*reversed(before), *others[len(before) :]]
    borrowed: dict[str, list[str]] = {}
    for target in [name for name, units in found.items() if units is None]:
        for one in order:
            units = (units_of(one, arch) or {}).get(target)
            if units is not None:
                found[target] = units
                borrowed.setdefault(one, []).append(target)
                break
    basis += "".join(f", {' and '.join(targets)} as in {one}" for one, targets in sorted(borrowed.items()))
    unknown = sorted(target for target, units in found.items() if units is None)
    basis += f", without {' and '.join(unknown)}" if unknown else ""
    return {target: units for target, units in found.items() if units is not None}, basis


Table = dict[str, dict[str, dict[str, "list[str] | None"]]]


@functools.cache
def table() -> Table:
    """Tag, device's architecture, target: the units without their target's name."""
    if not FILE.is_file():
        return {}
    raw = lzma.LZMADecompressor().decompress(FILE.read_bytes(), MOST)
    found: Table = json.loads(raw)
    return found


def write(found: Table) -> None:
    """Write the table; the same content makes the same bytes."""
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    write_atomic(FILE, lzma.compress(text.encode(), preset=9))
    table.cache_clear()
