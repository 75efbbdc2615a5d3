"""Units this project compiles for a device, beside those of upstream's own setup.py in the same environment.

    python benchmarks/units.py [--tag v0.12.0] [--device thor] [--mirror URL=DIR]...

Both trees are configured by the same CMake, toolkit and torch with the same TORCH_CUDA_ARCH_LIST. Which targets
upstream builds is asked of its setup.py (the extensions it hands to setuptools); which ones we build is what a
build decides. Nothing is compiled.
"""

from __future__ import annotations

from pathlib import Path

from trees import options, plan_for, prepared, table

from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages import configure as configuring
from build_recipes.build.stages.compile import target_of
from build_recipes.build.units import graph as graphs
from build_recipes.build.units.graph import Graph
from build_recipes.kit import process

ASK = """
import runpy, setuptools
setuptools.setup = lambda **words: print("EXTENSIONS", *(module.name for module in words["ext_modules"]))
runpy.run_path("setup.py", run_name="__main__")
"""


def upstream_targets(source: Path, python: Path, environment: dict[str, str]) -> list[str]:
    """CMake targets that setup.py would build."""
    said = process.capture([python, "-c", ASK], cwd=source, env=environment)
    names = next(line for line in said.splitlines() if line.startswith("EXTENSIONS")).split()[1:]
    return [target_of(name) for name in names]


def row(title: str, graph: Graph) -> list[str]:
    """One line of the table."""
    cuda = graph.cuda_units
    ungated = [unit for unit in cuda if not unit.gencodes]
    return [title, str(len(graph.commands)), str(len(cuda)), str(len(ungated)), ", ".join(graph.targets)]


def modules(graph: Graph) -> dict[str, int]:
    """Units by module."""
    counts: dict[str, int] = {}
    for command in graph.commands:
        counts[command.unit.split("/")[0]] = counts.get(command.unit.split("/")[0], 0) + 1
    return counts


def main() -> None:
    """Configure both trees and print the table."""
    given = options(str(__doc__).splitlines()[0]).parse_args()
    plan = plan_for(given, "units-ours")
    fetched, made = prepared(plan)
    environment = configuring.build_environment(plan, fetched, made)
    folder = configuring.configure(plan, fetched, made, environment)
    ours, _, _ = compiling.read_units(plan, fetched, made, folder)

    other = plan_for(given, "units-upstream")
    plain, made_there = prepared(other, patched=False)
    environment = configuring.build_environment(other, plain, made_there)
    folder = configuring.configure(other, plain, made_there, environment)
    targets = upstream_targets(plain.vllm, made_there.python, environment)
    theirs = graphs.read_graph(folder, made_there.python.parent / "ninja", targets)

    table(
        f"Units for {given.device} (TORCH_CUDA_ARCH_LIST={plan.device.arch_list}) at {given.tag}",
        ["", "units", "of these CUDA", "CUDA without -gencode", "targets"],
        [row("vllm-armory", ours), row("upstream's setup.py", theirs)],
    )
    mine, whole = modules(ours), modules(theirs)
    table(
        "Units by module",
        ["module", "vllm-armory", "upstream"],
        [
            [name, str(mine.get(name, 0)), str(whole.get(name, 0))]
            for name in sorted(mine.keys() | whole.keys())
        ],
    )


if __name__ == "__main__":
    main()
