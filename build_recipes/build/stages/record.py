"""What a stage leaves behind: ``<tree>/stages/<name>.json`` with the hash of its inputs, its outputs, seconds.

A stage whose inputs did not change is not done again; that is how an interrupted build goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import NotWritable, TreeBusy


@dataclass(frozen=True)
class Record:
    """One finished stage."""

    name: str
    inputs: str
    """SHA-256 of what the stage depends on."""
    outputs: dict[str, Any]
    """What it made, as plain data."""
    seconds: float


def digest(value: object) -> str:
    """SHA-256 of plain data, independent of dictionary order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def read(tree: Path, name: str) -> Record | None:
    """The record of a stage, or None where it never finished."""
    try:
        return Record(**json.loads((tree / "stages" / f"{name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def once(tree: Path, name: str, inputs: object, work: Callable[[], dict[str, Any]]) -> Record:
    """Do ``work`` unless the record says that it was done with the same inputs.

    ``work`` returns the outputs; paths in it must still exist for the record to count.
    """
    seal = digest(inputs)
    before = read(tree, name)
    if before and before.inputs == seal and _still_there(before.outputs):
        return before
    started = time.monotonic()
    (tree / "stages" / f"{name}.json").unlink(missing_ok=True)
    outputs = work()
    record = Record(
        name, seal, json.loads(json.dumps(outputs, default=str)), round(time.monotonic() - started, 2)
    )
    write_atomic(tree / "stages" / f"{name}.json", json.dumps(record.__dict__, indent=1))
    return record


def _still_there(outputs: dict[str, Any]) -> bool:
    return all(
        Path(value).exists() for value in outputs.values() if isinstance(value, str) and value.startswith("/")
    )


@contextlib.contextmanager
def tree_lock(tree: Path) -> Iterator[None]:
    """Hold the build tree: a second build of it stops at once instead of writing into it.

    :raises TreeBusy: another process holds it.
    :raises NotWritable: the folder cannot be made.
    """
    try:
        tree.mkdir(parents=True, exist_ok=True)
        handle = os.open(tree / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise NotWritable(
            f"{tree} cannot be written: {error.strerror}", "VLLM_ARMORY_BUILD=/somewhere/else"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise TreeBusy(
                f"another build (process {holder}) works in {tree}", f"wait for it, or stop it: kill {holder}"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
