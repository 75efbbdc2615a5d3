"""Compile: ninja under the broker, nothing finished is done twice."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build import registrations, selection
from build_recipes.build.modules import Part, parts
from build_recipes.build.plan import Plan, memory_note, swap_advice
from build_recipes.build.stages import record, trees
from build_recipes.build.stages.advice import advice_for
from build_recipes.build.stages.configure import build_environment, configure
from build_recipes.build.stages.provision import Provisioned
from build_recipes.build.units import box, estimate, outputs
from build_recipes.build.units import graph as graphs
from build_recipes.build.units.broker import Broker
from build_recipes.build.units.costs import learned, unit_name
from build_recipes.build.units.drive import Outcome, drive, failing_block
from build_recipes.build.units.graph import Graph
from build_recipes.build.units.progress import Progress
from build_recipes.facts.versions import facts
from build_recipes.kit import evidence
from build_recipes.kit.console import counted, duration, say, warn
from build_recipes.kit.errors import (
    Checkpointed,
    CompileFailed,
    ConfigureFailed,
    KilledByOom,
    NotEnoughMemory,
    SourceIncomplete,
)
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import Kind, makeup


@dataclass(frozen=True)
class Compiled:
    """A tree whose modules are built."""

    folder: Path
    """CMake's build folder."""
    environment: dict[str, str]
    """The environment everything was built in."""
    parts: tuple[Part, ...]
    """Every module of the tag: what was made of it, or why it was not."""
    units: int
    compiled: int
    """Units that this run compiled (not the cache, not an earlier run)."""
    cached: int
    seconds: float
    ops: dict[str, list[str]]
    """Torch ops by namespace that the compiled sources register."""

    @property
    def modules(self) -> tuple[str, ...]:
        """What was made, as setup.py names it: ``vllm._C``."""
        return tuple(part.module.name for part in self.parts if part.made)

    @property
    def left_out(self) -> dict[str, str]:
        """Modules that were not made, or not wholly, and why."""
        return {part.module.name: part.left_out for part in self.parts if part.left_out}

    def made(self, *kinds: Kind) -> tuple[str, ...]:
        """Targets of the modules that were made as one of these kinds."""
        return tuple(part.module.target for part in self.parts if part.made in kinds)


def read_parts(plan: Plan, fetched: Fetched, made: Provisioned, folder: Path) -> tuple[Part, ...]:
    """What the configured tree makes of each module."""
    found = makeup(fetched.vllm)
    names = [module.target for module in found.modules]
    return parts(
        found,
        folder,
        made.python.parent / "ninja",
        asked=selection.asked(plan.request, names),
        missing=fetched.missing,
        capability=plan.device.capability,
    )


def check_sources(plan: Plan, found: Sequence[Part], fetched: Fetched) -> None:
    """Refuse to compile where a module that the device has code of lacks its sources.

    :raises SourceIncomplete: naming the trees, and how each can be given.
    """
    lost = [part.module for part in found if part.lost]
    if lost:
        names = dict.fromkeys(tree for module in lost for tree in module.trees if tree in fetched.missing)
        lacks = []
        for name in names:
            users = tuple(module.target for module in lost if name in module.trees)
            lack = trees.lacking(plan, plan.lock.tree(name), users, fetched.missing[name])
            lacks.append(dataclasses.replace(lack, needed_by=users))
        raise SourceIncomplete(*trees.refusal(plan, lacks))


def compile_units(plan: Plan, fetched: Fetched, made: Provisioned, began: float) -> Compiled:
    """Configure, check, compile and link.

    :param began: `time.monotonic` value from which the time box counts: the start of the whole build.
    :raises UngatedUnits: CUDA units without an architecture, before anything is compiled.
    :raises UnloadableUnits: CUDA units for another GPU, before anything is compiled.
    :raises CompileFailed: a unit does not compile.
    :raises KilledByOom: the kernel ended a compiler.
    :raises Checkpointed: the time box ended.
    """
    started = time.monotonic()
    environment = build_environment(plan, fetched, made)
    folder = configure(plan, fetched, made, environment)
    found = read_parts(plan, fetched, made, folder)
    check_sources(plan, found, fetched)
    wanted = [part.module.target for part in found if part.made not in (None, Kind.RUST)]
    graph = graphs.read_graph(folder, made.python.parent / "ninja", wanted)
    graphs.check_gencode(graph, facts().host_code_units)
    graphs.check_targets(graph, plan.device.number)
    names = [command.unit for command in graph.commands]
    graphs.compare(plan.tree / "stages/units.json", graph.targets, names)
    history = learned(plan.tree / "units.jsonl")
    if graph.commands:
        unit, cost = graph.heaviest(history)
        if note := memory_note(plan.host, unit, cost.gib):
            warn(note)
    hoped = estimate.of_units(
        names, history, "the configured graph, costs.toml", estimate.pace(plan.places.build)
    )
    estimate.commit(plan.tree, hoped, names, hoped.cpu_s / plan.jobs)
    outcome = run_units(plan, graph, environment, began)
    if outcome.timed_out:
        left = len(graphs.pending(graph))
        raise Checkpointed(
            f"the time box ended: {counted(outcome.finished, 'unit')} finished now, {left} of "
            f"{len(graph.commands)} are left; "
            f"all that is finished is kept{box.cost_of(outcome.lost)}",
            "run the same command again; it goes on from here",
        )
    if not outcome.ok:
        raise failure(plan, outcome)
    check_unchanged(plan, graph)
    say(estimate.say_how_it_went(estimate.settle(plan.tree, names)))
    return Compiled(
        folder=folder,
        environment=environment,
        parts=found,
        units=len(graph.commands),
        compiled=outcome.finished - outcome.cached,
        cached=outcome.cached,
        seconds=round(time.monotonic() - started, 2),
        ops=registrations.of_graph(graph),
    )


def check_unchanged(plan: Plan, graph: Graph) -> None:
    """Refuse a compile during which ninja ran CMake again and units went away.

    CMake's cache keeps what generators made of the sources as they were, so files it does not find then are no error.

    :raises ConfigureFailed: the tree is marked, so that the next run configures it from the beginning.
    """
    now = {command.unit for command in graphs.read_graph(graph.folder, graph.ninja, graph.targets).commands}
    if lost := [command.unit for command in graph.commands if command.unit not in now]:
        (plan.tree / "stages/configure.json").unlink(missing_ok=True)
        raise ConfigureFailed(
            f"the sources below {plan.tree / 'src'} changed while they were compiled: CMake ran again, and "
            f"{len(lost)} of {counted(len(graph.commands), 'unit')} are gone, {lost[0]} among them",
            "run the same command again: it configures again",
        )


def run_units(plan: Plan, graph: Graph, environment: Mapping[str, str], began: float) -> Outcome:
    """Let ninja bring the graph's targets up to date, under the broker."""
    journal = plan.tree / "units.jsonl"
    history = learned(journal)
    linked = plan.tree / "stages/linked.json"
    if wrong := outputs.distrust(graph, journal, linked):
        record.told("compile", wrong)
    todo = graphs.pending(graph)
    box.check(plan.request.time_box, todo, history)
    if todo:
        graphs.order_by_cost(graph.folder, history)
        evidence.renew(plan.tree, record.files_of(plan.tree, "configure"), "cmake/build.ninja")
        say(f"{len(todo)} of {counted(len(graph.commands), 'unit')} to compile, {counted(plan.jobs, 'job')}")
    deadline = began + plan.request.time_box if plan.request.time_box else None
    log = plan.tree / "logs/compile.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    broker = Broker(
        address=plan.tree / ".broker.sock",
        cores=plan.jobs,
        journal=journal,
        history=history,
        deadline=deadline,
        grace=box.grace_of(plan.request.time_box),
    )
    outcome = drive(graph, broker, Progress(todo, history), env=environment, log=log, deadline=deadline)
    if outcome.ok:
        outputs.settle(graph, journal, linked)
    return outcome


def failure(plan: Plan, outcome: Outcome) -> CompileFailed | KilledByOom | NotEnoughMemory:
    """The error that says why a compile run ended: the unit, its command, its own last lines."""
    command, said = failing_block(outcome.tail)
    log = plan.tree / "logs/compile.log"
    match = re.search(r" -o (\S+\.o)\b", command)
    name = outcome.failed.unit if outcome.failed else unit_name(match.group(1)) if match else "the link"
    words = "\n".join(said)
    if outcome.failed is None and not command and outcome.code is not None and outcome.code < 0:
        return CompileFailed(
            f"ninja was ended by signal {-outcome.code} from outside (whole log: {log})",
            "run the same command again; what is finished is kept",
        )
    unit = outcome.failed
    peak = f"it held {unit.rss_kib / 2**20:.1f} GiB" if unit else "how much it held is not known"
    killed = bool(unit and unit.killed) or re.search(r"signal 9|\bKilled\b", words)
    short = re.search(r"Cannot allocate memory|out of memory", words, re.IGNORECASE)
    if (unit.oom if unit else outcome.oom) or short:
        if unit and unit.alone:
            have = f"{plan.host.memory_gib:.1f} GiB of memory and {plan.host.swap_gib:.1f} GiB of swap"
            return NotEnoughMemory(
                f"{name} ran out of memory although it ran alone on {have} ({peak}):\n{words}",
                swap_advice(unit.rss_kib / 2**20 / 3),
            )
        return KilledByOom(
            f"{name} ran out of memory, by the kernel's own count of such kills ({peak}):\n{words}",
            "run the same command again: the unit now runs with more memory kept free, at last alone",
        )
    if killed:
        known = (
            ""
            if outcome.counted
            else ", perhaps by the kernel for want of memory, which this kernel does not count"
        )
        return CompileFailed(
            f"{name} was killed from outside{known} ({peak}; whole log: {log}):\n{words}",
            "run the same command again; what is finished is kept",
        )
    return CompileFailed(
        f"{name} did not compile (whole log: {log}).\n  command: {command}\n{words}",
        f"{advice_for(log)}; the unit alone: ./inv repro {plan.words} --device {plan.device_name} --unit {name}",
    )


def summary(done: Compiled) -> str:
    """One line on a compile run."""
    return (
        f"{counted(done.units, 'unit')} ({done.compiled} compiled now, {done.cached} from the cache), "
        f"{counted(len(done.modules), 'module')}, {duration(done.seconds)}"
    )
