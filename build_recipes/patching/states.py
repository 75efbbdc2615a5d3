"""The life cycle: what each patch of the series is worth on each version today."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version

from build_recipes.kit import paths
from build_recipes.kit.paths import Places
from build_recipes.patching import git, intents, series, trees
from build_recipes.patching.series import Patch, Series, Variant

State = Literal["applies", "3-way", "upstream", "conflict", "intent lost", "refused", "gap", "not here"]

MEANING: Mapping[str, str] = {
    "applies": "applies, and the tree then does what the patch is for",
    "3-way": "applies after a 3-way merge, and the tree then does what the patch is for",
    "upstream": "not needed: the tree does it without the patch, or has it already",
    "conflict": "does not fit",
    "intent lost": "applies, but the tree does not do what the patch is for",
    "refused": "the version cannot work on the devices it names",
    "gap": "no variant for this version, and the tree does not do what the patch is for",
    "not here": "the external tree it changes is not in the cache",
}
BAD = ("conflict", "intent lost", "gap")
"""States that need someone to act."""


@dataclass(frozen=True)
class Cell:
    """One patch on one version."""

    version: str
    patch: str
    state: State
    files: tuple[str, ...]
    """Patch files that were tried."""
    detail: str
    """For a conflict the hunk and the file's lines; for others the reason."""


def examine(
    version: str,
    have: Mapping[str, Path],
    places: Places,
    *,
    device: str | None = None,
    home: Path = paths.PATCHES,
) -> list[Cell]:
    """Every patch of the series on one version, in order, as the patch stage would put them.

    :param have: pristine trees by name; they are not written.
    :param device: only what is for this device; everything where it is None.
    """
    found = series.load(home)
    number = series.parse_version(version)
    cells: dict[str, Cell] = {}
    for patches in _stacks(found, device):
        for cell in _stack(patches, number, have, places, home):
            cells.setdefault(cell.patch, cell)
    for refused in _refusals(found, number, device):
        cells[refused.patch] = refused
    return [cells[name] for name in sorted(cells, key=_natural)]


def _stacks(found: Series, device: str | None) -> list[list[Patch]]:
    """The patches that are put on one tree together: a device's. For all devices, as few of these as hold every
    patch: patches that no device shares may change the same line."""
    if device is not None:
        return [[entry for entry in found.patch if device in entry.devices]]
    names = dict.fromkeys(name for entry in found.patch for name in entry.devices)
    stacks, missing = [], {entry.id for entry in found.patch}
    while missing:
        fullest = max(names, key=lambda name: sum(name in p.devices for p in found.patch if p.id in missing))
        stacks.append([entry for entry in found.patch if fullest in entry.devices])
        missing -= {entry.id for entry in stacks[-1]}
    return stacks


def _stack(
    patches: list[Patch], number: Version, have: Mapping[str, Path], places: Places, home: Path
) -> list[Cell]:
    with ExitStack() as stack:
        scratches = {name: stack.enter_context(git.scratch()) for name in have}
        tried: dict[str, tuple[State, str, tuple[str, ...]]] = {}
        for entry in patches:
            variants = [v for v in entry.variant if v.versions.holds(number)]
            tried[entry.id] = _try(variants, have, scratches, places, home)
        patched = _patched(have, scratches, stack)
        cells = []
        for entry in patches:
            state, detail, files = tried[entry.id]
            verdict = intents.check(entry.intent, have)
            if verdict.holds:
                state, detail = "upstream", "the tree does it without the patch"
            elif not files and state != "not here":
                state, detail = "gap", verdict.why
            elif state in ("applies", "3-way"):
                state, detail = _intended(entry, patched, state)
            cells.append(Cell(str(number), entry.id, state, files, detail))
        return cells


def _natural(name: str) -> tuple[int, str]:
    digits = "".join(c for c in name if c.isdigit())
    return int(digits or 0), name


def _try(
    variants: list[Variant],
    have: Mapping[str, Path],
    scratches: Mapping[str, git.Scratch],
    places: Places,
    home: Path,
) -> tuple[State, str, tuple[str, ...]]:
    state: State = "applies"
    absent = [variant.tree for variant in variants if variant.tree not in have]
    files = tuple(variant.file for variant in variants if variant.tree in have)
    outcomes = set()
    for variant in variants:
        if variant.tree not in have:
            continue
        file = variant.path(home)
        names = git.touched(file)
        scratches[variant.tree].take(have[variant.tree], names)
        base = functools.partial(trees.base_files, variant, names, places, fetching=True, offline=False)
        attempt = scratches[variant.tree].apply(file, base)
        if attempt.outcome == "conflict":
            return "conflict", f"{variant.file}: {attempt.detail}", files
        outcomes.add(attempt.outcome)
    if absent:
        return "not here", f"no {', '.join(absent)} tree here", files
    if outcomes == {"already"}:
        return "upstream", "the tree has it already", files
    if "3-way" in outcomes:
        state = "3-way"
    return state, "", files


def _patched(
    have: Mapping[str, Path], scratches: Mapping[str, git.Scratch], stack: ExitStack
) -> dict[str, Path]:
    """Copies of the trees with what was applied: links to the pristine files, but for those that changed."""
    copies = {}
    for name, tree in have.items():
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="armory-patched-"))) / name
        shutil.copytree(tree, folder, copy_function=_link)
        for path in scratches[name].folder.rglob("*"):
            if path.is_file():
                target = folder / path.relative_to(scratches[name].folder)
                target.unlink(missing_ok=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        copies[name] = folder
    return copies


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _intended(entry: Patch, patched: Mapping[str, Path], state: State) -> tuple[State, str]:
    verdict = intents.check(entry.intent, patched)
    if verdict.holds is False:
        return "intent lost", verdict.why
    return state, "" if verdict.holds else f"not verified: {verdict.why}"


def _refusals(found: Series, number: Version, device: str | None) -> list[Cell]:
    reasons: dict[str, list[str]] = {}
    for entry in found.refuse:
        if entry.versions.holds(number) and (device is None or device in entry.devices):
            reasons.setdefault(entry.id, []).append(
                f"{', '.join(entry.devices)}: {entry.reason}; the first version that works is {entry.first_good}"
            )
    return [Cell(str(number), name, "refused", (), "\n".join(texts)) for name, texts in reasons.items()]
