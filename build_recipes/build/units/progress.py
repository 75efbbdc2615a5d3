"""What people see while units compile: one line that lives on a terminal, one line per unit elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from build_recipes.build.units.costs import Cost, expected
from build_recipes.kit.console import console, counted, duration, say

SLOW = 2.0
"""A unit that has run for more than so many times what it should take is shown with that."""
SHOWN = 6
"""Units that run, by name, in one line: on 64 cores all of them would be 3 kB a minute."""

if TYPE_CHECKING:
    from build_recipes.build.units.broker import Broker, Finished


class Progress:
    """Progress of a compile run, with an estimate that learns the machine's pace.

    :param todo: names of the units that will be compiled, by which the estimate is weighted.
    """

    def __init__(self, todo: list[str], history: dict[str, Cost]) -> None:
        self._left = {name: expected(name, history).seconds for name in todo}
        self._total = len(todo)
        self._done = 0
        self._started = time.monotonic()
        self._status = console().status("") if console().is_terminal else None
        if self._status:
            self._status.start()
        self._drawn = 0.0

    def finished(self, unit: Finished) -> None:
        """Note a unit that ended."""
        self._left.pop(unit.unit, None)
        self._done += 1
        how = "from the cache" if unit.cached else f"{duration(unit.wall_s)}, {unit.rss_kib / 2**20:.1f} GiB"
        word = "" if unit.code == 0 else " FAILED"
        say(f"[{self._done}/{self._total}]{word} {unit.unit}  {how}")

    def tick(self, broker: Broker) -> None:
        """Redraw the line, at most twice a second."""
        now = time.monotonic()
        if not self._status or now - self._drawn < 0.5:
            return
        self._drawn = now
        from rich.markup import escape

        self._status.update(escape(f"{self.line(broker)}; {duration(now - self._started)} so far"))

    def line(self, broker: Broker) -> str:
        """What goes on, in one line: units done, what runs, what waits and for what, and how long it will take."""
        now = time.monotonic()
        running = []
        for unit in sorted(broker.running, key=lambda unit: unit.started or now):
            ran = now - (unit.started or now)
            late = f", {duration(unit.cost.seconds)} expected" if ran > SLOW * unit.cost.seconds + 60 else ""
            running.append(f"{unit.name.rsplit('/', 1)[-1]} ({duration(ran)}{late})")
        more = f" and {len(running) - SHOWN} more" if len(running) > SHOWN else ""
        shown = ", ".join(running[:SHOWN]) + more
        parts = [f"{counted(len(running), 'runs', 'run')}: {shown}" if running else "nothing runs"]
        parts += broker.waits()
        left = self.left(broker)
        parts.append(f"about {duration(left)} left" if left else "it takes longer than expected")
        return f"[{self._done}/{self._total}] {'; '.join(parts)}"

    def left(self, broker: Broker) -> float:
        """Estimated wall seconds to the end."""
        now = time.monotonic()
        running = sum(min(unit.cost.seconds, now - (unit.started or now)) for unit in broker.running)
        return max(0.0, sum(self._left.values()) - running) * broker.pace / max(1, broker.cores)

    def close(self) -> None:
        """Take the line away."""
        if self._status:
            self._status.stop()
            self._status = None
