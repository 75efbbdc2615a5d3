"""From events to what the page shows: the newest state of each cell, the history, the failures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from build_recipes.nightly.events import FINISHED, Event

OUTCOMES = (*FINISHED, "checkpointed", "interrupted")


@dataclass
class Run:
    """One run, with its steps."""

    id: str
    job: str = ""
    label: str = ""
    """What was built, with the size's suffix: ``v0.12.0``, ``main``, ``v0.12.0-smoke``."""
    device: str = ""
    state: str = "running"
    started: str = ""
    ended: str = ""
    """UTC; empty while it is under way."""
    seconds: float = 0
    host: str = ""
    attempts: int = 0
    reason: str = ""
    cache: str = ""
    ref: str = ""
    """Commit of vLLM where the job is main, else the tag."""
    commit: str = ""
    """Commit of this program, 40 digits; empty where it is not known."""
    url: str = ""
    """Page of the workflow's run of its last attempt; empty for one by hand."""
    failed: dict[str, Any] = field(default_factory=dict)
    """The step that made it red (see `events`): ``step``, ``exit``, ``log``, ``excerpt``, ``cause``, ``fix``."""
    wheel: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Identifier of its place in the page."""
        return "run-" + "".join(c if c.isalnum() else "-" for c in self.id)

    @property
    def build_s(self) -> float:
        """Seconds of its build step; 0 where there was none."""
        return float(self.steps.get("build", {}).get("seconds", 0))

    @property
    def night(self) -> str:
        """The day it ended, or began."""
        return (self.ended or self.started)[:10]

    def failed_steps(self) -> list[dict[str, Any]]:
        """Steps that failed, those that made it red first."""
        failed = [data for data in self.steps.values() if data.get("state") == "failed"]
        return sorted(failed, key=lambda data: not data.get("gate"))


@dataclass(frozen=True)
class Cell:
    """What is known of a tag on a device."""

    run: Run | None
    """The newest that came to something."""
    running: Run | None
    """One that is newer and under way."""


@dataclass(frozen=True)
class View:
    """Everything the page shows."""

    labels: list[str]
    """Rows: tags, the newest first."""
    devices: list[str]
    """Columns."""
    cells: dict[tuple[str, str], Cell]
    finished: list[Run]
    """Green and red runs, the oldest first."""
    failures: list[Run]
    """Red runs, the newest first."""
    updated: str
    """Time of the newest event."""

    @property
    def nights(self) -> list[tuple[str, int, int]]:
        """Day, number of green and of red runs, in the order they came."""
        count: dict[str, list[int]] = {}
        for run in self.finished:
            count.setdefault(run.night, [0, 0])[run.state == "red"] += 1
        return [(night, green, red) for night, (green, red) in count.items()]


def fold(events: Iterable[Event]) -> list[Run]:
    """Runs in the order of their newest event."""
    runs: dict[str, Run] = {}
    for event in events:
        run = runs.pop(event.run, None) or Run(event.run)
        runs[event.run] = run
        data = event.data
        if event.kind == "started":
            run.job, run.device = str(data.get("job", "")), str(data.get("device", ""))
            label = str(data.get("label", ""))
            run.label = label + run.job.removeprefix(f"{label}-{run.device}")
            run.started = run.started or event.time
            run.host, run.cache = event.host, str(data.get("compiler_cache", ""))
            run.ref, run.url = str(data.get("ref", "")), str(data.get("url", ""))
            run.commit = str((data.get("program") or {}).get("commit", ""))
            run.attempts += 1
            run.state = run.state if run.state in FINISHED else "running"
        elif event.kind == "step":
            run.steps[str(data.get("step", ""))] = data
        elif event.kind in ("paused", "ended") and run.state not in FINISHED:
            run.state = str(data.get("state", ""))
            run.seconds += float(data.get("seconds", 0))
            run.ended, run.reason = event.time, str(data.get("reason") or "")
            run.wheel, run.failed = data.get("wheel") or {}, data.get("failed") or {}
    return [run for run in runs.values() if run.label]


def view(events: list[Event]) -> View:
    """What the page shows of the events."""
    runs = fold(events)
    cells: dict[tuple[str, str], Cell] = {}
    for run in runs:
        key = (run.label, run.device)
        before = cells.get(key, Cell(None, None))
        cells[key] = Cell(run, None) if run.state in OUTCOMES else Cell(before.run, run)
    finished = [run for run in runs if run.state in FINISHED]
    return View(
        labels=sorted({run.label for run in runs}, key=_newest_first, reverse=True),
        devices=sorted({run.device for run in runs}),
        cells=cells,
        finished=finished,
        failures=[run for run in reversed(finished) if run.state == "red"],
        updated=events[-1].time if events else "",
    )


def _newest_first(label: str) -> tuple[bool, list[int], str]:
    numbers = [
        int(part)
        for part in label.removeprefix("v").split("-")[0].split(".")
        if part.isdecimal() and len(part) < 9
    ]
    return label.startswith("main"), numbers, label
