"""From events to what the pages show: the newest state of each cell, each night of it, the history, the failures."""

from __future__ import annotations

import re
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
        return day(self.ended or self.started)

    def failed_steps(self) -> list[dict[str, Any]]:
        """Steps that failed, those that made it red first."""
        failed = [data for data in self.steps.values() if data.get("state") == "failed"]
        return sorted(failed, key=lambda data: not data.get("gate"))


@dataclass(frozen=True)
class Skip:
    """A job that a night did not run."""

    time: str
    reason: str
    green: bool
    """Because it is green already: what it was is what it is."""


@dataclass(frozen=True)
class Night:
    """What a night came to for a cell."""

    state: str
    """A run's state, or ``skipped``."""
    run: Run | None = None
    reason: str = ""


@dataclass
class Cell:
    """What is known of a tag on a device."""

    run: Run | None = None
    """The newest that came to something."""
    running: Run | None = None
    """One that is newer and under way."""
    skip: Skip | None = None
    """The newest, where it is newer than the run."""
    nights: dict[str, Night] = field(default_factory=dict)
    """Day to what came of it."""

    @property
    def news(self) -> str:
        """When it was last known to be what it is; empty where it never was."""
        skipped = self.skip.time if self.skip and self.skip.green else ""
        return max(skipped, self.run.ended or self.run.started if self.run else "")


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
    days: list[str]
    """Days of all nights, the oldest first."""
    updated: str
    """Time of the newest event."""


def fold(events: Iterable[Event]) -> list[Run]:
    """Runs in the order of their newest event."""
    runs: dict[str, Run] = {}
    for event in events:
        if event.kind == "skipped":
            continue
        run = runs.pop(event.run, None) or Run(event.run)
        runs[event.run] = run
        data = event.data
        if event.kind == "started":
            run.job, run.device = str(data.get("job", "")), str(data.get("device", ""))
            run.label = label_of(data)
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


def day(time: str) -> str:
    """The day of a time stamp; ``0000-00-00`` where it is none (it becomes a file's name)."""
    return time[:10] if re.fullmatch(r"\d{4}-\d\d-\d\d", time[:10]) else "0000-00-00"


def label_of(data: dict[str, Any]) -> str:
    """What a job builds, with the size's suffix."""
    label, job = str(data.get("label", "")), str(data.get("job", ""))
    return label + job.removeprefix(f"{label}-{data.get('device', '')}")


def view(events: list[Event]) -> View:
    """What the pages show of the events."""
    runs = fold(events)
    cells: dict[tuple[str, str], Cell] = {}
    for run in runs:
        cell = cells.setdefault((run.label, run.device), Cell())
        if run.state in OUTCOMES:
            cell.run, cell.running = run, None
        else:
            cell.running = run
    of_run = {run.id: run for run in runs}
    for event in events:
        if event.kind == "skipped":
            key = (label_of(event.data), str(event.data.get("device", "")))
            cell = cells.setdefault(key, Cell())
            reason = str(event.data.get("reason") or "")
            cell.skip = Skip(event.time, reason, reason.startswith("green already"))
            cell.nights.setdefault(day(event.time), Night("skipped", reason=reason))
        elif event.kind in ("paused", "ended") and event.run in of_run:
            run = of_run[event.run]
            cell = cells[run.label, run.device]
            cell.nights[day(event.time)] = Night(str(event.data.get("state", "")), run)
            cell.skip = None
    finished = [run for run in runs if run.state in FINISHED]
    return View(
        labels=sorted({label for label, _ in cells}, key=_newest_first, reverse=True),
        devices=sorted({device for _, device in cells}),
        cells=cells,
        finished=finished,
        failures=[run for run in reversed(finished) if run.state == "red"],
        days=sorted({day for cell in cells.values() for day in cell.nights}),
        updated=events[-1].time if events else "",
    )


def _newest_first(label: str) -> tuple[bool, list[int], str]:
    numbers = [
        int(part)
        for part in label.removeprefix("v").split("-")[0].split(".")
        if part.isdecimal() and len(part) < 9
    ]
    return label.startswith("main"), numbers, label
