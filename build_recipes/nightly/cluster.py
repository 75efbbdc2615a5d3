"""A night spread over several hosts by Dask: each job is a task, each worker runs one at a time.

Dask brings what a night needs and nothing of it is ours: a queue, workers that may come and go, and a task
that is run again elsewhere when its worker dies. A job run twice is harmless, because the run has one name
from the start and ends once: events are known by their names, and the first end counts. Workers keep what
they saw in their own feed as well.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import time
from typing import Any

import msgspec

from build_recipes.facts import device
from build_recipes.kit.console import say, step, warn
from build_recipes.kit.errors import MissingPackages, NetworkError
from build_recipes.kit.paths import Places
from build_recipes.nightly import events, feed, matrix, runner, sharing
from build_recipes.nightly.config import Config
from build_recipes.nightly.jobs import Job
from build_recipes.nightly.store import Store

CONNECT_S = 20.0


def work(job: dict[str, Any], run: str, config: dict[str, Any], left: float | None) -> list[bytes]:
    """What a worker does: run a job in its own folders. Returns the run's events as lines."""
    places = Places.from_environment()
    deadline = None if left is None else time.monotonic() + left
    with Store(matrix.folder(places) / "night.sqlite") as store:
        night = runner.Night(
            msgspec.convert(config, Config), places, store, sharing.choose(), deadline, device.detect()
        )
        runner.run_job(night, msgspec.convert(job, Job), run)
        return [event.line() for _, event in store.events() if event.run == run]


def spread(night: runner.Night, jobs: list[Job], scheduler: str) -> None:
    """Run jobs on the workers of a scheduler, and record what comes back.

    :param scheduler: address of a Dask scheduler, ``tcp://host:8786``.
    :raises MissingPackages: Dask is not installed.
    :raises NetworkError: the scheduler does not answer.
    :raises NightFailed: at least one job is red.
    """
    try:
        dask = importlib.import_module("distributed")
    except ImportError:
        raise MissingPackages(
            "Dask's distributed, which spreads a night, is not installed",
            ".venv/bin/uv pip install distributed",
        ) from None
    runner.close_interrupted(night)
    try:
        client = dask.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, asyncio.TimeoutError, ValueError) as error:
        raise NetworkError(
            f"the scheduler {scheduler} does not answer: {error}", "dask scheduler, on a host that all reach"
        ) from error
    with client:
        futures = _submit(client, night, jobs)
        _collect(
            night,
            dask.as_completed(list(futures), loop=client.loop, timeout=night.left(), raise_errors=False),
            futures,
        )
    runner.check_red(night, len(jobs))


def _submit(client: Any, night: runner.Night, jobs: list[Job]) -> dict[Any, tuple[Job, str]]:
    """Give the jobs to the scheduler. Returns future to job and run."""
    told = client.scheduler_info(n_workers=-1)["workers"].values()
    declared = {name for entry in told for name in entry["resources"]}
    say(f"            {len(told)} workers")
    futures = {}
    for job in jobs:
        if job.skip:
            night.states[job.id] = "skipped"
            continue
        earlier = night.store.unfinished(job.id, job.fingerprint)
        run = earlier.id if earlier else events.new_run(job.id, events.utc_now())
        future = client.submit(
            work, dataclasses.asdict(job), run, msgspec.to_builtins(night.config), night.left(),
            key=f"{run}.{night.attempt}", pure=False,
            resources={job.device: 1} if job.device in declared else None,
        )  # fmt: skip
        futures[future] = (job, run)
        night.states[job.id] = "left"
    return futures


def _collect(night: runner.Night, done: Any, futures: dict[Any, tuple[Job, str]]) -> None:
    """Record results as they come, until all are there or the time is up."""
    try:
        for future in done:
            job, run = futures[future]
            if future.status == "finished":
                night.store.merge(events.decode(line) for line in future.result())
                feed.sync(night.store, night.folder / "feed.jsonl")
            else:
                night.tell("started", run, night.attempt, {"job": job.id, "label": job.label, "tag": job.tag,
                           "device": job.device, "fingerprint": job.fingerprint})  # fmt: skip
                reason = f"no worker could run it: {future.exception()!r}"[:500]
                night.tell("ended", run, "", {"state": "red", "seconds": 0, "reason": reason})
            ended = next(entry for entry in night.store.runs(job.id) if entry.id == run)
            night.states[job.id] = ended.state
            step("job", f"{job.id}: {ended.state} on {ended.host}")
    except (TimeoutError, asyncio.TimeoutError):
        warn("the time is up; what has not come back is left for the next night")
