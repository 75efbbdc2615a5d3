"""Seconds of `invoke verify-omni` on one core, cold and warm, and of the whole matrix.

    python benchmarks/compat_speed.py [--matrix] [OMNI:VLLM ...]
    python benchmarks/compat_speed.py --ratio [ROUNDS] [PACKAGE:VERSION:VLLM ...]

Cold: no parsed file is kept, the sources are in the cache. Warm: the same command again. Each is a whole
process. CPU seconds stand beside the wall time, because other work on the machine shows in the latter.

``--ratio``: a cold verdict (names, no baseline) against `ast.parse` of the same sources (all files of the package, and
those of vLLM that were looked at), in turns, ROUNDS times; the least of each counts. The verdict's seconds begin with
two archives: reading them is in it, and is told by itself. `ast.parse` gets text that was read.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from build_recipes.kit.paths import Places
from build_recipes.verify import packages
from build_recipes.verify.check import Checker
from build_recipes.verify.read.store import Store
from build_recipes.verify.read.tree import OMNI, VLLM

RATIOS = [
    "vllm-omni:0.12.0rc1:0.12.0",
    "vllm-omni:0.18.0:0.18.0",
    "vllm-spyre:1.10.0:0.18.0",
    "sendnn-inference:2.6.3:0.33.0",
    "tpu-inference:0.32.0:0.33.0",
    "lmcache:0.5.6:0.33.0",
    "trl:1.16.0:0.33.0",
    "verl:0.9.1:0.33.0",
    "llmcompressor:0.14.0.1:0.33.0",
    "vllm-ascend:0.23.0.post1:0.33.0",
]
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


def ratio(pair: str) -> tuple[int, float, float, float]:
    """Files, and CPU seconds: of a cold verdict from two archives, of reading these, of `ast.parse` of the files."""
    name, version, vllm = pair.split(":")
    checker = Checker(Places.from_environment(), packages.named(name))
    left, right = checker.release(checker.package.module, version), checker.release(VLLM, vllm)
    with tempfile.TemporaryDirectory() as folder:
        checker.store = left.store = right.store = Store(Path(folder) / "parsed.sqlite")
        for tree in (left, right):
            tree.forget()
        started = time.process_time()
        for tree in (left, right):
            tree.source(next(iter(tree.index.files)))  # the archive is read whole, once
        read = time.process_time() - started
        checker.judge(left, right, calls=False)
        verdict = time.process_time() - started
    looked_at = {path for module in right.looked_at if (path := right.modules.get(module))}
    files = [(left, path) for path in left.index.files] + [(right, path) for path in looked_at]
    sources = [tree.source(path) for tree, path in files]
    started = time.process_time()
    for source in sources:
        with contextlib.suppress(SyntaxError):
            ast.parse(source)
    return len(sources), verdict, read, time.process_time() - started


def ratios(asked: list[str]) -> None:
    """Each in a process of its own, in turns."""
    pairs, found = [word for word in asked if ":" in word] or RATIOS, dict[str, list[list[float]]]()
    print(f"{'pair':34} files verdict  read parse  v/p  v/(r+p)")
    for _ in range(int(next((word for word in asked if word.isdigit()), "3"))):
        for pair in pairs:
            words = [sys.executable, __file__, "--one", pair]
            line = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.setdefault(pair, []).append([float(word) for word in line.split()])
            files, verdict, read, parse = (min(column) for column in zip(*found[pair], strict=True))
            numbers = f"{files:5.0f} {verdict:7.2f} {read:5.2f} {parse:5.2f}"
            print(f"{pair:34} {numbers} {verdict / parse:4.2f} {verdict / (read + parse):5.2f}", flush=True)


def main() -> None:
    """Measure and print."""
    asked = sys.argv[1:]
    if asked[:1] == ["--one"]:
        print(*ratio(asked[1]))
        return
    if asked[:1] == ["--ratio"]:
        ratios(asked[1:])
        return
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
