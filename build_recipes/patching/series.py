"""The series as data: patches, their variants, and the pairs of version and device that are refused."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from build_recipes.facts.device import Device, devices
from build_recipes.kit import paths
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import BadData, UnsupportedPair, UsageError

REPAIR = "restore it: git checkout -- patches/"


class Span(Model, frozen=True):
    """A half open range of vLLM versions: ``since <= version < before``."""

    since: str
    """First version."""
    before: str
    """First version that is no longer meant."""

    def holds(self, version: Version) -> bool:
        """Whether ``version`` is in the range; a pre-release of ``before`` is not."""
        return Version(self.since) <= version and version.release < Version(self.before).release


class Variant(Model, frozen=True):
    """One text of a patch: a file in `patches/`, for one source tree and one range of versions."""

    file: str
    """Patch file (unified diff, git style, full index lines) in `patches/`."""
    tree: str
    """``vllm``, or an external tree by its FetchContent name."""
    versions: Span
    """vLLM versions it is for."""
    base: str
    """Where the text was written against, for a 3-way merge: a vLLM version, or the tree's commit."""

    def path(self, home: Path) -> Path:
        """The patch file."""
        return home / self.file


class Patch(Model, frozen=True):
    """One patch of the series, in all its variants."""

    id: str
    """``P1``, ``P2``..."""
    summary: str
    """What it does, one line."""
    reason: str
    """Why it is needed, and what was seen without it."""
    upstream: list[str]
    """Issues or pull requests of the projects it belongs to."""
    devices: list[str]
    """Names of the devices it is for."""
    intent: str
    """The check in `intents` that tells whether a tree does what the patch is for."""
    variant: list[Variant]
    """Its texts."""
    modules_off: tuple[str, ...] = ()
    """Extension modules that are no longer built."""


class Refusal(Model, frozen=True):
    """Versions that cannot work on some devices, whatever is patched."""

    id: str
    versions: Span
    devices: list[str]
    reason: str
    """What happens there."""
    first_good: str
    """The first version that works."""


class Series(Model, frozen=True):
    """`patches/series.toml`."""

    versions: Span
    """The versions the series was written for."""
    patch: list[Patch]
    """In the order they are applied."""
    refuse: list[Refusal]


@dataclass(frozen=True)
class Chosen:
    """A patch that is for a version and a device, with its texts for that version (one a tree)."""

    patch: Patch
    variants: tuple[Variant, ...]
    sha256: str
    """Of the patch files' content, in order: what a plan's fingerprint takes."""


def load(home: Path = paths.PATCHES) -> Series:
    """The series in the folder ``home``.

    :raises BadData: it is broken, has an unknown key or device, or two variants claim one version.
    """
    return _load(home, (home / "series.toml").stat().st_mtime_ns if (home / "series.toml").exists() else 0)


@functools.lru_cache(maxsize=8)
def _load(home: Path, _stamp: int) -> Series:
    file = home / "series.toml"
    series = load_toml(file, Series, REPAIR)
    seen: set[str] = set()
    for entry in series.patch:
        if entry.id in seen:
            raise BadData(f"{file}: two patches are called {entry.id}", REPAIR)
        seen.add(entry.id)
        unknown = sorted(set(entry.devices) - set(devices()))
        if unknown:
            raise BadData(
                f"{file}: {entry.id} is for devices that do not exist: {', '.join(unknown)}", REPAIR
            )
        _check_variants(file, entry)
    return series


def _check_variants(file: Path, entry: Patch) -> None:
    for index, one in enumerate(entry.variant):
        for span in (one.versions,):
            try:
                empty = Version(span.since) >= Version(span.before)
            except ValueError as error:
                raise BadData(f"{file}: {entry.id}, {one.file}: {error}", REPAIR) from error
            if empty:
                raise BadData(f"{file}: {entry.id}, {one.file}: no version is in {_text(span)}", REPAIR)
        if not one.path(file.parent).is_file():
            raise BadData(f"{file}: {entry.id} names {one.file}, which is not there", REPAIR)
        for other in entry.variant[:index]:
            if one.tree == other.tree and _overlap(one.versions, other.versions):
                raise BadData(
                    f"{file}: two variants of {entry.id} claim the same versions of {one.tree}: "
                    f"{other.file} ({_text(other.versions)}) and {one.file} ({_text(one.versions)})",
                    REPAIR,
                )


def _overlap(one: Span, other: Span) -> bool:
    return Version(one.since) < Version(other.before) and Version(other.since) < Version(one.before)


def _text(span: Span) -> str:
    return f">={span.since},<{span.before}"


def parse_version(text: str) -> Version:
    """The version of a tag (``v0.12.0`` or ``0.12.0``).

    :raises UsageError: it is none.
    """
    try:
        return Version(text.removeprefix("v"))
    except ValueError:
        raise UsageError(f"'{text}' is not a vLLM version", "give a release tag: --tag v0.12.0") from None


def selected(version: str, device: Device, *, home: Path = paths.PATCHES) -> tuple[Chosen, ...]:
    """The patches for ``version`` on ``device``, in order. Pure and quick; no tree is needed.

    :raises UnsupportedPair: the version is outside the series, or the pair is refused (the text says why and
        which version is the first that works).
    """
    series, number = load(home), parse_version(version)
    refuse(series, number, device)
    return tuple(choose(series, number, device, home=home))


def refuse(series: Series, number: Version, device: Device) -> None:
    """Raise `UnsupportedPair` where the version is outside the series or the pair is refused."""
    if not series.versions.holds(number):
        raise UnsupportedPair(
            f"no patch series for vLLM {number}: it was written for {_text(series.versions)}",
            "choose a version in that range, or add this one (docs: add a vLLM version)",
        )
    found = refusal(series, number, device)
    if found is not None:
        raise UnsupportedPair(
            f"vLLM {number} does not work on {device.title}: {found.reason}",
            f"take v{found.first_good} or newer: ./inv build --tag v{found.first_good}",
        )


def refusal(series: Series, number: Version, device: Device) -> Refusal | None:
    """The refusal that holds for the pair, if any."""
    known = devices()
    return next(
        (
            entry
            for entry in series.refuse
            if entry.versions.holds(number) and any(known[name] == device for name in entry.devices)
        ),
        None,
    )


def choose(
    series: Series, number: Version, device: Device | None, *, home: Path = paths.PATCHES
) -> list[Chosen]:
    """The patches with a text for this version; for every device where ``device`` is None."""
    known = devices()
    found = []
    for entry in series.patch:
        if device is not None and all(known[name] != device for name in entry.devices):
            continue
        variants = tuple(v for v in entry.variant if v.versions.holds(number))
        if variants:
            found.append(Chosen(entry, variants, digest(variants, home)))
    return found


def digest(variants: Collection[Variant], home: Path) -> str:
    """SHA-256 of the patch files' content, in order.

    :raises BadData: a file cannot be read.
    """
    total = hashlib.sha256()
    for variant in variants:
        try:
            total.update(variant.path(home).read_bytes())
        except OSError as error:
            raise BadData(f"{variant.path(home)} cannot be read: {error.strerror}", REPAIR) from error
    return total.hexdigest()
