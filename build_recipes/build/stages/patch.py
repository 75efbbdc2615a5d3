"""The patch stage: the series put on plain source folders, all of it or nothing.

Everything is tried in a scratch folder first. Then a journal is written beside each tree, the files are
written, and each patch's intent is checked on the patched trees. Whatever stops it (a conflict, a lost
intent, Ctrl-C, a power cut) leaves the trees as they were, or leaves a journal from
which the next run restores them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from build_recipes.facts.device import Device
from build_recipes.kit import paths
from build_recipes.kit.errors import IntentLost, PatchConflict, UnsafeArchive, UsageError
from build_recipes.kit.paths import Places
from build_recipes.patching import git, intents, journal, series
from build_recipes.patching.series import Chosen, Variant


@dataclass(frozen=True)
class AppliedPatch:
    """One patch file that is on a tree."""

    id: str
    variant: str
    """Name of the patch file."""
    sha256: str
    """Of the patch file."""
    files: tuple[str, ...]
    """The files it changes, as ``tree/path``."""


@dataclass(frozen=True)
class Patched:
    """What the stage did."""

    applied: tuple[AppliedPatch, ...]
    modules_off: tuple[str, ...]
    """Extension modules the patched trees no longer build."""
    skipped: tuple[str, ...]
    """``id: tree`` of the patches whose tree was not given."""


def apply_series(
    trees: Mapping[str, Path],
    version: str,
    device: Device,
    *,
    without: Collection[str] = (),
    home: Path = paths.PATCHES,
) -> Patched:
    """Put the series for ``version`` and ``device`` on the trees. A second call changes nothing.

    :param trees: plain source folders by name: ``vllm``, and external trees by FetchContent name.
    :param without: ids of patches to leave out.
    :raises UnsupportedPair: the version cannot work on the device.
    :raises PatchConflict: a patch does not fit; no tree was changed.
    :raises IntentLost: the patched tree does not do what a patch is for; the trees are restored.
    :raises TreeModified: a file that we patched before was changed since by someone else.
    """
    chosen = [entry for entry in series.selected(version, device, home=home) if entry.patch.id not in without]
    _check_ids(without, home)
    skipped = tuple(
        f"{entry.patch.id}: {variant.tree}"
        for entry in chosen
        for variant in entry.variants
        if variant.tree not in trees
    )
    modules_off = tuple(name for entry in chosen for name in entry.patch.modules_off)
    jobs = [_job(name, trees[name], chosen, version, home) for name in sorted(trees)]
    if all(job.stands() for job in jobs):
        return Patched(_applied([job.earlier for job in jobs]), modules_off, skipped)
    fresh = {job.name: _try(job, home) for job in jobs if job.plan or job.earlier is not None}
    _write(trees, fresh, {job.name: job.earlier for job in jobs}, chosen)
    return Patched(_applied([kept for kept, _ in fresh.values()]), modules_off, skipped)


def _check_ids(without: Collection[str], home: Path) -> None:
    known = [entry.id for entry in series.load(home).patch]
    for name in without:
        if name not in known:
            raise UsageError(f"no patch is called '{name}'", f"use one of {', '.join(known)} (./inv patches)")


@dataclass(frozen=True)
class _Job:
    """One tree and what is wanted of it."""

    name: str
    version: str
    tree: Path
    plan: list[tuple[Chosen, Variant]]
    digest: str
    earlier: journal.Journal | None
    """What an earlier run did: the patches go on the texts without it."""

    def stands(self) -> bool:
        """Whether the tree is already as it is wanted."""
        kept = self.earlier
        if kept is None:
            return not self.plan
        return kept.status == "applied" and kept.digest == self.digest and journal.intact(self.tree, kept)


def _job(name: str, tree: Path, chosen: list[Chosen], version: str, home: Path) -> _Job:
    plan = [(entry, variant) for entry in chosen for variant in entry.variants if variant.tree == name]
    words = [str(series.parse_version(version)), *(variant.file for _, variant in plan)]
    words.append(series.digest([variant for _, variant in plan], home))
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()
    return _Job(name, words[0], tree, plan, digest, journal.read(tree))


def _try(job: _Job, home: Path) -> tuple[journal.Journal, dict[str, str | None]]:
    """The journal and the new texts of one tree; nothing is written to it."""
    tree = job.tree
    plain = journal.originals(tree, job.earlier) if job.earlier is not None else {}
    entries: list[journal.Entry] = []
    with git.scratch() as scratch:
        journal.put(scratch.folder, plain)
        for chosen, variant in job.plan:
            file = variant.path(home)
            names = git.touched(file)
            _stay_inside(tree, names)
            scratch.take(tree, tuple(path for path in names if path not in plain))
            attempt = scratch.apply(file, functools.partial(_base, variant, names))
            if attempt.outcome == "conflict":
                raise PatchConflict(
                    f"{chosen.patch.id} ({variant.file}) does not fit {job.name}: {attempt.detail}",
                    f"./inv patches --tag v{job.version} shows the whole series; then add a variant to patches/",
                )
            entries.append(
                journal.Entry(
                    id=chosen.patch.id,
                    variant=variant.file,
                    sha256=series.digest([variant], home),
                    files=[f"{job.name}/{path}" for path in names],
                )
            )
        touched = dict.fromkeys([*plain, *(p.split("/", 1)[1] for entry in entries for p in entry.files)])
        texts = {path: journal.text_of(scratch.folder / path) for path in touched}
    now = {path: journal.text_of(tree / path) for path in texts}
    changes = [
        journal.Change(
            path=path,
            before=plain.get(path, now[path]),
            after=journal.sha256(text),
            earlier=journal.sha256(now[path]),
        )
        for path, text in texts.items()
    ]
    return journal.Journal(status="applying", digest=job.digest, patches=entries, changes=changes), texts


def _base(variant: Variant, names: tuple[str, ...]) -> git.Files | None:
    """What the patch was written against, where an examination has left it in the cache."""
    from build_recipes.patching import trees

    return trees.base_files(variant, names, Places.from_environment())


def _stay_inside(tree: Path, names: Collection[str]) -> None:
    root = tree.resolve()
    for name in names:
        if not (tree / name).resolve().is_relative_to(root):
            raise UnsafeArchive(f"{name} leads out of {tree}", "unpack the source tree again")


def _write(
    trees: Mapping[str, Path],
    fresh: Mapping[str, tuple[journal.Journal, dict[str, str | None]]],
    earlier: Mapping[str, journal.Journal | None],
    chosen: Collection[Chosen],
) -> None:
    """Write all trees and check the intents; whatever goes wrong, the trees and journals are as they were."""
    now = {name: {path: journal.text_of(trees[name] / path) for path in fresh[name][1]} for name in fresh}
    try:
        for name, (kept, _) in fresh.items():
            journal.write(trees[name], kept)
        for name, (_, texts) in fresh.items():
            journal.put(trees[name], texts)
        for entry in chosen:
            verdict = intents.check(entry.patch.intent, trees)
            if verdict.holds is False:
                raise IntentLost(
                    f"{entry.patch.id} applied, but {verdict.why} ({entry.patch.summary})",
                    "correct the patch in patches/ (docs: add a patch)",
                )
        for name, (kept, _) in fresh.items():
            journal.settle(trees[name], msgspec.structs.replace(kept, status="applied"))
    except BaseException:
        for name, texts in now.items():
            journal.put(trees[name], texts)
            journal.settle(trees[name], earlier[name])
        raise


def _applied(journals: Collection[journal.Journal | None]) -> tuple[AppliedPatch, ...]:
    return tuple(
        AppliedPatch(entry.id, entry.variant, entry.sha256, tuple(entry.files))
        for kept in journals
        if kept is not None
        for entry in kept.patches
    )
