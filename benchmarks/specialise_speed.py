"""What specialising costs: CPU time and memory of --slim beside a bound of the same run, and the ptxas phase.

    python benchmarks/specialise_speed.py [0.33.0] [--repeat 3] [--journal FOLDER/units.jsonl]

Each measurement is a process of its own; CPU time is what counts on a shared machine. `bound` is what no way around
can save: the source hashed, each of its members inflated and hashed once (ISA-L), and of the result each changed
module packed once, and inflated and hashed once more for its audit. `peer` is what the standard library takes to unpack
the source and to pack what a slim wheel keeps of it (the result's own members), with nothing chosen and nothing proved.
`two devices` against `one device` shows what a second device costs. With --journal, how busy the ptxas phase of a run
kept its cores: seconds with an image under way, of all seconds of all slots.
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
import zipfile
from pathlib import Path

CASES = {"one device": ["thor"], "two devices": ["thor", "spark"]}


def one(what: str, source: str, made: str) -> dict[str, float]:
    """One measurement in this process; the wheel for `CASES`' first device is left as ``made``."""
    from build_recipes.build.specialising import Asked, run
    from build_recipes.kit.paths import Places
    from build_recipes.specialise.wheel import Options

    here = Places.from_environment()
    with tempfile.TemporaryDirectory(dir=here.build) as folder:
        places = Places(here.cache, Path(folder) / "build", Path(folder) / "wheels")
        if what == "peer":
            with zipfile.ZipFile(made) as new:
                new.extractall(Path(folder) / "new")
        started, cpu = time.monotonic(), time.process_time()
        if what == "bound":
            bound(Path(source), Path(made))
        elif what == "peer":
            peer(Path(source), Path(folder))
        else:
            done = run(Asked(source, tuple(CASES[what]), Options(native=False)), places)
        spent, wall = time.process_time() - cpu, time.monotonic() - started
        if what in CASES:
            done[0].wheel.replace(made)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"cpu_s": spent, "wall_s": wall, "rss_mib": rss}


def bound(source: Path, made: Path) -> None:
    """Hash, inflate and hash the source; pack what differs in the result; inflate and hash the result."""
    from build_recipes.formats.deflate import Deflater
    from build_recipes.formats.wheel import Wheel
    from build_recipes.kit.hashing import file_sha256

    file_sha256(source)
    with Wheel(source) as old, Wheel(made) as new:
        before, after = old.record(), new.record()
        for name in old.members:
            old.digest(name)
        for name in new.members:
            digest, packer = hashlib.sha256(), Deflater()
            for piece in new.pieces(name):
                digest.update(piece)
                if name not in before or before[name].sha256 != after[name].sha256:
                    list(packer.compress(piece))


def peer(source: Path, folder: Path) -> None:
    """Unpack the source with zipfile, and pack the result's members, which lie in ``new``."""
    with zipfile.ZipFile(source) as old:
        old.extractall(folder / "old")
    with zipfile.ZipFile(folder / "new.whl", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((folder / "new").rglob("*")):
            packed.write(path, path.relative_to(folder / "new"))


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
    if len(sys.argv) == 5 and sys.argv[1] == "--one":
        print(json.dumps(one(*sys.argv[2:])))
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
    here = Places.from_environment()
    wheel, best = official(asked.version, here), {}
    with tempfile.TemporaryDirectory(dir=here.build) as folder:
        made = Path(folder) / f"vllm-{asked.version}-cp38-abi3-any.whl"
        for what in (*CASES, "bound", "peer"):
            words = [sys.executable, __file__, "--one", what, str(wheel), str(made)]
            runs = [json.loads(process.capture(words)) for _ in range(asked.repeat)]
            best[what] = min(runs, key=lambda row: row["cpu_s"])
            print(
                f"{what:12} cpu {best[what]['cpu_s']:5.1f} s, wall {best[what]['wall_s']:6.1f} s,"
                f" {max(row['rss_mib'] for row in runs):4.0f} MiB  (load {os.getloadavg()[0]:.0f})",
                flush=True,
            )
    first, second, least, other = (best[what]["cpu_s"] for what in (*CASES, "bound", "peer"))
    print(
        f"one device is {first / least:.2f} x the bound and {first / other:.2f} x the peer;"
        f" a second one costs {second / first - 1:.2f} of the first"
    )


if __name__ == "__main__":
    main()
