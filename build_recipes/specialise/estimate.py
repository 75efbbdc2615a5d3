"""What a specialised wheel would take and give, from the audit of its source alone."""

from __future__ import annotations

from dataclasses import dataclass

from build_recipes.audit import coverage
from build_recipes.audit.audit import Audit
from build_recipes.audit.families import family_table
from build_recipes.facts.device import Device
from build_recipes.specialise.images import ASSEMBLE_S

CUBIN_OF_PTX = 0.052
"""Bytes of a packed cubin for one of PTX; of 0.33.0 for Thor 0.054 (110 units), for Spark 0.050 (82)."""
REWRITE_S = 9.0
"""CPU seconds of audit, rewriting and packing; measured on 0.33.0."""


@dataclass(frozen=True)
class Estimate:
    """An expectation, before anything is done."""

    ptx: int
    """Bytes of PTX to assemble."""
    cpu_s: float
    """CPU seconds, all told."""
    size: int
    """Bytes of the wheel."""


def estimate(audit: Audit, device: Device) -> Estimate:
    """What a native wheel for a device takes and gives."""
    ptx, size = 0, float(audit.size)
    for module in audit.modules:
        left = 0.0
        for unit in module.units:
            best = coverage.best(unit, device)
            text = [one for one in unit.targets if one.kind == "ptx" and coverage.compiles(one, device)]
            newest = max(text, key=lambda one: one.arch, default=None)
            rows = [family_table().family[one] for one in unit.families]
            needed = not rows or any(one.needed(device.number) for one in rows)
            left += sum(stored for target, (_, stored) in unit.sizes.items() if target != best)
            if best is None and newest is not None and needed:
                ptx += unit.sizes[newest][0]
                left -= unit.sizes[newest][0] * CUBIN_OF_PTX
            elif best is None and newest is not None and any(one.possible(device.number) for one in rows):
                left -= unit.sizes[newest][1]
        size -= left * module.packed / module.size if module.size else 0
    return Estimate(ptx, REWRITE_S + ASSEMBLE_S * ptx / 1e6, round(size))
