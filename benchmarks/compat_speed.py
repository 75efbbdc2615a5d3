"""Seconds of `invoke verify-omni` on one core, cold and warm, and of the whole matrix.

    python benchmarks/compat_speed.py [--matrix] [OMNI:VLLM ...]

Cold: no parsed file is kept, the sources are in the cache. Warm: the same command again. Each is a whole
process. CPU seconds stand beside the wall time, because other work on the machine shows in the latter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from build_recipes.kit.paths import Places
from build_recipes.verify.check import Checker
from build_recipes.verify.read.tree import OMNI, VLLM

PAIRS = ["0.12.0rc1:0.12.0", "0.18.0:0.18.0", "0.24.0:0.24.0", "0.24.0:0.25.0", "0.32.0rc1:0.33.0"]


def run(words: list[str], cache: Path, cores: set[int]) -> str:
    """One line: CPU and wall seconds, peak memory of the largest process."""
    command = [sys.executable, "-m", "invoke", "verify-omni", "--json", *words]
    environment = {**os.environ, "VLLM_ARMORY_CACHE": str(cache)}
    started = time.perf_counter()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(child.pid, cores)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    memory = used.ru_maxrss / 1024
    return f"{used.ru_utime + used.ru_stime:6.2f} s CPU {wall:6.2f} s wall {memory:5.0f} MiB  exit {code}"


def main() -> None:
    """Measure and print."""
    asked = sys.argv[1:]
    places = Places.from_environment()
    checker = Checker(places)
    cores = sorted(os.sched_getaffinity(0))
    for pair in [word for word in asked if ":" in word] or PAIRS:
        omni, vllm = pair.split(":")
        checker.judge(checker.release(OMNI, omni), checker.release(VLLM, vllm))  # the sources are there
        with _empty(places) as folder:
            for name in ("cold", "warm"):
                line = run(["--omni", omni, "--tag", f"v{vllm}"], Path(folder), set(cores[:1]))
                print(f"{pair:20} {name} {line}", flush=True)
    if "--matrix" in asked:
        with _empty(places) as folder:
            for name in ("cold", "warm"):
                print(f"{'matrix':20} {name} {run(['--matrix'], Path(folder), set(cores[:2]))}", flush=True)


def _empty(places: Places) -> tempfile.TemporaryDirectory[str]:
    """A cache that has the sources and the listings, and nothing parsed."""
    folder = tempfile.TemporaryDirectory()
    (Path(folder.name) / "compat").mkdir()
    (Path(folder.name) / "downloads").symlink_to(places.downloads)
    for listing in (places.cache / "compat").glob("releases-*.json"):
        shutil.copy(listing, Path(folder.name) / "compat")
    return folder


if __name__ == "__main__":
    main()
