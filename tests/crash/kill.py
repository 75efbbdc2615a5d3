"""Kill a compile run with everything that it started, ninja included, thirty times; count what is compiled twice.

    python tests/crash/kill.py FOLDER [KILLS [SEED]]

A small real project (g++ units under the broker). Each kill comes at a random moment. A unit is compiled twice when
the journal has two good lines for it: its object was there, but ninja had not written it down yet.
"""

from __future__ import annotations

import collections
import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from test_compiling import Project

from build_recipes.build.units import outputs
from build_recipes.build.units.costs import read_journal

UNITS = 40
TEXT = "#include <string>\nstd::string {name}() {{ return std::string(3, 'a'); }}\n"
CHILD = "import sys; sys.path.insert(0, {tests!r}); from crash.kill import go_on; go_on({folder!r})"


def go_on(folder: str) -> None:
    """Go on with the project of a folder."""
    project = object.__new__(Project)
    project.folder, project.journal = Path(folder), Path(folder) / "units.jsonl"
    linked = project.folder / "linked.json"
    for name in outputs.distrust(project.graph(), project.journal, linked):
        print(f"made again: {name}", flush=True)
    assert project.run().ok
    outputs.settle(project.graph(), project.journal, linked)


def main() -> int:
    folder = Path(sys.argv[1])
    kills, seed = int((*sys.argv, "", "", "30")[2] or 30), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    choice, done, rounds, again = random.Random(seed), 0, 0, 0
    twice: collections.Counter[str] = collections.Counter()
    while done < kills:
        rounds += 1
        place = folder / f"round-{rounds}"
        place.mkdir(parents=True)
        project = Project(place, {f"u{number}": TEXT.format(name=f"u{number}") for number in range(UNITS)})
        code = CHILD.format(tests=str(Path(__file__).resolve().parents[1]), folder=str(place))
        while True:
            child = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            try:
                said = child.communicate(timeout=choice.uniform(1.0, 8) if done < kills else None)[0]
                again += said.count("made again")
                assert child.returncode == 0, said
                break
            except subprocess.TimeoutExpired:
                tree = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
                for process in tree:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                child.communicate()
                done += 1
                time.sleep(0.2)
        counted = collections.Counter(
            row["unit"] for row in read_journal(project.journal) if row["code"] == 0
        )
        assert len(counted) == UNITS and (place / "mod.so").exists()
        twice.update({unit: count - 1 for unit, count in counted.items() if count > 1})
        print(f"round {rounds}: {done} kills, {sum(twice.values())} units compiled twice", flush=True)
    units, lost = rounds * UNITS, sum(twice.values())
    print(f"{done} kills, {units} units, {lost} compiled twice, {again} outputs not believed and made again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
