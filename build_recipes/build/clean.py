"""`invoke clean`: what is kept where, how large it is, why, and what may go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_recipes.build.disk import held
from build_recipes.build.stages.published import MANIFEST, read_manifest
from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places

LEFTOVER = re.compile(r"\.[^/]+\.(?:~[\w.]+|old\.\w+|[a-z0-9_]{8}|\d+)")
"""Names of what is made beside its place and then renamed (`kit.data`, `kit.once`, publish): a process id or eight
random characters at the end."""
CACHES = ("ccache", "sccache", "compat", "exports", "images", "patching", "stub-env", "uv", "uv-cache")
"""Folders of the cache that are one item each; a folder of any other name is not ours."""
DAY_S = 86400.0


@dataclass(frozen=True)
class Item:
    """One thing that can be removed by itself."""

    path: str
    kind: str
    """``build tree``, ``toolkit``, ``download``, ``mirror``, ``cache``, ``wheel`` or ``leftover``."""
    bytes: int
    """On disk. A build tree's hard links to a toolkit count at the toolkit."""
    days: float
    """Since it was last used."""
    kept: str
    """Why it is kept; empty where it goes."""


def survey(places: Places, keep: int | None, older_s: float | None) -> list[Item]:
    """Everything in the three folders, and what becomes of it.

    :param keep: build trees that stay, the last used first; all where it is None.
    :param older_s: what was not used for so many seconds goes; nothing by age where it is None.
    """
    return [
        *_leftovers(places),
        *_trees(places, keep, older_s),
        *_cache(places, older_s),
        *_wheels(places),
    ]


def _item(path: Path, kind: str, used: float, kept: str) -> Item:
    octets = held(path, links=kind == "toolkit") if path.is_dir() else path.lstat().st_blocks * 512
    return Item(str(path), kind, octets, round((time.time() - used) / DAY_S, 1), kept)


def _leftovers(places: Places) -> Iterator[Item]:
    """What killed runs left beside its place. A place in use is left alone."""
    folders = [places.wheels, places.toolkits, places.cache / "patching"]
    for tree in _own_trees(places.build):
        if not in_use(tree):
            folders += [tree, tree / "src", tree / "stages", tree / "cmake", tree / "out"]
            if (tree / "tmp").is_dir():
                yield _item(tree / "tmp", "leftover", time.time(), "")
    for folder in folders:
        for path in sorted(folder.glob(".*")):
            if LEFTOVER.fullmatch(path.name) and not _alive(path, folder):
                yield _item(path, "leftover", path.lstat().st_mtime, "")


def _alive(path: Path, folder: Path) -> bool:
    """Whether somebody may still be writing it: the process that its name gives, or the holder of the folder."""
    number = path.name.rpartition(".")[2]
    if number.isdigit():
        return Path(f"/proc/{number}").exists()
    return time.time() - path.lstat().st_mtime < 3600 and not _free(folder)


def _free(place: Path) -> bool:
    """Whether nobody holds the lock of a folder or file."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def in_use(tree: Path) -> bool:
    """Whether a build works in a tree now."""
    return (tree / ".lock").exists() and not _free(tree / ".lock")


def _folders(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return []


def _own_trees(folder: Path) -> list[Path]:
    """Build trees; a folder that is none of ours is never touched."""
    return [tree for tree in _folders(folder) if (tree / ".lock").is_file() and (tree / "src").is_dir()]


def _trees(places: Places, keep: int | None, older_s: float | None) -> Iterator[Item]:
    def used(tree: Path) -> float:
        lock = tree / ".lock"
        return (lock if lock.exists() else tree).stat().st_mtime

    for rank, tree in enumerate(sorted(_own_trees(places.build), key=used, reverse=True)):
        why = f"number {rank + 1} by last use: the same command goes on there"
        if in_use(tree):
            why = "a build works in it"
        elif (keep is not None and rank >= keep) or _old(used(tree), older_s):
            why = ""
        yield _item(tree, "build tree", used(tree), why)


def _cache(places: Places, older_s: float | None) -> Iterator[Item]:
    kinds = {
        "toolkits": ("toolkit", "an assembled toolkit or torch; made again from the downloads"),
        "downloads": ("download", "checked by its hash; fetched again when it is needed"),
        "git": ("mirror", "commits that locks name"),
    }
    for top in _folders(places.cache):
        if top.name not in (*kinds, *CACHES):
            continue
        kind, why = kinds.get(top.name, ("cache", "makes the next run faster"))
        for path in _folders(top) if kind != "cache" else [top]:
            used = _last_used(path)
            yield _item(path, kind, used, "" if _old(used, older_s) else why)


def _last_used(path: Path) -> float:
    marks = [path.with_name(f".{path.name}.files.json"), *(path.glob("*.ok") if path.is_dir() else ())]
    times: list[float] = [mark.stat().st_mtime for mark in marks if mark.exists()]
    return max([path.stat().st_mtime, *times])


def _wheels(places: Places) -> Iterator[Item]:
    for path in sorted(places.wheels.glob("*.whl")):
        facts = read_manifest(path.with_name(path.name.removesuffix(".whl") + MANIFEST))
        why = "published, with its manifest" if facts else "published; nothing says how it was built"
        yield _item(path, "wheel", path.stat().st_mtime, f"{why}; remove it by hand")


def _old(used: float, older_s: float | None) -> bool:
    return older_s is not None and time.time() - used > older_s


def clean(places: Places, *, keep: int | None, older_s: float | None, dry: bool) -> dict[str, Any]:
    """Remove what may go (leftovers always); say what is kept and why.

    :returns: plain data for ``--json``.
    """
    items = survey(places, keep, older_s)
    going = [item for item in items if not item.kept]
    if not dry:
        for item in going:
            remove(Path(item.path))
    return {
        "removed": [] if dry else [asdict(item) for item in going],
        "would_remove": [asdict(item) for item in going] if dry else [],
        "kept": [asdict(item) for item in items if item.kept],
        "freed": 0 if dry else sum(item.bytes for item in going),
    }


def remove(path: Path) -> None:
    """Remove one item: renamed first, so that nobody takes half of it for the whole."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    aside = path.with_name(f".{path.name.lstrip('.')}.~clean")
    remove_tree(aside)
    path.rename(aside)
    path.with_name(f".{path.name}.files.json").unlink(missing_ok=True)
    remove_tree(aside)


def sweep(places: Places, tree: Path) -> None:
    """Remove what killed runs left where this one will work; called while the tree is held."""
    folders = (tree, tree / "src", tree / "stages", tree / "cmake", tree / "out", places.wheels)
    for folder in folders:
        for path in folder.glob(".*"):
            if LEFTOVER.fullmatch(path.name) and not _alive(path, folder / ".none"):
                remove(path)


def _together(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items as people want to see them: the largest first, all downloads in one row."""
    rows = [item for item in items if item["kind"] != "download"]
    if files := [item for item in items if item["kind"] == "download"]:
        folder = f"{Path(files[0]['path']).parent} ({counted(len(files), 'file')})"
        octets, days = sum(item["bytes"] for item in files), min(item["days"] for item in files)
        rows.append({**files[0], "path": folder, "bytes": octets, "days": days})
    return sorted(rows, key=lambda item: -int(item["bytes"]))


def show(done: dict[str, Any]) -> None:
    """Print it for people."""
    verbs = {"removed": "removed", "would_remove": "would go", "kept": ""}
    rows = [
        [item["kind"], console.size(item["bytes"]), f"{item['days']:.0f}", item["path"], item["kept"] or verb]
        for key, verb in verbs.items()
        for item in _together(done[key])
    ]
    console.table("What is kept where", ["what", "size", "days unused", "where", "why"], rows)
    kept = console.size(sum(item["bytes"] for item in done["kept"]))
    console.say(f"{kept} kept, {console.size(done['freed'])} freed")
    if not done["removed"] and not done["would_remove"]:
        console.say("next  ./inv clean --keep 2 --older 30d --dry  shows what would go")
