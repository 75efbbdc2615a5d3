"""Running ninja under the broker: one loop over the launchers and the clock.

Ninja writes straight into the log file. It must not depend on a reader: if this process is killed, ninja still
notes the units that are done, and then ends because its launchers do.
"""

from __future__ import annotations

import re
import selectors
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from build_recipes.build.units.broker import Broker, Finished
from build_recipes.build.units.graph import Graph
from build_recipes.build.units.progress import Progress
from build_recipes.kit import heartbeat, process
from build_recipes.kit.console import duration, say

WAITING_MARGIN = 6
"""Launchers ninja may start beyond the cores, so that the broker can choose among them."""
WAITING_IN_BOX = 250
"""The same under a time box: near its end only short units still fit, and ninja must have offered them."""

SETTLED_S = 5.0
"""Seconds without a new unit after which those that wait are taken for all that there are."""

MOST_TAIL = 1 << 18
"""Bytes of the log's end that are read when a run is over."""


@dataclass(frozen=True)
class Outcome:
    """How a compile run ended."""

    ok: bool
    timed_out: bool
    """The time box ended, or nothing that was left would have fitted into it."""
    failed: Finished | None
    """The first unit that failed."""
    tail: tuple[str, ...]
    """Last lines of ninja's output: the failing command and its own words."""
    finished: int
    """Units that ended well in this run."""
    cached: int
    """Of those, answered by the compiler cache."""
    oom: bool = False
    """Whether the kernel's count of kills for want of memory rose while it ran."""
    counted: bool = True
    """Whether the kernel counts them."""
    lost: Mapping[str, float] = field(default_factory=dict)
    """Units that were ended unfinished, and the seconds that they had run."""
    code: int | None = None
    """ninja's exit status; negative for the signal that ended it."""


def drive(
    graph: Graph,
    broker: Broker,
    progress: Progress,
    *,
    env: Mapping[str, str],
    log: Path,
    deadline: float | None,
) -> Outcome:
    """Compile and link the graph's targets.

    :param log: file that gets ninja's whole output.
    :param deadline: `time.monotonic` value at which everything is stopped.
    """
    done: list[Finished] = []

    def note(unit: Finished) -> None:
        done.append(unit)
        progress.finished(unit)

    broker.on_finished = note
    selector = selectors.DefaultSelector()
    broker.open(selector)
    timed_out = False
    kills = broker.machine.oom_kills()
    environment = {**env, "ARMORY_BROKER": str(broker.address), "NINJA_STATUS": "[%f/%t] "}
    jobs = broker.cores + (WAITING_MARGIN if deadline is None else min(len(graph.commands), WAITING_IN_BOX))
    begin = log.stat().st_size if log.exists() else 0
    command: list[str | Path] = [graph.ninja, "-j", str(jobs), *graph.targets]
    try:
        with (
            heartbeat.telling(lambda: progress.line(broker)),
            process.spawn(command, cwd=graph.folder, env=environment, output=log) as child,
        ):
            try:
                while child.poll() is None:
                    for key, _ in selector.select(timeout=0.1):
                        key.data(key.fileobj)
                    broker.admit()
                    progress.tick(broker)
                    if deadline is None:
                        continue
                    if not timed_out and _out_of_time(broker, deadline):
                        timed_out = True
                        if left := broker.end_box():
                            say(
                                f"the time box has ended; up to {duration(broker.grace)} more for {', '.join(left)}"
                            )
                    if timed_out and (not broker.running or time.monotonic() >= deadline + broker.grace):
                        break
            finally:
                broker.close()  # launchers end their compilers, so ninja ends by itself and keeps its records
                process.ended_within(child, 5)
            code = child.returncode
    finally:
        selector.close()
        progress.close()
    good = [unit for unit in done if unit.code == 0]
    return Outcome(
        ok=code == 0,
        timed_out=timed_out and code != 0,
        failed=next((unit for unit in done if unit.code != 0), None),
        tail=_tail(log, begin),
        finished=len(good),
        cached=sum(unit.cached for unit in good),
        oom=code != 0 and kills is not None and (broker.machine.oom_kills() or 0) > kills,
        lost=broker.lost,
        counted=kills is not None,
        code=code,
    )


def _tail(log: Path, begin: int) -> tuple[str, ...]:
    """Last lines that this run wrote into the log."""
    with log.open("rb") as stream:
        stream.seek(max(begin, log.stat().st_size - MOST_TAIL))
        return tuple(stream.read().decode("utf-8", "replace").splitlines()[-400:])


def _out_of_time(broker: Broker, deadline: float) -> bool:
    if time.monotonic() >= deadline:
        return True
    settled = time.monotonic() - broker.heard > SETTLED_S  # ninja may still offer a unit that is short enough
    return broker.refused_for_time and settled and not broker.running and bool(broker.waiting)


def failing_block(tail: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The failing command and its own lines, from the end of ninja's output.

    :returns: the command line, and what the compiler said.
    """
    lines = list(tail)
    for index, line in enumerate(lines):
        if line.startswith("FAILED:"):
            command = lines[index + 1] if index + 1 < len(lines) else ""
            said = []
            for text in lines[index + 2 :]:
                if re.match(r"\[\d+/\d+\] |FAILED:|ninja: build stopped", text):
                    break
                said.append(text)
            return command.strip(), tuple(said[-25:])
    return "", tuple(lines[-25:])
