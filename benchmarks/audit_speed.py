"""Time and memory of an audit of the official wheels, with all devices and with one.

    python benchmarks/audit_speed.py [0.12.0 0.33.0]

Each audit runs in a process of its own; the best and the median of five are shown. CPU time is what counts on
a shared machine: the audit has one thread. `inflate` is the same wheel's members inflated by zlib and hashed,
nothing else: what the standard library alone would take.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

RUNS = 5


def one(what: str, wheel: str) -> dict[str, float]:
    """One measurement in this process."""
    from build_recipes.audit.audit import audit_wheel

    started, cpu = time.monotonic(), time.process_time()
    if what == "zlib":
        import hashlib
        import zipfile

        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                digest = hashlib.sha256()
                with archive.open(name) as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    else:
        audit_wheel(Path(wheel), [] if what == "all devices" else [what])
    return {
        "wall_s": time.monotonic() - started,
        "cpu_s": time.process_time() - cpu,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure and print a table and one JSON document."""
    if len(sys.argv) > 3 and sys.argv[1] == "--one":
        print(json.dumps(one(sys.argv[2], sys.argv[3])))
        return
    from build_recipes.audit.subject import official
    from build_recipes.kit import process
    from build_recipes.kit.paths import Places

    results = {}
    for version in sys.argv[1:] or ["0.12.0", "0.33.0"]:
        wheel = official(version, Places.from_environment())
        for what in ("all devices", "thor", "zlib"):
            command = [sys.executable, __file__, "--one", what, str(wheel)]
            runs = [json.loads(process.capture(command)) for _ in range(RUNS)]
            row = {key: [round(run[key], 2) for run in runs] for key in runs[0]}
            results[f"{version} {what}"] = row
            best, middle = min(row["cpu_s"]), statistics.median(row["cpu_s"])
            print(
                f"{version:8} {what:12} cpu {best:5.2f} s best, {middle:5.2f} s median;"
                f" wall {min(row['wall_s']):5.2f} s best; {max(row['rss_mib']):4.0f} MiB",
                file=sys.stderr,
            )
    print(json.dumps({"load": os.getloadavg(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
