"""PTX to cubins under the broker: one ninja graph of images, the longest first, as many as memory has room for."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from build_recipes.build.units.broker import Broker
from build_recipes.build.units.costs import Cost
from build_recipes.build.units.drive import drive, failing_block
from build_recipes.build.units.graph import Command, Graph
from build_recipes.build.units.progress import Progress
from build_recipes.kit.console import counted, duration, say
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import Checkpointed, CompileFailed
from build_recipes.kit.host import Host
from build_recipes.specialise.images import GIB, Job, Store

_HERE = Path(__file__).resolve().parent


def assemble(jobs: Sequence[Job], store: Store, *, cores: int = 0, time_box: float = 0) -> None:
    """Make every image that is not in the store yet; each is taken in when all that could run have ended.

    :param cores: images at once; 0 for as many as there are cores.
    :param time_box: seconds after which no more are started; 0 for no limit.
    :raises Checkpointed: the time box ended; what is finished is kept.
    :raises CompileFailed: ptxas or fatbinary stopped; its words are given.
    """
    started = time.monotonic()
    jobs = sorted(jobs, key=lambda job: -job.seconds)
    (store.work / "out").mkdir(parents=True, exist_ok=True)
    write_atomic(store.work / "build.ninja", _ninja(jobs, store))
    history = {_out(store, job): Cost(job.seconds, GIB) for job in jobs}
    commands = tuple(Command(unit, unit, "", False) for unit in history)
    graph = Graph(store.work, _ninja_program(), (), commands)
    deadline = started + time_box if time_box else None
    broker = Broker(
        address=store.work / ".broker.sock",
        cores=cores or Host.this().cores,
        journal=store.work / "units.jsonl",
        history=history,
        deadline=deadline,
    )
    expected = sum(job.seconds for job in jobs)
    say(f"{counted(len(jobs), 'image')} to make, about {duration(expected)} of CPU, {broker.cores} at once")
    progress = Progress([command.unit for command in commands], history)
    log = store.work / "images.log"
    outcome = drive(graph, broker, progress, env=os.environ, log=log, deadline=deadline)
    done = [job for job in jobs if store.output(job).exists()]
    for job in done:
        store.put(job)
        store.output(job).unlink()
    if outcome.timed_out:
        raise Checkpointed(
            f"the time box ended: {counted(len(done), 'image')} finished now, {len(jobs) - len(done)} "
            f"of {len(jobs)} are left; "
            "all that is finished is kept",
            "run the same command again; it goes on from here",
        )
    if not outcome.ok:
        command, said = failing_block(outcome.tail)
        failed = next((job.name for job in jobs if _out(store, job) in command), "an image")
        words = "\n".join(said)
        raise CompileFailed(
            f"{failed} was not made (whole log: {log}).\n  command: {command}\n{words}", "add --slim"
        )


def _out(store: Store, job: Job) -> str:
    """What ninja calls a job's output."""
    return str(store.output(job).relative_to(store.work))


def _ninja_program() -> Path:
    return Path(sys.executable).parent / "ninja"


def _ninja(jobs: Sequence[Job], store: Store) -> str:
    """The graph: one edge an image, the longest first (ninja starts edges of equal depth in file order)."""
    python = [sys.executable, "-I", "-S"]
    lines = ["rule image", "  command = $line", "  description = $name", ""]
    for job in jobs:
        words = [
            *python, str(_HERE / "unit.py"), *python, str(_HERE / "one_image.py"),
            str(job.assembler.ptxas), str(job.assembler.fatbinary), job.kind, job.arch,
            f"in/{store.input(job).name}", *job.options, "-o", _out(store, job),
        ]  # fmt: skip
        line = shlex.join(words).replace("$", "$$")
        lines += [f"build {_out(store, job)}: image in/{store.input(job).name}", f"  line = {line}"]
        lines += [f"  name = {job.name}", ""]
    return "\n".join(lines)
