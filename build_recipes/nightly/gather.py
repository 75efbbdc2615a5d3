"""Gather what a night has made: the wheels of green runs, each checked against the feed, by release.

    out/vllm-v0.33.0/   wheels of that version, for all devices
    out/nightly/        wheels of main
    out/SHA256SUMS      this night's wheels: the subjects of the attestation
    out/feed.jsonl

Each release's folder has the files as they are to be there, and a catalogue of them.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from build_recipes.formats.wheel import Wheel, incomplete
from build_recipes.kit.console import say, warn
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import ArmoryError, HashMismatch
from build_recipes.kit.hashing import file_sha256
from build_recipes.nightly.config import Publish
from build_recipes.nightly.page.view import Run, fold
from build_recipes.nightly.publishing import catalogue
from build_recipes.nightly.store import Store


@dataclass(frozen=True)
class Gathered:
    """What may be published, and what may not."""

    wheels: list[Path]
    refused: dict[str, str]
    """Job to why its wheel is not published, though its run was green."""

    def check(self) -> None:
        """Refuse in the end, when all others are gathered.

        :raises HashMismatch: a wheel is not the one that its run made.
        """
        if self.refused:
            raise HashMismatch(
                "\n".join(self.refused.values()),
                "do not publish it; the job is red now and is run again: ./inv nightly --only "
                + next(iter(self.refused)),
            )


def newest_green(store: Store) -> list[Run]:
    """The last run of each job that was green, of the jobs whose last run is."""
    newest: dict[str, Run] = {}
    for run in fold(event for _, event in store.events()):
        if run.state in ("green", "red"):
            newest[run.job] = run
    return [run for run in newest.values() if run.state == "green" and run.wheel]


def gather(store: Store, folders: Iterable[Path], to: Path, rule: Publish) -> Gathered:
    """Copy the wheels of green runs, found anywhere below ``folders``, with what belongs to them.

    A wheel that no green run made is left where it is, and so is a smoke or partial wheel: it is not the whole. Two
    jobs may have wheels of one name: each takes the one with its own SHA-256. A job whose wheel is there and is not
    what its run made becomes red, so that the next night makes it again; the others are gathered all the same.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.whl")):
            found.setdefault(path.name, []).append(path)
    to.mkdir(parents=True, exist_ok=True)
    entries: dict[str, list[catalogue.Published]] = {}
    done: list[Path] = []
    refused: dict[str, str] = {}
    used: set[Path] = set()
    for run in newest_green(store):
        name = str(run.wheel["name"])
        if not found.get(name):
            continue
        word = incomplete(name.split("-")[1])
        if word and not rule.incomplete:
            say(f"{name} is a {word} wheel: it stays")
            used.update(found[name])
            continue
        match = next((one for one in found[name] if file_sha256(one) == run.wheel["sha256"]), None)
        try:
            if match is None:
                raise HashMismatch(
                    f"{found[name][0]} has SHA-256 {file_sha256(found[name][0])}; the green run {run.id} made "
                    f"{run.wheel['sha256']}",
                    "",
                )
            tag = catalogue.release_tag(run.label)
            entries.setdefault(tag, []).append(_bring(run, match, to / tag))
        except ArmoryError as error:
            refused[run.job] = str(error.args[0])
            warn(refused[run.job])
            _make_red(store, run, refused[run.job])
            continue
        used.add(match)
        done.append(to / tag / name)
    for tag, wheels in entries.items():
        write_atomic(to / tag / catalogue.NAME, catalogue.Catalogue(wheels=wheels).text())
    if done:
        hashes = {one.file: one.sha256 for wheels in entries.values() for one in wheels}
        write_atomic(to / catalogue.SUMS, catalogue.sums(hashes))
    write_atomic(to / "feed.jsonl", b"".join(event.line() + b"\n" for _, event in store.events()))
    unused = sorted({path.name for paths in found.values() for path in paths if path not in used})
    if unused:
        warn(f"not published, because no newest run of a job made them and was green: {', '.join(unused)}")
    return Gathered(done, refused)


def _bring(run: Run, wheel: Path, folder: Path) -> catalogue.Published:
    """Copy a wheel and what belongs to it into a release's folder. Returns its entry."""
    folder.mkdir(parents=True, exist_ok=True)
    with Wheel(wheel) as opened:
        metadata = opened.text(f"{opened.dist_info}/METADATA").encode()
    stem = glob.escape(wheel.name.removesuffix(".whl"))
    beside = [
        Path(shutil.copyfile(path, folder / path.name))
        for pattern in (f"{stem}.*.json", f"{stem}.lock.toml")
        for path in sorted(wheel.parent.glob(pattern))
    ]
    write_atomic(folder / f"{wheel.name}.metadata", metadata)
    target = Path(shutil.copyfile(wheel, folder / wheel.name))
    return catalogue.entry(
        target, [folder / f"{wheel.name}.metadata", *beside],
        device=run.device, label=run.label, run=run.id, url=run.url, commit=run.commit, time=run.ended,
    )  # fmt: skip


def _make_red(store: Store, run: Run, reason: str) -> None:
    """Record that a job's wheel is not what its green run made: a run of its own, which ended red."""
    name = f"{run.id}.refused"
    store.record(
        "started", name, "1",
        {"job": run.job, "label": run.label, "device": run.device, "ref": run.ref, "url": run.url},
    )  # fmt: skip
    store.record("ended", name, "", {"state": "red", "seconds": 0, "reason": reason})
