"""Gather what a night has made: the wheels of green runs, each checked against the feed, into one folder."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterable
from pathlib import Path

from build_recipes.formats.wheel import incomplete
from build_recipes.kit.console import say, warn
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import HashMismatch
from build_recipes.kit.hashing import file_sha256
from build_recipes.nightly.page.view import Run, fold
from build_recipes.nightly.store import Store


def newest_green(store: Store) -> list[Run]:
    """The last run of each job that was green, of the jobs whose last run is."""
    newest: dict[str, Run] = {}
    for run in fold(event for _, event in store.events()):
        if run.state in ("green", "red"):
            newest[run.job] = run
    return [run for run in newest.values() if run.state == "green" and run.wheel]


def gather(store: Store, folders: Iterable[Path], to: Path) -> list[Path]:
    """Copy the wheels of green runs, found anywhere below ``folders``, with what belongs to them and the feed.

    A wheel that no green run made is left where it is, and so is a smoke or partial wheel: it is not the whole.

    :returns: the wheels.
    :raises HashMismatch: a wheel is not the one that the feed tells of.
    """
    found = {path.name: path for folder in folders for path in sorted(folder.rglob("*.whl"))}
    to.mkdir(parents=True, exist_ok=True)
    done: list[Path] = []
    sums: list[str] = []
    for run in newest_green(store):
        name = str(run.wheel["name"])
        path = found.get(name)
        if path is None:
            continue
        if word := incomplete(name.split("-")[1]):
            say(f"{name} is a {word} wheel: it stays")
            continue
        digest = file_sha256(path)
        if digest != run.wheel["sha256"]:
            raise HashMismatch(
                f"{path} has SHA-256 {digest}; the green run {run.id} made {run.wheel['sha256']}",
                "do not publish it: build it again (./inv nightly --force --only " + run.job + ")",
            )
        shutil.copyfile(path, to / name)
        for beside in path.parent.glob(f"{glob.escape(name.removesuffix('.whl'))}*.json"):
            shutil.copyfile(beside, to / beside.name)
        sums.append(f"{digest}  {name}\n")
        done.append(to / name)
    if sums:
        write_atomic(to / "SHA256SUMS", "".join(sums))
    write_atomic(to / "feed.jsonl", b"".join(event.line() + b"\n" for _, event in store.events()))
    unused = sorted(set(found) - {path.name for path in done})
    if unused:
        warn(f"not published, because no newest run of a job made them and was green: {', '.join(unused)}")
    return done
