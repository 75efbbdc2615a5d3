"""A clean tree rebuilt from the compiler cache, beside the compile of the same units from an empty cache.

    python benchmarks/warm_cache.py [--units 2] [--tag v0.12.0] [--device thor] [--mirror URL=DIR]...

Real units of _moe_C (the cheapest of the cost table) are compiled as a build does it, with ccache and a cache
folder of their own. Then the tree is made again from nothing, configured, and the same units are compiled again.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

from trees import options, plan_for, prepared, table

from build_recipes.build.plan import Plan
from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages import configure as configuring
from build_recipes.build.units import graph as graphs
from build_recipes.build.units.costs import expected, read_journal
from build_recipes.toolchain import ccache


def own_cache(plan: Plan, into: Path) -> Plan:
    """The plan with an empty compiler cache, and everything else of the user's cache."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for entry in plan.places.cache.iterdir():
        if entry.name not in ("ccache", "sccache"):
            (into / entry.name).symlink_to(entry)
    return dataclasses.replace(plan, places=dataclasses.replace(plan.places, cache=into))


def run(plan: Plan, count: int) -> tuple[dict[str, dict[str, float]], float]:
    """Make the tree from nothing and compile the units. Returns the journal by unit, and ninja's wall seconds."""
    shutil.rmtree(plan.tree, ignore_errors=True)
    fetched, made = prepared(plan)
    environment = configuring.build_environment(plan, fetched, made)
    folder = configuring.configure(plan, fetched, made, environment)
    ninja = made.python.parent / "ninja"
    whole = graphs.read_graph(folder, ninja, ["_moe_C"])
    graphs.check_gencode(whole)
    cheapest = sorted(whole.cuda_units, key=lambda command: expected(command.unit).seconds)[:count]
    graph = graphs.read_graph(folder, ninja, [unit.output for unit in cheapest])
    begin = time.monotonic()
    outcome = compiling.run_units(plan, graph, environment, begin)
    wall = time.monotonic() - begin
    assert outcome.ok, outcome.tail[-10:]
    return {entry["unit"]: entry for entry in read_journal(plan.tree / "units.jsonl")}, wall


def main() -> None:
    """Compile cold, compile warm, print the table."""
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--units", type=int, default=2)
    given = parser.parse_args()
    plan = own_cache(plan_for(given, "warm-cache"), given.into / "warm-cache-cache")
    assert ccache.launcher("auto") == ["ccache"], "ccache is not installed"
    cold, cold_wall = run(plan, given.units)
    warm, warm_wall = run(plan, given.units)
    assert all(entry["cached"] for entry in warm.values()), warm
    rows = [
        [
            unit,
            f"{cold[unit]['wall_s']:.1f} s",
            f"{cold[unit]['cpu_s']:.1f} s",
            f"{warm[unit]['wall_s']:.2f} s",
            f"{warm[unit]['cpu_s']:.2f} s",
            f"{100 * warm[unit]['wall_s'] / cold[unit]['wall_s']:.1f} %",
        ]
        for unit in sorted(cold)
    ]
    share = f"{100 * warm_wall / cold_wall:.1f} %"
    rows.append(["ninja, from start to end", f"{cold_wall:.1f} s", "", f"{warm_wall:.2f} s", "", share])
    columns = ["unit", "cold, wall", "cold, CPU", "warm, wall", "warm, CPU", "warm / cold, wall"]
    table("A clean tree and a warm compiler cache", columns, rows)


if __name__ == "__main__":
    main()
