"""The Python patches of the series on a wheel's own files, with their intents proved there."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from build_recipes.facts.device import Device
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import paths
from build_recipes.patching import git, intents, series
from build_recipes.patching.series import Chosen


@dataclass(frozen=True)
class NotApplied:
    """A patch of the series that a finished wheel cannot take, or not prove."""

    id: str
    summary: str
    """What is missing without it."""
    why: str


@dataclass(frozen=True)
class Applied:
    """What became of the series on one wheel."""

    applied: tuple[dict[str, Any], ...]
    """As `provenance.patch_part` takes them."""
    files: Mapping[str, bytes]
    """Changed members: path to new content."""
    skipped: tuple[NotApplied, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without the files."""
        return {
            "applied": list(self.applied),
            "not_applied": [dataclasses.asdict(one) for one in self.skipped],
        }


def apply(wheel: Wheel, device: Device, work: Path) -> Applied:
    """Put those patches on a wheel's files that change nothing but files it has.

    A patch whose text does not fit, or whose intent does not hold afterwards, is left out and named.

    :param work: an empty folder for the files that patches and intents read.
    """
    known = series.load(paths.PATCHES)
    number = Version(Version(wheel.version).public)
    if not known.versions.holds(number):
        return Applied(
            (), {}, (NotApplied("all", "the patch series", f"it was not written for vLLM {number}"),)
        )
    chosen = series.choose(known, number, device)
    known_intents = intents.intents()
    globs = {one for entry in chosen for one in known_intents[entry.patch.intent].reads.get("vllm", ())}
    for one in globs:
        _take(wheel, work, fnmatch.filter(wheel.members, one))
    applied: list[dict[str, Any]] = []
    skipped: list[NotApplied] = []
    changed: dict[str, bytes] = {}
    for entry in chosen:
        texts = {variant: git.touched(variant.path(paths.PATCHES)) for variant in entry.variants}
        outside = sorted(
            name
            for variant, names in texts.items()
            for name in names
            if variant.tree != "vllm" or name not in wheel.members
        )
        if outside:
            why = f"it changes what is compiled in: {', '.join(outside[:3])}"
            skipped.append(NotApplied(entry.patch.id, entry.patch.summary, why))
            continue
        _take(wheel, work, (name for names in texts.values() for name in names))
        files, why = _try(entry, work)
        if why:
            skipped.append(NotApplied(entry.patch.id, entry.patch.summary, why))
            continue
        changed |= files
        applied += [
            {
                "id": entry.patch.id,
                "variant": variant.file,
                "sha256": series.digest([variant], paths.PATCHES),
                "files": [f"vllm/{name}" for name in names],
            }
            for variant, names in texts.items()
        ]
    return Applied(tuple(applied), changed, tuple(skipped))


def _take(wheel: Wheel, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        target = folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"".join(wheel.pieces(name)))


def _try(entry: Chosen, tree: Path) -> tuple[dict[str, bytes], str]:
    """The new content of the files of one patch, or why it is left out; the tree then is as it was."""
    names = [name for variant in entry.variants for name in git.touched(variant.path(paths.PATCHES))]
    before = {name: (tree / name).read_bytes() for name in names}
    with git.scratch() as scratch:
        scratch.take(tree, tuple(names))
        for variant in entry.variants:
            attempt = scratch.apply(variant.path(paths.PATCHES))
            if attempt.outcome == "conflict":
                return {}, f"its text does not fit: {attempt.detail.splitlines()[0]}"
        after = {name: (scratch.folder / name).read_bytes() for name in names}
    for name, content in after.items():
        (tree / name).write_bytes(content)
    verdict = intents.check(entry.patch.intent, {"vllm": tree})
    if verdict.holds:
        return {name: content for name, content in after.items() if content != before[name]}, ""
    for name, content in before.items():
        (tree / name).write_bytes(content)
    return {}, f"its intent does not hold on the wheel's files: {verdict.why}"
