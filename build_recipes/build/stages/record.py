"""What a stage leaves behind: ``<tree>/stages/<name>.json`` with the hash of its inputs, its outputs, seconds.

A stage whose inputs did not change, and whose files are as it left them (``<name>.files.json``), is not done again;
that is how an interrupted build goes on. Records are sealed: one that is not whole does not count.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from build_recipes.kit import evidence
from build_recipes.kit.console import warn
from build_recipes.kit.data import Model, read_sealed, write_sealed
from build_recipes.kit.errors import NotWritable, TreeBusy
from build_recipes.kit.once import remove_tree


class Record(Model, frozen=True):
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


def place(tree: Path, name: str) -> Path:
    """Where the record of a stage is kept."""
    return tree / "stages" / f"{name}.json"


def files_of(tree: Path, name: str) -> Path:
    """Where the manifest of a stage's files is kept."""
    return tree / "stages" / f"{name}.files.json"


def read(tree: Path, name: str) -> Record | None:
    """The record of a stage, or None where it never finished or the record is not whole."""
    record = read_sealed(place(tree, name), Record)
    return record if record and record.name == name else None


def once(
    tree: Path,
    name: str,
    inputs: object,
    work: Callable[[], dict[str, Any]],
    *,
    files: Callable[[], Iterable[str]] | None = None,
    twins: Callable[[], Mapping[int, evidence.File]] = dict,
    anew: tuple[str, ...] = (),
) -> Record:
    """Do ``work`` unless the record says that it was done with the same inputs, and its files are as it left them.

    :param work: returns the outputs; paths in it must still exist for the record to count.
    :param files: names, below the tree, of the files that the work leaves.
    :param anew: beginnings of names that keep the times of their making (see `evidence.keep`).
    :param twins: inode to what is known of it, where files are hard links of files that were just checked.
    """
    wanted = digest(inputs)
    before = read(tree, name)
    if before and before.inputs == wanted and _still_there(before.outputs):
        lost = evidence.damaged(tree, files_of(tree, name)) if files else []
        if lost == []:
            return before
        told(name, lost)
    started = time.monotonic()
    place(tree, name).unlink(missing_ok=True)
    outputs = work()
    if files:
        evidence.keep(tree, files_of(tree, name), files(), twins(), anew)
    seconds = round(time.monotonic() - started, 2)
    record = Record(
        name=name, inputs=wanted, outputs=json.loads(json.dumps(outputs, default=str)), seconds=seconds
    )
    write_sealed(place(tree, name), record)
    return record


def told(what: str, lost: Sequence[str] | None) -> None:
    """Say in one line what is not believed and so is made again."""
    if lost is None:
        warn(f"{what}: nothing shows that it is as it was left; made again")
    else:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        warn(f"{what}: {lost[0]}{more} not as left behind; made again")


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
        remove_tree(scratch(tree))  # of a run that was killed
        yield
        remove_tree(scratch(tree))
    finally:
        os.close(handle)


def scratch(tree: Path) -> Path:
    """Where the tools of a build put what they need for a moment; it is gone when the build ends."""
    return tree / "tmp"


def scratch_environment(tree: Path) -> dict[str, str]:
    """Variables that keep the tools' temporary files and Python's bytecode out of ``/tmp`` and out of what is kept."""
    scratch(tree).mkdir(parents=True, exist_ok=True)
    return {"TMPDIR": str(scratch(tree)), "PYTHONPYCACHEPREFIX": str(scratch(tree) / "pycache")}
