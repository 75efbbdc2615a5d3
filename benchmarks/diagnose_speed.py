"""Seconds and memory of `diagnose` on a large log: ordinary lines, warnings, and one failure at the end.

    python benchmarks/diagnose_speed.py [MB]

The log is made of ``failures/ordinary.txt`` and of the real log of a CMake and nvcc build in ``tests/logs``.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from build_recipes.diagnosis.diagnose import diagnose_file
from build_recipes.diagnosis.signatures import ORDINARY, known

LOGS = Path(__file__).parent.parent / "tests" / "logs"


def make(path: Path, octets: int) -> None:
    """Write a log of about ``octets`` bytes; one of its last lines is a killed compiler."""
    chance = random.Random(0)
    lines = ORDINARY.read_text().splitlines() + (LOGS / "ok-cmake-nvcc.log").read_text().splitlines()
    written = 0
    with path.open("w") as stream:
        while written < octets:
            text = "\n".join(f"{line} {chance.random()}" for line in chance.choices(lines, k=10_000)) + "\n"
            written += stream.write(text)
        stream.write("FAILED: [code=1] a.cu.o\nnvcc error   : 'cicc' died due to signal 9 (Kill signal)\n")


def main() -> None:
    """Measure once, and print a line."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        make(path, megabytes * 1_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        found = diagnose_file(path)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert found.primary is not None and found.primary.id == "oom-device-compiler"
    print(
        f"{found.octets / 1e6:.0f} MB, {found.lines} lines, {len(known())} signatures: "
        f"{wall:.2f} s wall, {cpu:.2f} s CPU, memory {before / 1024:.0f} -> {after / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
