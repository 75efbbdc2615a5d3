"""Compile real units of a configured tree in control groups of 4 and 8 GiB: evidence on demand (needs root).

    python tests/crash/memory.py TREE GIB[,GIB...] UNIT...

TREE is a build tree that ``./inv build`` configured; UNIT is as the journal names it (``_C/csrc/x.cu.o``). The units
are compiled under the broker, as a build does it, in a group of each size: a command, and after one that failed the
same command once more. The tree's own journal and objects are left alone. One line a command goes to stdout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from build_recipes.build.stages import record
from build_recipes.build.units import drive, graph
from build_recipes.build.units.broker import Broker
from build_recipes.build.units.costs import expected, learned, read_journal
from build_recipes.build.units.progress import Progress
from build_recipes.kit.limits import Machine

GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


def group(gib: int) -> Path:
    """A control group with so much memory."""
    for top in GROUPS:
        made = top / f"armory-memory-{os.getpid()}-{gib}"
        made.mkdir()
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (made / name).exists():
                (made / name).write_text(str(gib << 30))
                return made
        made.rmdir()
    raise SystemExit("no group with a memory controller can be made here")


def compile_in(tree: Path, place: Path, work: Path, units: list[str]) -> None:
    """In a process of its own: enter the group, compile, tell."""
    (place / "cgroup.procs").write_text(str(os.getpid()))
    made = record.read(tree, "provision")
    assert made, f"{tree} has no environment"
    python, cuda = Path(made.outputs["python"]), Path(made.outputs["cuda_home"])
    ninja = python.parent / "ninja"
    known = {one.unit: one for one in graph.read_graph(tree / "cmake", ninja, ["all"]).commands}
    for unit in units:
        (tree / "cmake" / known[unit].output).unlink(missing_ok=True)
    wanted = graph.read_graph(tree / "cmake", ninja, [known[unit].output for unit in units])
    journal = work / "units.jsonl"
    before = len(list(read_journal(journal)))
    broker = Broker(work / "broker.sock", 2, journal, history=learned(journal))
    own = {"CUDA_HOME": str(cuda), "PATH": f"{cuda}/bin:{os.environ['PATH']}", "TMPDIR": str(work)}
    environment = {**os.environ, **own, "CCACHE_DISABLE": "1"}
    memory, began = Machine().limits().memory_gib, time.monotonic()
    done = drive.drive(wanted, broker, Progress(units, {}), env=environment, log=work / "log", deadline=None)
    print(
        f"{memory:.0f} GiB: {'ok' if done.ok else f'failed, oom {done.oom}'}, {time.monotonic() - began:.0f} s, "
        f"the kernel's count is {Machine().oom_kills()}",
        flush=True,
    )
    for row in list(read_journal(journal))[before:]:
        name = row["unit"]
        hoped, now = broker.history.get(name, expected(name)), learned(journal)[name]
        print(
            f"    {name}: expected {hoped.gib:.1f} GiB; exit {row['code']}, killed {row['killed']}, oom {row['oom']}, "
            f"alone {row['alone']}, its largest process held {row['rss_kib'] / 2**20:.2f} GiB, "
            f"{row['cpu_s']:.0f} CPU s; expected from now on {now.gib:.1f} GiB",
            flush=True,
        )
    sys.exit(0 if done.ok else 1)


def main() -> int:
    tree, sizes, units = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]
    for gib in map(int, sizes.split(",")):
        place, work = group(gib), tree / "tmp-memory"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for _ in range(2):
            asked = json.dumps([str(tree), str(place), str(work), units])
            if subprocess.run([sys.executable, __file__, "--in", asked], check=False).returncode == 0:
                break
        shutil.rmtree(work)
        time.sleep(0.5)
        place.rmdir()
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--in":
        one, two, three, four = json.loads(sys.argv[2])
        compile_in(Path(one), Path(two), Path(three), four)
    sys.exit(main())
