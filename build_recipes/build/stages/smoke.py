"""Smoke: the whole way on real sources in minutes. One module is linked, one CUDA unit is compiled and read.

Shows that this machine can build for the device: sources, patches, environment, toolchain, configure, a link
against the target's torch, and SASS for the device out of nvcc. The wheel is marked ``.smoke`` and holds one
module; it is not for use.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from build_recipes.build.modules import Part
from build_recipes.build.plan import Plan
from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages import configure as configuring
from build_recipes.build.stages.compile import Compiled
from build_recipes.build.stages.provision import Provisioned
from build_recipes.build.units import graph as graphs
from build_recipes.build.units.costs import expected
from build_recipes.build.units.graph import Command, Graph
from build_recipes.facts.architectures import Architecture
from build_recipes.facts.device import Device
from build_recipes.facts.versions import facts
from build_recipes.formats import fatbin
from build_recipes.formats.elf import mapped
from build_recipes.kit.console import say
from build_recipes.kit.errors import AuditFailed, Checkpointed, SourceIncomplete
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import Kind, Module


def smoke_units(
    plan: Plan, fetched: Fetched, made: Provisioned, began: float
) -> tuple[Compiled, dict[str, object]]:
    """Compile and link the smoke module, compile one real CUDA unit, and read its SASS.

    :param began: as in `compile.compile_units`.
    :returns: the compiled tree, and what was seen in the unit.
    :raises AuditFailed: the unit holds no SASS for the device.
    """
    started = time.monotonic()
    environment = configuring.build_environment(plan, fetched, made)
    folder = configuring.configure(plan, fetched, made, environment)
    ninja = made.python.parent / "ninja"
    found = compiling.read_parts(plan, fetched, made, folder)
    linked, sampled = choose(found, folder, ninja)
    whole = graphs.read_graph(folder, ninja, [sampled.target])
    graphs.check_gencode(whole, facts().host_code_units)
    unit = sample(whole, plan.device)
    graph = graphs.read_graph(folder, ninja, [linked.target, unit.output])
    outcome = compiling.run_units(plan, graph, environment, began)
    if outcome.timed_out:
        raise Checkpointed(
            "the time box ended in the smoke build; what is finished is kept", "run the same command again"
        )
    if not outcome.ok:
        raise compiling.failure(plan, outcome)
    seen = read_sass(plan, folder / unit.output)
    say(f"{unit.unit}: SASS for {', '.join(seen)}")
    kept = tuple(
        part if part.module == linked else dataclasses.replace(part, made=None, left_out="smoke")
        for part in found
    )
    compiled = Compiled(
        folder=folder,
        environment=environment,
        parts=kept,
        units=len(graph.commands),
        compiled=outcome.finished - outcome.cached,
        cached=outcome.cached,
        seconds=round(time.monotonic() - started, 2),
        ops={},
    )
    return compiled, {"unit": unit.unit, "sass": seen, "gencode": list(unit.gencodes)}


def choose(found: Sequence[Part], folder: Path, ninja: Path) -> tuple[Module, Module]:
    """The module to link whole, and the one of which a unit is compiled.

    Linked is a host-only module of vLLM's own, if there is one that meets the driver's library beside torch's:
    the smallest. Sampled is the smallest kernel module that vLLM cannot do without. External trees may be
    missing: a smoke build goes as far as it can with what is there.
    """
    hosts = [part.module for part in found if part.defined is Kind.HOST and not part.module.trees]
    kernels = [part.module for part in found if part.defined is Kind.KERNEL]
    if not hosts or not kernels:
        raise SourceIncomplete(
            "this tree has no host-only module and kernel module to try for the device", "leave --smoke out"
        )
    size = {
        module: len(graphs.read_graph(folder, ninja, [module.target]).commands)
        for module in (*hosts, *kernels)
    }
    return (
        min(hosts, key=lambda one: ("libcuda.so" not in graphs.link(folder, ninja, one.target), size[one])),
        min(kernels, key=lambda one: (one.optional, size[one])),
    )


def sample(graph: Graph, device: Device) -> Command:
    """The cheapest CUDA unit that is to hold SASS for the device, by the table alone: what this tree measured must not
    make a build that goes on take another one.

    :raises AuditFailed: there is none.
    """
    native = [unit for unit in graph.cuda_units if unit.native(device.number)]
    if not native:
        raise AuditFailed(
            f"no unit of {', '.join(graph.targets)} is compiled to SASS that loads on {device.title}",
            "report this: CMake chose no architecture of the device",
        )
    return min(native, key=lambda unit: expected(unit.unit).seconds)


def read_sass(plan: Plan, path: Path) -> list[str]:
    """Architectures of the SASS in an object file.

    :raises AuditFailed: none of them loads on the device.
    """
    with mapped(path) as elf:
        seen = {Architecture(entry.arch, entry.suffix) for entry in fatbin.read(elf) if entry.kind == "sass"}
    found = sorted(f"sm_{one.number}" for one in seen)
    if not any(one.on(plan.device.number) == "native" for one in seen):
        raise AuditFailed(
            f"{path.name} holds SASS for {', '.join(found) or 'nothing'}, none for {plan.device.title}",
            "report this: the plan asked for another architecture than nvcc produced",
        )
    return found
