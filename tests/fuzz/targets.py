"""What fuzzing calls: every reader of bytes from outside, or of what a crash can leave.

Whatever the bytes, a reader ends with a result or with `ArmoryError`, within bounds. Shared by the test (a bounded
part), by fuzz.py (as many inputs as are asked for) and by fuzz_atheris.py (guided by coverage).
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import outside
import readers
from target import Target, taken

TARGETS: dict[str, Target] = readers.TARGETS | outside.TARGETS


@dataclass
class Count:
    """What became of the inputs of one target."""

    inputs: int = 0
    taken: int = 0
    crashes: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Kind and place of an exception to how often, and one input."""


def run(name: str, seed: int, inputs: int, within: float = float("inf")) -> Count:
    """Try mutated inputs of a target: as many as are asked for, or as the seconds allow."""
    import time
    import traceback

    target, chance, count = TARGETS[name], random.Random(f"{name} {seed}"), Count()
    seeds, end = target.seeds(), time.monotonic() + within
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="fuzz.") as work:
        for number in range(inputs):
            if number > 20 and time.monotonic() > end:
                break
            data = target.change(chance, chance.choice(seeds))
            folder = Path(work) / str(number)
            folder.mkdir()
            try:
                count.taken += taken(target, data, folder)
            except Exception as error:
                frames = [
                    frame
                    for frame in traceback.extract_tb(error.__traceback__)
                    if "/build_recipes/" in frame.filename
                ]
                where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the harness"
                key = f"{type(error).__name__} at {where}"
                times, first = count.crashes.get(key, (0, data))
                count.crashes[key] = times + 1, min(first, data, key=len)
            count.inputs += 1
            shutil.rmtree(folder, ignore_errors=True)
    return count


def seeds_taken(name: str) -> Iterator[bool]:
    """Whether the seeds of a target are taken as they are."""
    target = TARGETS[name]
    for seed in target.seeds():
        with tempfile.TemporaryDirectory() as folder:
            yield taken(target, seed, Path(folder))
