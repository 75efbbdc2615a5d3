"""A night: the jobs of the matrix, one after another, on this machine.

Everything that happens is an event in the database before the next thing begins, and in the feed after that.
A night that was killed is gone on with by the next one: its run is found unfinished, its steps are run
again (each is quick or has its own memory: a build compiles no finished unit twice), and it ends once.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build_recipes.kit import ourselves
from build_recipes.kit.console import counted, duration, say, step, warn
from build_recipes.kit.errors import NightBusy, NightFailed, NotWritable, UsageError
from build_recipes.kit.paths import Places
from build_recipes.nightly import events, feed, matrix, sharing, steps
from build_recipes.nightly.config import LAST_STEPS, Config
from build_recipes.nightly.extract import extract
from build_recipes.nightly.jobs import Command, Job, commands
from build_recipes.nightly.store import Store

TOO_LITTLE_S = 20.0
"""With less than this left no step is begun."""


@dataclass
class Night:
    """What a night works with, and what came of it."""

    config: Config
    places: Places
    store: Store
    cache: sharing.Sharing
    deadline: float | None = None
    """`time.monotonic` value at which it stops."""
    device: str | None = None
    """The device this machine is."""
    attempt: str = field(default_factory=events.new_attempt)
    states: dict[str, str] = field(default_factory=dict)
    """Job to how it ended."""

    @property
    def folder(self) -> Path:
        """Where results are kept."""
        return matrix.folder(self.places)

    def tell(self, kind: str, run: str, key: str, data: dict[str, Any]) -> None:
        """Record an event, then bring the feed up to date."""
        self.store.record(kind, run, key, data)
        feed.sync(self.store, self.folder / "feed.jsonl")

    def left(self) -> float | None:
        """Seconds left; None where there is no limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()


def choose(jobs: list[Job], only: str) -> list[Job]:
    """The jobs to run: all, or the one asked for; what an earlier night was stopped in comes first.

    :raises UsageError: no such job; the nearest are named.
    """
    if not only:
        return sorted(jobs, key=lambda job: job.state != "resume")
    chosen = [job for job in jobs if job.id == only]
    if not chosen:
        names = [job.id for job in jobs]
        near = difflib.get_close_matches(only, names, n=3) or names[:3]
        raise UsageError(f"the matrix has no job {only}; the nearest are {', '.join(near)}", "./inv matrix")
    return chosen


def run_night(night: Night, jobs: list[Job]) -> None:
    """Run jobs one after another; a red one does not stop the others.

    :raises NightFailed: at least one is red.
    """
    close_interrupted(night)
    tell_skipped(night.store, night.folder, jobs)
    for number, job in enumerate(jobs, 1):
        step("job", f"{job.id} ({number} of {len(jobs)})")
        left = night.left()
        if job.skip:
            say(f"            skipped: {job.skip}")
            night.states[job.id] = "skipped"
        elif left is not None and left < TOO_LITTLE_S:
            say("            left for the next night: the time is up")
            night.states[job.id] = "left"
        else:
            night.states[job.id] = run_job(night, job)
            say(f"            {job.id}: {night.states[job.id]}")
    check_red(night, len(jobs))


def tell_skipped(store: Store, folder: Path, jobs: list[Job]) -> None:
    """Record the jobs that a night does not run, once a day each, and why: the page tells what is old from what is
    unchanged."""
    today = events.utc_now().date().isoformat()
    for job in jobs:
        if job.skip:
            data = {"job": job.id, "label": job.label, "device": job.device, "reason": job.skip}
            store.record("skipped", f"{job.id}@{today}", "", data)
    feed.sync(store, folder / "feed.jsonl")


def check_red(night: Night, total: int) -> None:
    """Refuse a night with red jobs.

    :raises NightFailed: and which.
    """
    red = [name for name, state in night.states.items() if state == "red"]
    if red:
        raise NightFailed(
            f"{len(red)} of {counted(total, 'job')} are red: {', '.join(red)}",
            f"./inv page, then look at {night.folder / 'page/index.html'}; logs are in {night.folder / 'logs'}",
        )


def close_interrupted(night: Night) -> None:
    """Say of the runs that a killed night of this machine left open that they were interrupted.

    Only the holder of `night_lock` may call this: no other night can be working on them.
    """
    for run in night.store.runs():
        if run.state == "running" and run.host == events.host_name():
            warn(f"{run.id} was interrupted by a crash or a kill; it is gone on with")
            night.tell("paused", run.id, f"{run.attempts}.lost", {"state": "interrupted", "seconds": 0})
    feed.sync(night.store, night.folder / "feed.jsonl")


def run_job(night: Night, job: Job, run: str = "") -> str:
    """Run a job to its end or to the end of the time. Returns its state.

    :param run: name of the run, where somebody else chose it.
    """
    earlier = night.store.unfinished(job.id, job.fingerprint)
    run = run or (earlier.id if earlier else events.new_run(job.id, events.utc_now()))
    started = time.monotonic()
    night.tell(
        "started", run, night.attempt,
        {
            "job": job.id, "label": job.label, "tag": job.tag, "ref": job.ref, "device": job.device,
            "runner": job.runner, "fingerprint": job.fingerprint, "attempt": night.attempt,
            "estimate_s": job.estimate_s, "compiler_cache": night.cache.name,
            "program": {"version": ourselves.version(), "commit": ourselves.commit()},
            "url": ourselves.invocation().url,
        },
    )  # fmt: skip

    def close(kind: str, state: str, **more: Any) -> str:
        seconds = round(time.monotonic() - started, 2)
        data = {"state": state, "seconds": seconds, "fingerprint": job.fingerprint}
        night.tell(kind, run, night.attempt if kind == "paused" else "", {**data, **more})
        return state

    if job.problem:
        return close("ended", "red", reason=job.problem)
    try:
        state, more = _walk(night, job, run)
    except KeyboardInterrupt:
        close("paused", "interrupted")
        raise
    return close("paused" if state in events.UNFINISHED else "ended", state, **more)


def _walk(night: Night, job: Job, run: str) -> tuple[str, dict[str, Any]]:
    """The steps of a job, in order."""
    tree = str(night.places.build / "vllm-main")
    here = night.device == job.device
    wheel: dict[str, Any] = {}
    broken = ""
    failed: dict[str, Any] = {}
    for command in commands(night.config, job, tree=tree, cache=night.cache.choice, device_here=here):
        if broken or (command.needs_wheel() and not wheel):
            _tell_step(night, run, command, steps.Outcome("not run"))
            continue
        words = command.words(wheel=wheel.get("path", "WHEEL"), time_box=_time_box(night))
        left = night.left()
        if left is not None and left < TOO_LITTLE_S:
            return "checkpointed", {"reason": f"no time was left for {command.name}"}
        step(command.name, shlex.join(["./inv", *words]))
        log = night.folder / "logs" / run / f"{command.name.replace(' ', '-')}.log"
        outcome = steps.run(words, log, env=night.cache.environment(), deadline=night.deadline, say=_echo)
        told = _tell_step(night, run, command, outcome, words=words, log=log)
        if outcome.state in ("checkpointed", "interrupted"):
            return outcome.state, {"reason": f"stopped in {command.name}"}
        if command.step.name == "build" and outcome.state == "passed":
            wheel = told["facts"]
        if outcome.state == "failed" and command.step.gate:
            broken = f"{command.name} failed with exit code {outcome.exit}"
            failed = failed_step(told)
    if not broken and not wheel and any(entry.name == "build" for entry in night.config.step):
        broken = "there is no wheel"
    if broken:
        return "red", {"reason": broken, **({"failed": failed} if failed else {})}
    return "green", {"wheel": wheel.get("wheel"), "path": wheel.get("path")} if wheel else {}


def _echo(line: str) -> None:
    """A line of a step, set off from the night's own."""
    say(f"          | {line}")


def _time_box(night: Night) -> str:
    """What the build may take of the time that is left; ``0s`` where there is no limit."""
    left = night.left()
    return "0s" if left is None else f"{max(1, int(left * (1 - LAST_STEPS)))}s"


def _tell_step(
    night: Night, run: str, command: Command, outcome: steps.Outcome, *, words: list[str] | None = None,
    log: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Record how a step ended. Returns the event's data."""
    data: dict[str, Any] = {
        "step": command.name,
        "gate": command.step.gate,
        "state": outcome.state,
        "exit": outcome.exit,
        "seconds": round(outcome.seconds, 2),
        "command": ["./inv", *words] if words else [],
        "facts": extract(command.name, outcome.document),
    }
    if log is not None and log.is_file():
        data["log"] = log.relative_to(night.folder).as_posix()
    if outcome.findings:
        data["findings"] = list(outcome.findings)
    if outcome.excerpt:
        data["excerpt"] = list(outcome.excerpt)
    night.tell("step", run, f"{night.attempt}.{command.name}", data)
    if outcome.state not in ("passed", "not run"):
        warn(f"{command.name}: {outcome.state}" + (f" (exit code {outcome.exit})" if outcome.exit else ""))
    elif outcome.state == "passed":
        say(f"            {command.name}: passed in {duration(outcome.seconds)}")
    return data


def failed_step(told: Mapping[str, Any]) -> dict[str, Any]:
    """What the end of a red run says of the step that made it red, from that step's own data."""
    known = dict(next(iter(told.get("findings") or ()), {}))
    return {
        "step": told["step"],
        "exit": told["exit"],
        "log": told.get("log", ""),
        "excerpt": told.get("excerpt", []),
        "cause": known.get("cause", ""),
        "fix": known.get("fix", ""),
    }


@contextlib.contextmanager
def night_lock(folder: Path, *, wait: bool) -> Iterator[None]:
    """One night at a time on a machine.

    :param wait: wait for the other one instead of stopping.
    :raises NightBusy: another night runs.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".night", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise NotWritable(f"{folder} cannot be written: {error.strerror}", "VLLM_ARMORY_WHEELS=DIR") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            if not wait:
                raise NightBusy(
                    f"another night (process {holder}) runs on this machine",
                    f"wait for it (--wait), or stop it: kill -INT {holder}",
                ) from None
            say(f"waiting for the night of process {holder}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
