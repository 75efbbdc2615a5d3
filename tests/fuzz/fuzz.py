"""Fuzz the readers: as many mutated inputs as are asked for, over all targets or the ones that are named.

    .venv/bin/python tests/fuzz/fuzz.py --inputs 1000000 --jobs 2
    .venv/bin/python tests/fuzz/fuzz.py --inputs 50000 zip lock

Every input ends in a result or an `ArmoryError`; whatever else is raised is a crash: it is counted by its kind and
place, and the shortest input of each is written to ``--keep``. Exit status 1 where there was one. The same ``--seed``
gives the same inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import targets

CHUNK = 500
"""Inputs of one piece of work."""


def work(name: str, seed: int, inputs: int) -> tuple[str, targets.Count, float]:
    """One piece, in a process of its own; what the program says is not shown."""
    warnings.simplefilter("ignore")
    started = time.process_time()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        return name, targets.run(name, seed, inputs), time.process_time() - started


def main() -> int:
    """Run, tell, and keep what crashed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(targets.TARGETS))
    parser.add_argument("--inputs", type=int, default=100_000, help="in all (default 100000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after these, with what was tried"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-crashes"), help="folder of inputs that crashed"
    )
    asked = parser.parse_args()
    names = asked.targets or list(targets.TARGETS)
    each = -(-asked.inputs // len(names))
    total = {name: targets.Count() for name in names}
    seconds = dict.fromkeys(names, 0.0)
    pieces = [
        (name, asked.seed * 1_000_000 + start, min(CHUNK, each - start))
        for start in range(0, each, CHUNK)
        for name in names
    ]
    last = time.monotonic() + 60 * asked.minutes
    with ProcessPoolExecutor(asked.jobs) as pool:
        for name, count, took in pool.map(work, *zip(*pieces, strict=True)):
            if time.monotonic() > last:
                pool.shutdown(wait=False, cancel_futures=True)
                break
            one = total[name]
            one.inputs, one.taken = one.inputs + count.inputs, one.taken + count.taken
            seconds[name] += took
            for key, (times, data) in count.crashes.items():
                before, shortest = one.crashes.get(key, (0, data))
                one.crashes[key] = before + times, min(shortest, data, key=len)
    print(f"{'target':<12}{'inputs':>10}{'taken':>9}{'refused':>9}{'crashed':>9}{'CPU s':>8}")
    crashed = 0
    for name, one in total.items():
        bad = sum(times for times, _ in one.crashes.values())
        crashed += bad
        refused = one.inputs - one.taken - bad
        print(f"{name:<12}{one.inputs:>10}{one.taken:>9}{refused:>9}{bad:>9}{seconds[name]:>8.0f}")
        for key, (times, data) in one.crashes.items():
            asked.keep.mkdir(parents=True, exist_ok=True)
            file = asked.keep / f"{name.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
            file.write_bytes(data)
            print(f"    {times} x {key}: {file}")
    print(f"{sum(one.inputs for one in total.values())} inputs, {crashed} crashes")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
