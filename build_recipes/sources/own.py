"""vLLM sources that are no release: a folder, or a branch, commit or candidate that was brought into one.

Such a source has its own version (as setuptools-scm would give it), its own name, and its own lock, kept beside the
build trees. A release's lock is never written for it, but may stand in for it where the folder asks for the same pins.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from build_recipes.facts import versions
from build_recipes.kit import paths
from build_recipes.kit.data import load_toml
from build_recipes.kit.errors import ArmoryError, LockEdited, LockMissing, UsageError
from build_recipes.kit.paths import Places
from build_recipes.sources.lockfile import Lock, VllmPin, digest_of, load_lock, lock_path
from build_recipes.sources.requirements import build_requirements
from build_recipes.sources.scm import SEAL, VERSION, describe, next_version


@dataclass(frozen=True)
class Own:
    """A source that is not a release."""

    name: str
    """Of its build tree and lock."""
    folder: Path
    version: str
    """PEP 440, without a local part: ``0.33.1.dev12``."""
    local: str
    """What tells it from other states of the same version: commit and content."""
    commit: str
    """40 digits; empty where none is known."""
    words: str
    """How it is asked for: ``--source DIR``, ``--tag main``."""

    @property
    def pin(self) -> VllmPin:
        """vLLM itself, for the lock."""
        return VllmPin(
            repository=versions.facts().repository, commit=self.commit, commit_from=f"folder {self.local}"
        )


def is_release(tag: str) -> bool:
    """Whether a tag names a release: one with a lock, or a final version."""
    if len(tag) > versions.MOST_TAG or not re.fullmatch(r"v\d+\.\d+[\w.]*", tag):
        return (
            re.fullmatch(r"\d+\.\d+[\w.]*", tag) is not None or not tag
        )  # told apart by `versions.version_of`
    try:
        final = not Version(tag[1:]).is_prerelease
    except ValueError:
        return False
    return final or lock_path(tag).is_file()


def folder_of(ref: str, places: Places) -> Path:
    """Where a branch, commit or candidate is brought to.

    :raises UsageError: it cannot be a git revision.
    """
    if re.fullmatch(r"[0-9a-f]{7,39}", ref):
        raise UsageError(f"{ref} is part of a commit's hash", "give all 40 digits")
    if not re.fullmatch(r"[A-Za-z0-9][\w./+-]{0,199}", ref) or ".." in ref:
        raise UsageError(
            f"'{ref[:60]}' is no revision of vLLM", f"--tag v{versions.facts().releases[-1]}, or main"
        )
    return places.build / "sources" / re.sub(r"[^\w.+-]", "-", ref)


def own_source(tag: str, source: str, places: Places) -> Own | None:
    """The source of a request that is not a release; None where it is one. Nothing is written.

    :param source: ``sdist``, ``git``, or a folder.
    :raises LockMissing: a revision that was not brought here yet.
    :raises UsageError: the folder is not a vLLM tree, or nothing says its version.
    """
    if source not in ("sdist", "git"):
        folder = Path(source).resolve()
        if not (folder / "CMakeLists.txt").is_file() or not (folder / "vllm").is_dir():
            raise UsageError(
                f"--source {source} is not a vLLM source tree",
                "give the folder that holds CMakeLists.txt and vllm/",
            )
        told = f"--tag {tag} " if tag else ""
        name = f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"
        return _own(folder, name, f"{told}--source {source}", tag)
    if is_release(tag):
        return None
    folder = folder_of(tag, places)
    if not (folder / SEAL).is_file():
        raise LockMissing(
            f"{tag} is not a release, and was not brought here yet",
            f"bring and pin it: ./inv lock --tag {tag}",
        )
    return _own(folder, folder.name, f"--tag {tag}", "")


def _own(folder: Path, name: str, words: str, hint: str) -> Own:
    version, commit = version_of(folder, hint)
    local = [f"g{commit[:9]}"] if commit else []
    if not (folder / SEAL).is_file():
        local.append(f"s{content_of(folder)[:8]}")
    return Own(name, folder, str(Version(version).public), ".".join(local), commit, words)


def version_of(folder: Path, hint: str = "") -> tuple[str, str]:
    """Version of a source folder, and its commit where that is known.

    In this order: SETUPTOOLS_SCM_PRETEND_VERSION, git's nearest tag by setuptools-scm's rules, what was noted when
    a revision was brought here, PKG-INFO of a source distribution, the tag that was given with it.

    :raises UsageError: nothing says it.
    """
    commit = _line(folder / SEAL)
    described = describe(folder) if (folder / ".git").exists() else ""
    if described:
        commit = described.rpartition("-g")[2]
    info = re.search(r"^Version: (\S+)$", _text(folder / "PKG-INFO"), re.MULTILINE)
    given = [
        os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION", ""),
        next_version(described) if described else "",
        _line(folder / VERSION),
        info.group(1) if info else "",
        hint.removeprefix("v"),
    ]
    for text in filter(None, given):
        try:
            return str(Version(text)), commit
        except ValueError:
            continue
    raise UsageError(
        f"nothing says which version {folder} is: it has no git tags and no PKG-INFO",
        "git fetch --tags there, or say it: SETUPTOOLS_SCM_PRETEND_VERSION=0.33.1.dev1 ./inv ...",
    )


def content_of(folder: Path) -> str:
    """SHA-256 over the names and bytes of a source folder's files."""
    seal = hashlib.sha256()
    from build_recipes.sources.fetch import files_of

    for name in files_of(folder):
        path = folder / name
        data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        seal.update(name.encode("utf-8", "surrogateescape") + b"\0" + hashlib.sha256(data).digest())
    return seal.hexdigest()


# -- its lock ------------------------------------------------------------------------------------


def own_lock_path(own: Own, places: Places) -> Path:
    """Where the lock of a source of one's own is kept."""
    return places.build / "locks" / f"{own.name}.toml"


def own_lock(own: Own, places: Places) -> Lock:
    """The lock of a source of one's own: its own, else the nearest release's where that pins the same.

    :raises LockMissing: neither fits what the folder asks for now.
    """
    why: list[str] = []
    for lock in _candidates(own, places):
        if not (different := differs(lock, own)):
            sealed = msgspec.structs.replace(lock, tag=own.name, version=own.version, vllm=own.pin, digest="")
            return msgspec.structs.replace(sealed, digest=digest_of(sealed))
        why = why or different
    raise LockMissing(
        f"{own.folder} asks for other sources than any lock here pins: "
        + "; ".join(why[:3] or ["there is none"]),
        f"pin them (needs the network): ./inv lock {own.words}",
    )


def _candidates(own: Own, places: Places) -> list[Lock]:
    found: list[Lock] = []
    path = own_lock_path(own, places)
    if path.is_file():
        lock = load_toml(path, Lock, hint=f"make it again: ./inv lock {own.words}")
        if digest_of(lock) != lock.digest:
            raise LockEdited(f"{path} was changed after it was made", f"./inv lock {own.words}")
        found.append(lock)
    tags = {file.stem for place in paths.lock_folders() for file in place.glob("v*.toml")}
    older = [tag for tag in tags if Version(tag[1:]) <= Version(own.version)]
    for tag in sorted(older, key=lambda tag: Version(tag[1:]))[-1:]:
        try:
            found.append(load_lock(tag))
        except ArmoryError:
            continue
    return found


def differs(lock: Lock, own: Own) -> list[str]:
    """What a folder asks for that a lock does not pin."""
    from build_recipes.sources.fetch import other_pins

    lines = [line.removesuffix(", which is used") for line in other_pins(lock, own.folder)]
    facts = versions.for_version(own.version)
    wanted, torch = build_requirements(own.folder, facts.requirements)
    if torch and all(pin.version != torch for pin in lock.torch):
        lines.append(f"torch {torch}")
    pinned = {(pin.project, pin.version) for pin in lock.wheels}
    for text in wanted:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate():
            continue
        name = canonicalize_name(need.name)
        if not any(project == name and need.specifier.contains(found, True) for project, found in pinned):
            lines.append(f"the build requirement {text}")
    return lines


def _line(path: Path) -> str:
    return _text(path).strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
