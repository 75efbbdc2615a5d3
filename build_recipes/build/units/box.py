"""A time box: which units may still start in it, and which are worth waiting for when it ends.

A unit that is ended began for nothing, so one that cannot end in the box does not start, and at the box's end those
that nearly are ready get a grace. How long a unit takes is expected from the table or the tree's history, times how
much longer than expected the units took that have ended (machines differ, and so do busy cores).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from build_recipes.build.units.costs import Cost, expected
from build_recipes.kit.console import duration
from build_recipes.kit.errors import UsageError

SHARE = 0.1
"""Grace: this share of the box ..."""
MOST_GRACE_S = 120.0
"""... and at most so many seconds."""
CAREFUL = 0.8
"""Of the units that have ended, the share that took at most as much longer than expected as is reckoned with."""


@dataclass
class Box:
    """A time box. Times are seconds of one clock."""

    deadline: float
    grace: float = 0.0
    ratios: list[float] = field(default_factory=list)
    """Of ended units: seconds taken for each second expected."""

    @property
    def slow(self) -> float:
        """Seconds to reckon with for each second expected."""
        known = sorted(self.ratios)
        return known[min(len(known) - 1, int(CAREFUL * len(known)))] if known else 1.0

    def learn(self, expected: float, taken: float) -> None:
        """Note a unit that has ended; very short ones say little."""
        if expected > 1:
            self.ratios.append(taken / expected)

    def fits(self, now: float, expected: float) -> bool:
        """Whether a unit that starts now ends in the box."""
        return now + expected * self.slow <= self.deadline

    def nearly(self, now: float, started: float, expected: float) -> bool:
        """Whether a unit that runs will end within the grace."""
        elapsed = now - started
        left = max(expected * self.slow - elapsed, 0.1 * elapsed)
        return now + left <= self.deadline + self.grace


def grace_of(box_s: float) -> float:
    """Grace of a box, seconds."""
    return min(MOST_GRACE_S, SHARE * box_s)


def check(box_s: float, todo: Sequence[str], history: dict[str, Cost]) -> None:
    """Refuse a box in which the longest unit that is left can never end.

    :param box_s: seconds; 0 for no box.
    :param todo: units that are left.
    :raises UsageError: with the unit and the least box.
    """
    longest = max(todo, key=lambda unit: expected(unit, history).seconds, default="")
    seconds = expected(longest, history).seconds
    if box_s and todo and seconds > box_s:
        least = int(seconds * 1.25 // 60 + 1)
        raise UsageError(
            f"--time-box {duration(box_s)} is shorter than the longest unit that is left: {longest} takes about "
            f"{duration(seconds)}, and would begin again in every box",
            f"--time-box {least}m or more",
        )


def cost_of(lost: Mapping[str, float]) -> str:
    """What the end of a box cost: units that were ended and begin again."""
    if not lost:
        return "; no unit was ended unfinished"
    return f"; {len(lost)} were ended unfinished after {duration(sum(lost.values()))} together"
