"""Time and memory that 200 MB of compiler output cost a build, beside ninja alone writing to a file.

    python benchmarks/output.py [--megabytes 200] [--repeat 3]

A real ninja runs a real g++ on units that draw long warnings (some 5 MB each), and on the same units with the
warnings off. Each run has a process of its own, whose peak memory and CPU time are read. The build's way is ninja
under the broker with its launcher before every compiler; the bound is ninja without any of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trees import table

from build_recipes.build.units import drive, graph
from build_recipes.build.units.broker import Broker
from build_recipes.build.units.progress import Progress
from build_recipes.kit.paths import PACKAGE

NINJA = Path(sys.executable).with_name("ninja")
LAUNCHER = PACKAGE / "build/units/unit.py"
OF_ONE = 5.14e6
"""Bytes of warnings that g++ 12 prints for one unit."""


def make(folder: Path, units: int, *, loud: bool, launcher: bool) -> None:
    """Write a ninja project of units that draw 560 warnings with names of 3000 letters each."""
    name = "a" * 3000
    source = folder / "loud.cpp"
    source.write_text("".join(f"int f{i}() {{ int {name}{i}; return {i}; }}\n" for i in range(560)))
    before = f"{sys.executable} -I -S {LAUNCHER} " if launcher else ""
    flags = "-Wall" if loud else "-w"
    lines = [f"rule cxx\n  command = {before}g++ {flags} -c $in -o $out"]
    objects = [f"CMakeFiles/mod.dir/u{number}.cpp.o" for number in range(units)]
    lines += [f"build {output}: cxx {source}" for output in objects]
    lines.append(f"build mod: phony {' '.join(objects)}")
    (folder / "build.ninja").write_text("\n\n".join(lines) + "\n")


def once(folder: Path, *, launcher: bool) -> dict[str, float]:
    """Run the project; called in a process of its own."""
    log = folder / "log"
    begin, cpu = time.monotonic(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if launcher:
        units = graph.read_graph(folder, NINJA, ["mod"])
        broker = Broker(
            address=Path(f"/tmp/armory-bench-{os.getpid()}.sock"), cores=2, journal=folder / "units.jsonl"
        )
        progress = Progress(graph.pending(units), {})
        outcome = drive.drive(units, broker, progress, env=dict(os.environ), log=log, deadline=None)
        assert outcome.ok, outcome.tail[-5:]
    else:
        with log.open("wb") as sink:
            subprocess.run([NINJA, "-j", "2", "mod"], cwd=folder, stdout=sink, stderr=sink, check=True)
    return {
        "wall": time.monotonic() - begin,
        "cpu": time.process_time() - cpu,
        "before": before / 1024,
        "after": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "log": log.stat().st_size / 1e6,
    }


def measured(units: int, repeat: int, *, loud: bool, launcher: bool) -> dict[str, float]:
    """The quickest of some runs."""
    runs = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), units, loud=loud, launcher=launcher)
            child = [sys.executable, __file__, "--child", name, *(["--launcher"] if launcher else [])]
            said = subprocess.run(
                child, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            runs.append(json.loads(said.stdout))
    return min(runs, key=lambda run: run["wall"])


def main() -> None:
    """Measure the four cases and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--launcher", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(once(given.child, launcher=given.launcher)))
        return
    units = round(given.megabytes * 1e6 / OF_ONE)
    rows = []
    for launcher in (True, False):
        for loud in (False, True):
            run = measured(units, given.repeat, loud=loud, launcher=launcher)
            rows.append(
                [
                    ("build (broker, launcher)" if launcher else "ninja alone")
                    + (", warnings" if loud else ", quiet"),
                    f"{run['log']:.0f} MB",
                    f"{run['wall']:.1f} s",
                    f"{run['cpu']:.2f} s",
                    f"{run['before']:.0f} -> {run['after']:.0f} MiB",
                ]
            )
    table(
        f"{units} units of g++, the quickest of {given.repeat} runs each",
        ["", "output", "wall", "CPU of the build process", "its peak memory"],
        rows,
    )


if __name__ == "__main__":
    main()
