"""A build by the clock: which unit runs when on a machine that has so many cores and so much memory.

The broker's own rule on expected costs: a unit starts when a core is free and its memory fits beside what runs, the
longest first, one alone in any case; in a time box only what ends in it. Nothing is compiled.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from build_recipes.build.units.box import Box, grace_of
from build_recipes.build.units.broker import RESERVE_GIB
from build_recipes.build.units.costs import Cost

MOST_BOXES = 100


@dataclass(frozen=True)
class Course:
    """How a build would go."""

    boxes: tuple[float, ...]
    """Seconds of each time box, compiling alone; one where there is no box."""
    gib: float
    """Peak memory of the compilers that ran at the same time, GiB."""
    left: tuple[str, ...]
    """Units that end in no box."""

    @property
    def seconds(self) -> float:
        """Of all boxes."""
        return sum(self.boxes)


def run(units: Mapping[str, Cost], *, cores: int, memory_gib: float, box_s: float = 0) -> Course:
    """Compile units by the clock.

    :param units: unit to what it takes.
    :param memory_gib: memory that is free before the first unit.
    :param box_s: seconds of one time box, after which the next goes on; 0 for no box.
    """
    todo = sorted(units, key=lambda unit: -units[unit].seconds)
    boxes: list[float] = []
    peak = 0.0
    while todo and len(boxes) < MOST_BOXES:
        box = Box(box_s, grace_of(box_s)) if box_s else None
        now, held, running, left = 0.0, 0.0, list[tuple[float, str]](), list[str]()
        waiting = todo
        while True:
            left = []
            for unit in waiting:
                cost = units[unit]
                full = len(running) >= cores or (running and memory_gib - held - RESERVE_GIB < cost.gib)
                if full or (box and not box.fits(now, cost.seconds)):
                    left.append(unit)
                    continue
                heapq.heappush(running, (now + cost.seconds, unit))
                held += cost.gib
                peak = max(peak, held)
            waiting = left
            if not running:
                break
            now, unit = heapq.heappop(running)
            held -= units[unit].gib
        if len(waiting) == len(todo):
            break
        boxes.append(now)
        todo = waiting
    return Course(tuple(boxes), round(peak, 1), tuple(todo))
