"""Folders that are whole or not there: filled beside their place, then renamed.

A lock on the parent lets one process fill at a time; a second one waits and finds the folder there. What a
killed process left beside it is removed by the next one that fills it.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from build_recipes.kit import evidence

Fill = Callable[[Path], "Path | None"]
"""Fills the empty folder it is given; returns the folder inside of it that counts, or None for all of it."""


def filled(folder: Path, fill: Fill) -> Path:
    """``folder``, made by ``fill`` if it is not there yet, or a file in it is not as it was filled.

    :raises OSError: it cannot be written; nothing is left behind.
    """
    if not stands(folder):
        with _held(folder):
            if not stands(folder):
                _make(folder, fill)
                evidence.keep(folder, manifest_of(folder), evidence.names_below(folder, ""))
    return folder


def stands(folder: Path) -> bool:
    """Whether a folder that `filled` made is there and every file in it is as it was filled."""
    if not folder.exists() or evidence.damaged(folder, manifest_of(folder)) != []:
        return False
    with contextlib.suppress(OSError):
        os.utime(manifest_of(folder))  # when it was last used, for `invoke clean`
    return True


def manifest_of(folder: Path) -> Path:
    """Where the manifest of a folder that `filled` made is kept: beside it."""
    return folder.with_name(f".{folder.name}.files.json")


def replaced(folder: Path, fill: Fill) -> Path:
    """``folder`` made again by ``fill``, in the place of an older one (see `replace_tree`).

    :raises OSError: it cannot be written; the older one is still there.
    """
    with _held(folder):
        _make(folder, fill)
    return folder


def _make(folder: Path, fill: Fill) -> None:
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.~"))
    try:
        made = fill(beside) or beside
        made.chmod(0o755)
        replace_tree(made, folder)
    finally:
        remove_tree(beside)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder's parent; leftovers of the folder are removed, since nobody fills it now."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.~*/"):
            remove_tree(left)
        yield
    finally:
        os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, as far as it can be; it need not be there. A link is never followed."""
    shutil.rmtree(folder, ignore_errors=True)


def replace_tree(new: Path, into: Path) -> None:
    """Put the folder ``new`` in the place of ``into``; an older one is moved aside first, then removed.

    A file whose content did not change keeps its old time and any other gets the present one, so that a
    build tree compiles again what changed, and nothing else.
    """
    if not into.exists() and not into.is_symlink():
        new.replace(into)
        return
    keep_times(new, into)
    old = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}.~old."))
    into.replace(old / "tree")
    new.replace(into)
    remove_tree(old)


def keep_times(new: Path, old: Path) -> None:
    """Set the time of each file of ``new``: that of ``old`` where the content is the same, else now."""
    now = time.time_ns()
    for folder, _, files in os.walk(new):
        for name in files:
            file = Path(folder) / name
            if file.is_symlink():
                continue
            before = old / file.relative_to(new)
            same = before.is_file() and not before.is_symlink() and filecmp.cmp(file, before, shallow=False)
            stamp = before.stat().st_mtime_ns if same else now
            os.utime(file, ns=(stamp, stamp))
