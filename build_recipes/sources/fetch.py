"""Stage fetch: the sources of a lock as plain folders, ready for a build.

vLLM and each external tree (with its submodules in place) become folders without .git. Each is made beside
and renamed, with a marker that says what it is, so that a second call does nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from build_recipes.formats.archive import unpack_sdist
from build_recipes.kit import console, process
from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import (
    ArmoryError,
    HashMismatch,
    NetworkError,
    OfflineError,
    RevisionMissing,
    SourceIncomplete,
    UsageError,
)
from build_recipes.kit.once import replaced
from build_recipes.kit.paths import Places
from build_recipes.sources.cmake.trees import Scan, reader
from build_recipes.sources.download import fetch_files
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import Lock, SubmodulePin, TreePin
from build_recipes.sources.repository import Repository, export_tree
from build_recipes.sources.submodules import submodules_of
from build_recipes.sources.wheel_members import member_files

Source = str | Path


@dataclass(frozen=True)
class Fetched:
    """Where the sources are."""

    vllm: Path
    trees: dict[str, Path]
    """Tree name to the folder its override variable must name."""
    missing: dict[str, str]
    """Trees that cannot be fetched, and why."""
    seals: Mapping[str, str] = field(default_factory=dict)
    """What each folder holds (commit, hash): another seal is another content. vLLM itself is ``vllm``."""
    commit: str = ""
    """vLLM's commit, 40 digits; empty where only a part of it is known and its repository could not be asked."""


def fetch(
    lock: Lock,
    *,
    source: Source = "sdist",
    mirrors: Mapping[str, Path] | None = None,
    offline: bool = False,
    places: Places,
    into: Path,
) -> Fetched:
    """Bring every source of a lock below ``into``.

    :param source: vLLM from ``sdist``, from ``git``, or copied from a folder.
    :param mirrors: repository address to a local repository that stands in for it.
    :raises RevisionMissing: vLLM's repository does not hold the pinned commit (a tree is only listed as missing).
    :raises OfflineError: vLLM itself is not in the cache.
    :raises NetworkError: vLLM itself cannot be fetched.
    """
    library = Library(places.git, mirrors or {}, offline)
    into.mkdir(parents=True, exist_ok=True)
    vllm = _vllm(lock, source, library, places, into / "vllm")
    trees: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for tree in lock.trees:
        try:
            trees[tree.name] = _tree(tree, library, places, into / tree.name) / tree.subdir
        except (NetworkError, OfflineError, RevisionMissing, SourceIncomplete) as error:
            missing[tree.name] = str(error.args[0])
    seals = {name: _marker(into / name).read_text() for name in ("vllm", *trees)}
    return Fetched(vllm, trees, missing, seals, _full_commit(lock, library))


def _full_commit(lock: Lock, library: Library) -> str:
    """The whole hash of a commit of which a source distribution has the beginning."""
    known = lock.vllm.commit
    if len(known) == 40 or not known:
        return known
    try:
        found = library.resolve(lock.vllm.repository, lock.tag)
    except (NetworkError, OfflineError, RevisionMissing):
        return ""
    return found if found.startswith(known) else ""


# -- folders that are made once ------------------------------------------------------------------


def _once(into: Path, content: str, make: Callable[[], object], what: str) -> Path:
    """Make the folder ``into`` unless its marker already says ``content``."""
    marker = _marker(into)
    if into.is_dir() and marker.is_file() and marker.read_text() == content:
        return into
    console.step("fetch", what)
    for note in [marker, *into.parent.glob(f".{into.name}.*")]:
        if note.is_file():
            note.unlink()  # what others noted beside the folder (its patches) is true of the old one only
    make()
    write_atomic(marker, content)
    return into


def _marker(into: Path) -> Path:
    """The file beside a folder that says what it holds."""
    return into.parent / f".{into.name}.source"


def _vllm(lock: Lock, source: Source, library: Library, places: Places, into: Path) -> Path:
    if isinstance(source, Path):
        copied = _copy(source, into)
        for line in other_pins(lock, copied):
            console.warn(line)
        return copied
    if source == "git":
        commit = lock.vllm.commit
        if len(commit) < 40:
            commit = library.resolve(lock.vllm.repository, lock.tag)
            if not commit.startswith(lock.vllm.commit):
                raise HashMismatch(
                    f"tag {lock.tag} of {lock.vllm.repository} is {commit}, the lock says {lock.vllm.commit}",
                    "the tag was moved, or the mirror is wrong",
                )
        repository = library.with_commit(lock.vllm.repository, commit, lock.tag)
        return _once(
            into,
            f"git {commit}",
            lambda: export_tree([("", repository, commit, "")], into),
            f"vLLM {lock.tag} from git",
        )
    if source != "sdist":
        raise UsageError(f"--source {source}: it is git, sdist or a folder", "--source sdist")
    pin = lock.vllm.sdist
    if pin is None:
        raise RevisionMissing(f"the lock of {lock.tag} has no source distribution", "--source git")
    return _once(
        into,
        f"sdist {pin.sha256}",
        lambda: unpack_sdist(
            fetch_files([pin], places.downloads, offline=library.offline)[pin.filename], into
        ),
        f"vLLM {lock.tag} from {pin.filename}",
    )


def _copy(source: Path, into: Path) -> Path:
    if not (source / "CMakeLists.txt").is_file() or not (source / "vllm").is_dir():
        raise UsageError(
            f"--source {source} is not a vLLM source tree",
            "give the folder that holds CMakeLists.txt and vllm/",
        )
    files = files_of(source)
    seal = hashlib.sha256()
    for name in files:
        stat = (source / name).lstat()
        seal.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_mode}\n".encode())

    def fill(beside: Path) -> None:
        for name in files:
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, beside / name, follow_symlinks=False)

    return _once(
        into,
        f"folder {source.resolve()} {seal.hexdigest()}",
        lambda: replaced(into, fill),
        f"vLLM from {source}",
    )


def other_pins(lock: Lock, tree: Path) -> list[str]:
    """Where a tree's CMake files ask for other external trees than the lock pins."""
    asked = {entry.name: entry for entry in Scan().project(reader(tree))}
    pinned = {entry.name: entry for entry in lock.trees if not entry.declared_in.count(":") > 1}
    lines = []
    for name in sorted(asked.keys() | pinned.keys()):
        wants = f"{asked[name].repository} {asked[name].revision}" if name in asked else "nothing"
        has = f"{pinned[name].repository} {pinned[name].revision}" if name in pinned else "nothing"
        if wants != has:
            lines.append(
                f"{name}: this tree's CMake asks for {wants}, the lock of {lock.tag} has {has}, which is used"
            )
    return lines


def files_of(source: Path) -> list[str]:
    """Files of a tree: what git knows or does not ignore, else all without .git and bytecode."""
    if (source / ".git").exists():
        listed = process.capture(
            [
                "git",
                "-c",
                f"safe.directory={source.resolve()}",
                "-C",
                source,
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ]
        )
        return sorted({name for name in listed.split("\0") if name and (source / name).is_file()})
    found = []
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name not in (".git", "__pycache__", ".venv", "build")]
        found += [(Path(folder) / name).relative_to(source).as_posix() for name in files]
    return sorted(found)


# -- external trees ------------------------------------------------------------------------------


def _tree(tree: TreePin, library: Library, places: Places, into: Path) -> Path:
    reason: ArmoryError | None = None
    if tree.commit:
        try:
            return _git_tree(tree, library, into)
        except (NetworkError, OfflineError, RevisionMissing) as error:
            reason = error
    if tree.from_wheel is not None:
        return _wheel_tree(tree, places, library.offline, into)
    raise reason or SourceIncomplete(
        f"the lock has no commit for {tree.name}: {tree.unresolved}",
        "make the lock again on a machine with a network",
    )


def _git_tree(tree: TreePin, library: Library, into: Path) -> Path:
    seal = _seal(tree.commit, tree.subdir, tree.submodules)
    if into.is_dir() and _marker(into).is_file() and _marker(into).read_text() == seal:
        return into
    repository = library.with_commit(tree.repository, tree.commit, tree.revision)
    # a commit pins its submodules: where the lock could not look, they are read now
    submodules = submodules_of(repository, tree.commit) if tree.unresolved else tree.submodules
    parts: list[tuple[str, Repository, str, str]] = [("", repository, tree.commit, tree.subdir)]
    for sub in submodules:
        if not sub.skip:
            parts.append((sub.path, library.with_commit(sub.repository, sub.commit), sub.commit, ""))
    return _once(into, seal, lambda: export_tree(parts, into), f"{tree.name} at {tree.commit[:12]}")


def _seal(commit: str, subdir: str, submodules: list[SubmodulePin]) -> str:
    kept = [sub for sub in submodules if not sub.skip]
    return f"git {commit} {subdir} {msgspec.json.encode(kept).decode()}"


def _wheel_tree(tree: TreePin, places: Places, offline: bool, into: Path) -> Path:
    source = tree.from_wheel
    assert source is not None
    seal = f"wheel {hashlib.sha256(msgspec.json.encode(source)).hexdigest()}"

    def fill(beside: Path) -> None:
        for name, path in member_files(source, places.downloads, offline=offline).items():
            target = beside / tree.subdir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    return _once(
        into,
        seal,
        lambda: replaced(into, fill),
        f"{tree.name}: {counted(len(source.members), 'file')} of {source.wheel.filename}",
    )
