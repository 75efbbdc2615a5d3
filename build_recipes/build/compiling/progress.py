"""What people see while units compile: one line that lives on a terminal, one line per unit elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from build_recipes.build.compiling.costs import Cost, expected
from build_recipes.kit.console import console, duration, say

if TYPE_CHECKING:
    from build_recipes.build.compiling.broker import Broker, Finished


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
        names = ", ".join(unit.name.rsplit("/", 1)[-1] for unit in broker.running) or "waiting"
        free = broker.machine.available() / 2**30
        self._status.update(
            f"[{self._done}/{self._total}] {names} | {len(broker.running)}/{broker.cores} jobs | "
            f"{free:.1f} GiB free | {duration(now - self._started)} | about {duration(self.left(broker))} left"
        )

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
