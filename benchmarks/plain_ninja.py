"""The units of a build under our broker, beside plain ``ninja -j CORES`` in the same configured tree.

    python benchmarks/plain_ninja.py --tag v0.26.0 --device h200 --torch existing [--modules A,B] [--way plain]

Both ways compile the same commands without a compiler cache. Plain ninja gets the build file as CMake wrote it, ours
the one that it orders by cost. The tree is made (or gone on with) as a build makes it; with ``--tree`` a build's own
tree is used, whose objects of these modules are compiled again. Cores busy are read from the kernel's count
(``/proc/stat``) of the cores that this program may use, every five seconds, so other work on them counts, too.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from trees import absolute, options, plan_for, prepared, table

from build_recipes.build.plan import Plan
from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages import configure as configuring
from build_recipes.build.units import graph as graphs
from build_recipes.build.units.costs import expected
from build_recipes.build.units.graph import Graph
from build_recipes.sources.modules import Kind

EVERY_S = 5.0


class Busy(threading.Thread):
    """Cores busy over time: one number for each `EVERY_S`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until ended."""
        hertz = 100.0  # USER_HZ, proc(5)
        before, at = self._ticks(), time.monotonic()
        while not self.ended.wait(EVERY_S):
            now, then = self._ticks(), time.monotonic()
            self.seen.append(round((now - before) / hertz / (then - at), 1))
            before, at = now, then

    @staticmethod
    def _ticks() -> int:
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        fields = [[int(word) for word in row[1:9]] for row in rows if row[0] in ours]
        return sum(sum(row) - row[3] - row[4] for row in fields)  # less idle and iowait


def clear(graph: Graph) -> None:
    """Remove the objects, so that ninja must make them."""
    for command in graph.commands:
        (graph.folder / command.output).unlink(missing_ok=True)


def timed(work: Callable[[], bool]) -> dict[str, object]:
    """Wall and CPU seconds of the work, and the cores that were busy."""
    busy, before, begin = Busy(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    busy.start()
    ok = work()
    wall = time.monotonic() - begin
    busy.ended.set()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"ok": ok, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "busy": busy.seen}


def ours(plan: Plan, graph: Graph, environment: dict[str, str]) -> bool:
    """Under the broker."""
    return compiling.run_units(plan, graph, environment, time.monotonic()).ok


def plain(plan: Plan, graph: Graph, environment: dict[str, str]) -> bool:
    """Ninja alone; the launcher in the commands becomes the compiler where no broker is named."""
    with (plan.tree / "logs/plain.log").open("wb") as log:
        command = [str(graph.ninja), "-j", str(plan.jobs), *graph.targets]
        return (
            subprocess.run(
                command, check=False, cwd=graph.folder, env=environment, stdout=log, stderr=log
            ).returncode
            == 0
        )


def main() -> None:
    """Both ways, one after the other, and the table."""
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--torch", default="")
    parser.add_argument("--without", default="")
    parser.add_argument(
        "--modules", default="", help="only these modules' units (default: all that a build makes)"
    )
    parser.add_argument(
        "--most",
        type=float,
        default=1e9,
        help="only units expected to take this many seconds or less",
    )
    parser.add_argument("--way", action="append", choices=["plain", "ours"], help="default: plain, then ours")
    parser.add_argument("--tree", type=absolute, help="a build's own tree instead of a new one")
    given = parser.parse_args()
    name = given.tree.name if given.tree else "plain-ninja"
    given.into = given.tree.parent if given.tree else given.into
    leave = tuple(filter(None, given.without.split(",")))
    plan = plan_for(given, name, torch=given.torch, without=leave, cache="off")
    fetched, made = prepared(plan)
    environment = configuring.build_environment(plan, fetched, made)
    folder = configuring.configure(plan, fetched, made, environment)
    parts = compiling.read_parts(plan, fetched, made, folder)
    wanted = [part.module.target for part in parts if part.made not in (None, Kind.RUST)]
    targets = given.modules.split(",") if given.modules else wanted
    whole = graphs.read_graph(folder, made.python.parent / "ninja", targets)
    chosen = [command.output for command in whole.commands if expected(command.unit).seconds <= given.most]
    graph = graphs.read_graph(folder, whole.ninja, chosen)
    arguments = configuring.cmake_arguments(plan, fetched, made)
    seen: dict[str, dict[str, object]] = {}
    for way in given.way or ["plain", "ours"]:
        clear(graph)
        # a build, and our way before, left the file in our order
        configuring.run_cmake(plan, made, arguments, environment)
        seen[way] = timed(functools.partial({"plain": plain, "ours": ours}[way], plan, graph, environment))
        print(
            json.dumps({"way": way, "units": len(graph.commands), "jobs": plan.jobs, **seen[way]}), flush=True
        )
    rows = [
        [
            *(way, str(len(graph.commands)), str(plan.jobs), f"{one['wall_s']} s", f"{one['cpu_s']} s"),
            *(f"{float(str(one['cpu_s'])) / float(str(one['wall_s'])):.1f}", "yes" if one["ok"] else "NO"),
        ]
        for way, one in seen.items()
    ]
    table("Our broker and plain ninja", ["way", "units", "jobs", "wall", "CPU", "CPU / wall", "ok"], rows)


if __name__ == "__main__":
    main()
