"""One reader that is fuzzed."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import mutate

from build_recipes.kit.errors import ArmoryError

Mutate = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """One reader."""

    seeds: Callable[[], list[bytes]]
    """Good inputs; all of them are taken."""
    read: Callable[[bytes, Path], Any]
    """Reads an input in an empty folder. A falsy result says that it was refused without an exception."""
    change: Mutate = mutate.blind
    errors: tuple[type[Exception], ...] = (ArmoryError,)
    """What may be raised."""


def taken(target: Target, data: bytes, folder: Path) -> bool:
    """Whether a reader takes an input; raises what it may not raise."""
    try:
        return target.read(data, folder) is not False
    except target.errors:
        return False


def put(data: bytes, folder: Path, name: str) -> Path:
    """A file with these bytes below a folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
