"""What specialising costs: CPU time and memory of --slim beside a bound of the same run, and the ptxas phase.

    python benchmarks/specialise_speed.py [0.33.0] [--repeat 3] [--journal FOLDER/units.jsonl]

Each measurement is a process of its own; CPU time is what counts on a shared machine. `bound` is what no way around
can save: each member of the source inflated and hashed once (ISA-L), each byte of a changed module deflated once
(zlib, level 6). `two devices` against `one device` shows what a second device costs. With --journal, how busy the
ptxas phase of a run kept its cores: seconds with an image under way, of all seconds of all slots.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
import zlib
from pathlib import Path

CASES = {"one device": ["thor"], "two devices": ["thor", "spark"]}


def one(what: str, source: str) -> dict[str, float]:
    """One measurement in this process."""
    from build_recipes.build.specialising import Asked, run
    from build_recipes.kit.paths import Places
    from build_recipes.specialise.wheel import Options

    here = Places.from_environment()
    with tempfile.TemporaryDirectory(dir=here.build) as folder:
        places = Places(here.cache, Path(folder) / "build", Path(folder) / "wheels")
        started, cpu = time.monotonic(), time.process_time()
        if what == "bound":
            bound(Path(source))
        else:
            run(Asked(source, tuple(CASES[what]), Options(native=False)), places)
        return {
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.monotonic() - started,
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def bound(source: Path) -> None:
    """Inflate and hash every member; deflate what a slim wheel for `CASES`' first device changes."""
    from build_recipes.formats.wheel import Wheel, is_module

    with Wheel(source) as wheel:
        for name in wheel.members:
            packer, left = zlib.compressobj(6, zlib.DEFLATED, -15), 40_000_000 if is_module(name) else 0
            digest = hashlib.sha256()
            for piece in wheel.pieces(name):  # a changed module keeps 4 to 75 MB; the first 40 stand for it
                digest.update(piece)
                if left > 0:
                    packer.compress(piece)
                    left -= len(piece)


def busy(journal: Path, cores: int) -> str:
    """How busy a ptxas phase kept its slots, from the broker's journal."""
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    start, end = min(row["ended"] - row["wall_s"] for row in rows), max(row["ended"] for row in rows)
    share = sum(row["wall_s"] for row in rows) / (cores * (end - start))
    return (
        f"{len(rows)} images, {sum(row['cpu_s'] for row in rows):.0f} CPU s, slots busy {100 * share:.1f} %,"
        f" {max(row['rss_kib'] for row in rows) / 2**20:.2f} GiB at most"
    )


def main() -> None:
    """Measure and print."""
    if len(sys.argv) == 4 and sys.argv[1] == "--one":
        print(json.dumps(one(sys.argv[2], sys.argv[3])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version", nargs="?", default="0.33.0")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--journal", type=Path)
    asked = parser.parse_args()
    from build_recipes.audit.subject import official
    from build_recipes.kit import process
    from build_recipes.kit.host import Host
    from build_recipes.kit.paths import Places

    if asked.journal:
        print(busy(asked.journal, Host.this().cores))
    wheel = official(asked.version, Places.from_environment())
    best = {}
    for what in ("bound", *CASES):
        runs = [
            json.loads(process.capture([sys.executable, __file__, "--one", what, str(wheel)]))
            for _ in range(asked.repeat)
        ]
        best[what] = min(runs, key=lambda row: row["cpu_s"])
        print(
            f"{what:12} cpu {best[what]['cpu_s']:5.1f} s, wall {best[what]['wall_s']:6.1f} s,"
            f" {max(row['rss_mib'] for row in runs):4.0f} MiB  (load {os.getloadavg()[0]:.0f})",
            flush=True,
        )
    first, second = (best[what]["cpu_s"] for what in CASES)
    ratio = first / best["bound"]["cpu_s"]
    print(f"one device is {ratio:.2f} x the bound; a second one costs {second / first - 1:.2f} of the first")


if __name__ == "__main__":
    main()
