"""Smoke: the whole way on real sources in minutes. One module is linked, one CUDA unit is compiled and read.

Shows that this machine can build for the device: sources, patches, environment, toolchain, configure, a link
against the target's torch, and SASS for the device out of nvcc. The wheel is marked ``.smoke`` and holds one
module; it is not for use.
"""

from __future__ import annotations

import time
from pathlib import Path

from build_recipes.build.compiling import graph as graphs
from build_recipes.build.compiling.costs import expected, learned
from build_recipes.build.plan import Plan
from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages.compile import Compiled
from build_recipes.build.stages.provision import Provisioned
from build_recipes.formats import fatbin
from build_recipes.formats.elf import mapped
from build_recipes.kit.console import say
from build_recipes.kit.errors import AuditFailed, Checkpointed
from build_recipes.sources.fetch import Fetched

MODULE = "cumem_allocator"
"""Linked whole: it needs no external tree, and its link meets torch, the CUDA runtime and the driver stub."""
SAMPLE = "_moe_C"
"""One CUDA unit of it is compiled: vLLM's own kernels with torch's headers."""


def smoke_units(
    plan: Plan, fetched: Fetched, made: Provisioned, began: float
) -> tuple[Compiled, dict[str, object]]:
    """Compile and link the smoke module, compile one real CUDA unit, and read its SASS.

    :param began: as in `compile.compile_units`.
    :returns: the compiled tree, and what was seen in the unit.
    :raises AuditFailed: the unit holds no SASS for the device.
    """
    started = time.monotonic()
    environment = compiling.build_environment(plan, fetched, made)
    folder = compiling.configure(plan, fetched, made, environment)
    ninja = made.python.parent / "ninja"
    whole = graphs.read_graph(folder, ninja, [SAMPLE])
    graphs.check_gencode(whole)
    history = learned(plan.tree / "units.jsonl")
    unit = min(whole.cuda_units, key=lambda command: expected(command.unit, history).seconds)
    graph = graphs.read_graph(folder, ninja, [MODULE, unit.output])
    outcome = compiling.run_units(plan, graph, environment, began)
    if outcome.timed_out:
        raise Checkpointed(
            "the time box ended in the smoke build; what is finished is kept", "type the same again"
        )
    if not outcome.ok:
        raise compiling.failure(plan, outcome)
    seen = read_sass(plan, folder / unit.output)
    say(f"{unit.unit}: SASS for {', '.join(seen)}")
    left_out = {
        name: "smoke" for name in compiling.extensions(fetched.vllm) if compiling.target_of(name) != MODULE
    }
    compiled = Compiled(
        folder=folder,
        environment=environment,
        modules=tuple(
            name for name in compiling.extensions(fetched.vllm) if compiling.target_of(name) == MODULE
        ),
        left_out=left_out,
        units=len(graph.commands),
        compiled=outcome.finished - outcome.cached,
        cached=outcome.cached,
        seconds=round(time.monotonic() - started, 2),
    )
    return compiled, {"unit": unit.unit, "sass": seen, "gencode": list(unit.gencodes)}


def read_sass(plan: Plan, path: Path) -> list[str]:
    """Architectures of the SASS in an object file.

    :raises AuditFailed: none of them loads on the device.
    """
    with mapped(path) as elf:
        found = sorted({f"sm_{entry.arch}" for entry in fatbin.read(elf) if entry.kind == "sass"})
    if not any(f"sm_{cubin}" in found for cubin in plan.device.cubins):
        raise AuditFailed(
            f"{path.name} holds SASS for {', '.join(found) or 'nothing'}, none for {plan.device.title}",
            "report this: the plan asked for another architecture than nvcc produced",
        )
    return found
