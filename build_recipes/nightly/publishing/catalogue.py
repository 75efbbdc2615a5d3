"""The catalogue of a release: one entry for each of its wheels. SHA256SUMS and the package index are drawn from it.

It is a file of the release itself (`NAME`), so that a later night knows what earlier ones published without asking
anything but the release. An entry whose wheel is not there any more is dropped. A wheel that the rule (``[publish]``
of nightly.toml) lets go is first marked as retired, so that it leaves the index, and deleted the next time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from packaging.version import Version

from build_recipes.formats.wheel import Wheel as WheelFile
from build_recipes.kit.console import warn
from build_recipes.kit.data import Model, decoded
from build_recipes.kit.hashing import file_sha256
from build_recipes.nightly.config import Publish

NAME = "catalogue.json"
SUMS = "SHA256SUMS"
ROLLING = "nightly"
"""The tag of the release that holds main's wheels; it moves every night."""


class Published(Model, frozen=True):
    """One wheel of a release."""

    file: str
    sha256: str
    size: int
    """Bytes."""
    project: str
    version: str
    requires_python: str
    metadata: str
    """SHA-256 of its METADATA, which is the file ``FILE.metadata`` of the release (PEP 658)."""
    device: str
    label: str
    """``v0.33.0`` or ``main``."""
    run: str
    """The run that built it."""
    url: str
    """Page of the workflow's run that built it; empty for one by hand."""
    commit: str
    """Commit of this program that built it."""
    time: str
    """UTC, ISO 8601: when that run ended."""
    beside: dict[str, str]
    """Files that belong to it (METADATA, manifest, provenance, lock) and their SHA-256."""
    retired: str = ""
    """UTC: when the rule let it go; empty where it is kept."""

    @property
    def files(self) -> dict[str, str]:
        """Every file of it, with SHA-256; what belongs beside it first, the wheel last."""
        return {**self.beside, self.file: self.sha256}


class Catalogue(Model, frozen=True):
    """All wheels of a release."""

    schema: int = 1
    wheels: list[Published] = msgspec.field(default_factory=list)

    def text(self) -> bytes:
        """As the file of the release."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def release_tag(label: str) -> str:
    """The release that a job's wheels go to: one for each version of vLLM, and a rolling one for main.

    ``vllm-v0.33.0``, so that no tag of vLLM's passes for a version of this program.
    """
    return ROLLING if label == "main" else f"vllm-{label}"


def read(content: bytes, where: str) -> Catalogue:
    """A catalogue; an empty one, with a warning, where it is none: what is there is found again by its files."""
    try:
        found = decoded(content, Catalogue)
        for one in found.wheels:
            Version(one.version)
        return found
    except ValueError as error:
        warn(f"the catalogue of {where} is not right and is made anew: {error}")
        return Catalogue()


def entry(wheel: Path, beside: Iterable[Path], **told: str) -> Published:
    """The entry of a wheel.

    :param beside: files that belong to it, its METADATA among them.
    :param told: what the run says of it: ``device``, ``label``, ``run``, ``url``, ``commit``, ``time``.
    :raises NotAWheel: it is none.
    """
    hashes = {path.name: file_sha256(path) for path in beside}
    with WheelFile(wheel) as opened:
        name, version = opened.name, opened.version
        python = str(opened.metadata.get("Requires-Python", ""))
    return Published(
        file=wheel.name,
        sha256=file_sha256(wheel),
        size=wheel.stat().st_size,
        project=str(name),
        version=str(version),
        requires_python=python,
        metadata=hashes[f"{wheel.name}.metadata"],
        beside=hashes,
        **told,
    )


def merged(old: Catalogue, new: Catalogue, there: Iterable[str]) -> Catalogue:
    """An earlier catalogue with what was published now, without what is not there.

    :param there: names of the release's files.
    """
    names = set(there)
    entries = {one.file: one for one in (*old.wheels, *new.wheels) if one.file in names}
    return Catalogue(wheels=sorted(entries.values(), key=lambda one: (Version(one.version), one.file)))


def retired(catalogue: Catalogue, keep: Publish, now: str, *, gone: bool = False) -> Catalogue:
    """A catalogue with what the rule lets go marked so.

    :param now: UTC, for the mark.
    :param gone: the whole release is let go (`outdated`).
    """
    by_device: dict[str, list[Published]] = {}
    for one in catalogue.wheels:
        if one.label == "main":
            by_device.setdefault(one.device, []).append(one)
    late: set[str] = {one.file for one in catalogue.wheels} if gone else set()
    for wheels in by_device.values():
        wheels.sort(key=lambda one: (one.time, Version(one.version)))
        late |= {one.file for one in wheels[: max(0, len(wheels) - keep.main)]}
    marked = [
        msgspec.structs.replace(one, retired=(one.retired or now) if one.file in late else "")
        for one in catalogue.wheels
    ]
    return Catalogue(wheels=marked)


def version_of(tag: str) -> Version | None:
    """The version of vLLM that a release is for; None where it is none of ours."""
    try:
        return Version(tag.removeprefix("vllm-v")) if tag.startswith("vllm-v") else None
    except ValueError:
        return None


def outdated(tags: Iterable[str], keep: Publish) -> set[str]:
    """The releases of versions that the rule lets go."""
    known = sorted((version, tag) for tag in tags if (version := version_of(tag)) is not None)
    return {tag for _, tag in known[: max(0, len(known) - keep.releases)]} if keep.releases else set()


def sums(hashes: Mapping[str, str]) -> str:
    """SHA256SUMS as `sha256sum -c` reads it: every file but itself."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()) if name != SUMS)
