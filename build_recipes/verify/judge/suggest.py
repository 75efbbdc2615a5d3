"""Which pairs have no break: from the matrix of this machine, else from the one that came with the project."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from packaging.version import Version

from build_recipes.kit.data import Model, load_toml, write_atomic
from build_recipes.verify.judge.verdict import Cell
from build_recipes.verify.read.store import Store

SHIPPED = Path(__file__).with_name("matrix.toml")


class Counts(Model, frozen=True):
    """Numbers of breaks that decide, by vllm-omni and vLLM version."""

    made: str
    """The day the matrix was made."""
    counts: dict[str, dict[str, int]]

    def get(self, omni: str, vllm: str) -> int | None:
        """The number of a pair; None where it was never judged."""
        return self.counts.get(omni, {}).get(vllm)


def known(store: Store, distribution: str = "vllm-omni") -> Counts:
    """All numbers that are known without judging a pair now."""
    shipped = (
        load_toml(SHIPPED, Counts)
        if distribution == "vllm-omni" and SHIPPED.exists()
        else Counts(made="", counts={})
    )
    kept = store.get("counts", distribution.encode())
    if kept is None:
        return shipped
    return _merged(shipped, msgspec.msgpack.decode(kept, type=Counts))


def counts(cells: dict[tuple[str, str], Cell]) -> Counts:
    """The numbers of a matrix, of today."""
    found: dict[str, dict[str, int]] = {}
    for (omni, vllm), entry in cells.items():
        found.setdefault(omni, {})[vllm] = entry.decisive
    return Counts(made=time.strftime("%F", time.gmtime()), counts=found)


def remember(store: Store, cells: dict[tuple[str, str], Cell], distribution: str = "vllm-omni") -> Counts:
    """Keep the numbers of a matrix."""
    found = counts(cells)
    store.put_many("counts", {distribution.encode(): msgspec.msgpack.encode(found)})
    return found


def ship(found: Counts) -> bool:
    """Put numbers into the file that comes with the project, one line per vllm-omni release; pairs that were not
    judged now stay. Returns whether any is new.
    """
    old = load_toml(SHIPPED, Counts) if SHIPPED.exists() else Counts(made="", counts={})
    found = _merged(old, found)
    if found.counts == old.counts:
        return False
    lines = [
        "#:schema ../../../docs/schemas/verify-judge-matrix.json",
        "# What breaks at import, vllm-omni by vLLM; do not edit. Made by ./inv verify-omni --matrix --record",
    ]
    lines += [f'made = "{found.made}"', "", "[counts]"]
    for omni, row in sorted(found.counts.items(), key=lambda item: Version(item[0])):
        cells = ", ".join(f'"{vllm}" = {row[vllm]}' for vllm in sorted(row, key=Version))
        lines.append(f'"{omni}" = {{ {cells} }}')
    write_atomic(SHIPPED, "\n".join(lines) + "\n")
    return True


def _merged(old: Counts, new: Counts) -> Counts:
    rows = old.counts | new.counts
    return Counts(
        made=new.made, counts={row: {**old.counts.get(row, {}), **new.counts.get(row, {})} for row in rows}
    )


def suggest(known: Counts, omni: str, vllm: str) -> dict[str, Any]:
    """For a pair: the vllm-omni releases without a break on this vLLM, the vLLM releases without a break under
    this vllm-omni, both oldest first, and of each the nearest in version."""
    rows = sorted((o for o in known.counts if known.get(o, vllm) == 0), key=Version)
    columns = sorted((v for v, n in known.counts.get(omni, {}).items() if n == 0), key=Version)
    return {
        "omni": rows,
        "vllm": columns,
        "nearest": {"omni": _nearest(rows, omni), "vllm": _nearest(columns, vllm)},
        "from": f"matrix of {known.made}" if known.made else None,
    }


def _nearest(found: list[str], version: str) -> str | None:
    try:
        wanted = Version(version).release
    except ValueError:
        return found[-1] if found else None

    def distance(other: str) -> tuple[int, ...]:
        release = Version(other).release
        return tuple(abs(a - b) for a, b in zip((*release, 0, 0)[:3], (*wanted, 0, 0)[:3], strict=True))

    return min(found, key=lambda other: (distance(other), Version(other).is_prerelease), default=None)
