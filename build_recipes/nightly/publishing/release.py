"""Bring what was gathered to the releases of a repository, so that nothing that was there is lost.

A file that is there with the same bytes is left alone. Another one of the same name is uploaded beside it (``NAME``
and `BESIDE`). When all is there, each old one is deleted and the new one takes its name, SHA256SUMS as the last:
whenever that is cut off, the next night finishes it. What the rule lets go is deleted at the very end.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path

import msgspec
from packaging.utils import parse_wheel_filename

from build_recipes.kit.console import counted, say, step, warn
from build_recipes.kit.data import parse_json
from build_recipes.kit.errors import HashMismatch, UsageError
from build_recipes.kit.hashing import file_sha256
from build_recipes.nightly.config import Publish
from build_recipes.nightly.events import utc_now
from build_recipes.nightly.publishing import catalogue
from build_recipes.nightly.publishing.catalogue import NAME, ROLLING, SUMS, Catalogue, Published
from build_recipes.nightly.publishing.github import Asset, GitHub, Release

BESIDE = ".new"
NOTES = """{what}

Install with pip or uv from the package index of the project's page; `SHA256SUMS` names every file here, and
`gh attestation verify FILE --repo {repository}` says which workflow made a wheel."""
WHAT = {
    True: "Wheels of vLLM's main branch, the newest builds of each device. This release rolls: its tag moves.",
    False: "Wheels of vLLM {version} for Arm machines with CUDA 13, built from source.",
}


@dataclass
class Done:
    """What was done to the releases."""

    uploaded: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    catalogues: dict[str, Catalogue] = field(default_factory=dict)
    """Tag to what is there now."""
    urls: dict[str, str] = field(default_factory=dict)
    """Name of a wheel to its address."""


def publish(hub: GitHub, folder: Path, keep: Publish, commit: str) -> Done:
    """Publish a folder that `gather` made, and keep to the rule.

    :param commit: of this program: where new tags are put.
    :raises UsageError: there is no such folder.
    :raises NetworkError: GitHub does not answer or refuses. What was done stays; the same command goes on.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "./inv gather makes it")
    done = Done()
    there = {release.tag: release for release in hub.releases()}
    gathered = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{NAME}"))}
    ours = {tag for tag in (*there, *gathered) if tag == ROLLING or catalogue.version_of(tag)}
    gone = catalogue.outdated(ours, keep)
    for tag in sorted(ours):
        step("release", tag)
        release = there.get(tag) or _create(hub, tag, commit)
        _Work(hub, release, done).bring(gathered.get(tag), keep, gone=tag in gone)
    if ROLLING in ours and commit:
        hub.move_tag(ROLLING, commit)
    say(
        f"{counted(len(done.uploaded), 'file')} uploaded, {len(done.deleted)} deleted, "
        f"{counted(len(done.retired), 'wheel')} retired"
    )
    return done


def _create(hub: GitHub, tag: str, commit: str) -> Release:
    rolling = tag == ROLLING
    what = WHAT[rolling].format(version=tag.removeprefix("vllm-v"))
    notes = NOTES.format(what=what, repository=hub.repository)
    title = "Nightly builds of main" if rolling else f"vLLM {tag.removeprefix('vllm-v')}"
    return hub.create_release(tag, commit=commit, title=title, notes=notes, prerelease=rolling)


@dataclass
class _Work:
    """One release being brought up to date."""

    hub: GitHub
    release: Release
    done: Done
    files: dict[str, Asset] = field(default_factory=dict)
    """What it has, by name, as it will be after `swap`."""
    staged: dict[str, tuple[Asset, Asset]] = field(default_factory=dict)
    """What is there under a name, and what is to take it."""
    leaving: list[Asset] = field(default_factory=list)
    """What the rule lets go."""

    def bring(self, folder: Path | None, keep: Publish, *, gone: bool) -> None:
        """Publish a folder's wheels, if there is one, and keep to the rule.

        :param gone: the rule lets the whole release go.
        """
        self.settle()
        known = self.files.get(NAME)
        old = catalogue.read(self.hub.download(known), self.release.tag) if known else Catalogue()
        old = self.completed(old)
        for one in old.wheels:  # the index that named it is a night old
            if one.retired and not (folder and (folder / one.file).is_file()):
                self.leaving += [self.files.pop(name) for name in one.files if name in self.files]
        new = catalogue.read((folder / NAME).read_bytes(), str(folder)) if folder else Catalogue()
        for name in [name for one in new.wheels for name in one.files]:
            self.put(name, folder / name if folder else b"")
        now = catalogue.merged(old, new, self.files)
        now = catalogue.retired(now, keep, utc_now().isoformat(timespec="seconds"), gone=gone)
        if gone and not now.wheels:
            self.done.deleted += [asset.name for asset in self.leaving]
            self.hub.delete_release(self.release)
            return
        self.put(NAME, now.text())
        self.put(SUMS, catalogue.sums(self.hashes([*old.wheels, *new.wheels])).encode())
        self.swap()
        self.done.retired += [one.file for one in now.wheels if one.retired]
        self.done.catalogues[self.release.tag] = now
        self.done.urls |= {name: asset.url for name, asset in self.files.items() if name.endswith(".whl")}

    def settle(self) -> None:
        """Finish what an earlier night was stopped in, or clear it away."""
        for asset in self.release.assets:
            if asset.whole:
                self.files[asset.name] = asset
            else:
                warn(f"{self.release.tag}: {asset.name} was not uploaded to its end; it is removed")
                self.hub.delete(asset)
        for name in [name for name in self.files if name.endswith(BESIDE)]:
            asset, final = self.files.pop(name), name.removesuffix(BESIDE)
            if final in self.files:  # the old one is there still: it is done again from the start
                self.hub.delete(asset)
            else:
                warn(f"{self.release.tag}: {final} gets its name, which an earlier night was stopped in")
                self.hub.rename(asset, final)
                self.files[final] = _called(asset, final)

    def completed(self, old: Catalogue) -> Catalogue:
        """A catalogue with the wheels of the release that it does not name, as their own files tell of them."""
        named = {one.file for one in old.wheels}
        found = []
        for name in sorted(name for name in self.files if name.endswith(".whl") and name not in named):
            try:
                found.append(self.told(name))
            except (KeyError, TypeError, ValueError) as error:
                warn(f"{self.release.tag}: {name} is in no catalogue and nothing tells of it: {error!r}")
        return msgspec.structs.replace(old, wheels=[*old.wheels, *found])

    def told(self, name: str) -> Published:
        """The entry of a wheel that is in no catalogue. Raises `KeyError`, `TypeError` or `ValueError`."""
        stem = name.removesuffix(".whl")
        project, version = parse_wheel_filename(name)[:2]
        manifest = parse_json(self.hub.download(self.files[f"{stem}.manifest.json"]))
        metadata = self.hub.download(self.files[f"{name}.metadata"])
        tag = self.release.tag
        return Published(
            file=name,
            sha256=self.files[name].sha256 or str(manifest["wheel"]["sha256"]),
            size=self.files[name].size,
            project=str(project),
            version=str(version),
            requires_python=message_from_bytes(metadata).get("Requires-Python", ""),
            metadata=hashlib.sha256(metadata).hexdigest(),
            device=str(manifest["plan"]["device"]),
            label="main" if tag == ROLLING else tag.removeprefix("vllm-"),
            run="",
            url="",
            commit="",
            time="",
            beside={
                other: asset.sha256
                for other, asset in self.files.items()
                if other.startswith(f"{stem}.") and other != name
            },
        )

    def put(self, name: str, content: Path | bytes) -> None:
        """Make a file of the release be this one."""
        sha256 = file_sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        before = self.files.get(name)
        if before and before.sha256 == sha256:
            return
        made = self.hub.upload(self.release, name + BESIDE if before else name, content)
        if made.sha256 not in ("", sha256):
            self.hub.delete(made)
            raise HashMismatch(
                f"{name} arrived at GitHub as {made.sha256}, and is {sha256}",
                "./inv release --from out, again",
            )
        if before:
            self.staged[name] = (before, made)
        self.files[name] = dataclasses.replace(_called(made, name), sha256=sha256)
        self.done.uploaded.append(name)

    def swap(self) -> None:
        """Give what was staged its name, in the place of what had it; then remove what the rule let go."""
        for name, (before, made) in self.staged.items():
            self.hub.delete(before)
            self.hub.rename(made, name)
        for asset in self.leaving:
            self.hub.delete(asset)
            self.done.deleted.append(asset.name)

    def hashes(self, wheels: Iterable[Published]) -> dict[str, str]:
        """SHA-256 of every file that is there: as GitHub says, as the catalogue says, else of its bytes."""
        known = {name: sha256 for one in wheels for name, sha256 in one.files.items()}
        return {
            name: asset.sha256 or known.get(name) or hashlib.sha256(self.hub.download(asset)).hexdigest()
            for name, asset in self.files.items()
            if name != SUMS
        }


def _called(asset: Asset, name: str) -> Asset:
    """An asset that was renamed."""
    return dataclasses.replace(asset, name=name, url=asset.url.removesuffix(BESIDE))
