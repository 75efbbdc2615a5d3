"""Stage lock: a tag to everything a build of it reads, by commit and by hash."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.facts import versions
from build_recipes.formats.archive import unpack_sdist
from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import (
    ArmoryError,
    BadData,
    HashMismatch,
    LockMissing,
    NetworkError,
    OfflineError,
    RevisionMissing,
    UsageError,
)
from build_recipes.kit.paths import Places
from build_recipes.sources import official, parts, registry, resolve
from build_recipes.sources.checkout import checkout
from build_recipes.sources.cmake.trees import Declaration, Read, Scan
from build_recipes.sources.download import fetch_files
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import (
    CargoPin,
    Change,
    FilePin,
    Lock,
    OfficialPin,
    SubmodulePin,
    TorchPin,
    TreePin,
    VllmPin,
    WheelMembers,
    diff_locks,
    digest_of,
    load_lock,
    lock_path,
    lock_text,
    save_lock,
    tags_for,
)
from build_recipes.sources.mirrors import configured_mirrors
from build_recipes.sources.modules import makeup
from build_recipes.sources.own import Own, folder_of, is_release, own_lock_path, own_source
from build_recipes.sources.repository import Repository, export_tree
from build_recipes.sources.requirements import build_requirements
from build_recipes.sources.rust import crates_of
from build_recipes.sources.submodules import submodules_of
from build_recipes.sources.wheel_members import list_members

Source = str | Path
"""``sdist``, ``git``, or the folder of a vLLM source tree."""


def make_lock(
    tag: str,
    *,
    mirrors: Mapping[str, Path],
    offline: bool = False,
    places: Places,
    source: Source = "sdist",
    own: Own | None = None,
) -> Lock:
    """Pin everything a build of ``tag`` reads. The lock is not written.

    :param mirrors: repository address to a local repository that stands in for it.
    :param source: where vLLM's CMake and requirements are read from.
    :param own: a source that is not a release: it is pinned as it stands in its folder, under its own name.
    :raises NotATag: ``tag`` is a branch or a commit.
    :raises UnknownTag: no such release.
    :raises LockMissing: ``offline``: hashes of the index cannot be known without it.
    """
    version = own.version if own else versions.version_of(tag)
    if offline:
        raise LockMissing(
            f"a lock for {tag} cannot be made without the network: the hashes are the package index's",
            f"./inv lock --tag {tag} on a machine with a network, then copy build_recipes/locks",
        )
    if own is None:
        versions.check_known(tag, registry.releases("vllm", kinds=("sdist", "wheel")))
    known = versions.for_version(version)
    library = Library(places.git, mirrors)
    sdist = None if own else next(iter(registry.file_pins("vllm", version, "source", None)), None)
    with tempfile.TemporaryDirectory(prefix="armory-lock.") as folder:
        if own:
            root, vllm, tag = own.folder, own.pin, own.name
        else:
            root = _source_tree(tag, source, sdist, (library, places.downloads), Path(folder))
            vllm = _vllm(tag, root, sdist, library)
        console.step("lock", f"vLLM {tag} is {vllm.commit} (from {vllm.commit_from})")
        trees = lock_trees(root, version, library)
        build, pinned = build_requirements(root, known.requirements)
        cargo = _cargo(root)
    torch = _torch(pinned or known.torch, known)
    pythons = known.pythons()
    toolkit = versions.facts().cuda_toolkit
    console.step("lock", "the CUDA toolkit's wheels and the build requirements")
    cuda = resolve.resolve(
        [f"cuda-toolkit[{','.join(toolkit.extras)}]=={toolkit.version}", *toolkit.tools], "cuda", pythons
    )
    wheels = resolve.resolve(build, "build", pythons)
    return Lock(
        tag=tag, version=version, vllm=vllm, trees=trees, torch=torch, cargo=cargo, wheels=[*cuda, *wheels],
        official=[] if own else _official(version),
    )  # fmt: skip


# -- vLLM itself ---------------------------------------------------------------------------------


def _source_tree(
    tag: str, source: Source, sdist: FilePin | None, caches: tuple[Library, Path], scratch: Path
) -> Path:
    library, downloads = caches
    if isinstance(source, Path):
        return source
    if source == "git":
        url = versions.facts().repository
        commit = library.resolve(url, tag)
        export_tree([("", library.with_commit(url, commit, tag), commit, "")], scratch / "vllm")
        return scratch / "vllm"
    if sdist is None:
        raise RevisionMissing(
            f"PyPI has no source distribution of vLLM {tag}", f"./inv lock --tag {tag} --source git"
        )
    return unpack_sdist(fetch_files([sdist], downloads)[sdist.filename], scratch / "vllm")


def sdist_commit(root: Path) -> str:
    """The short commit that setuptools-scm wrote into vllm/_version.py; empty where there is none."""
    path = root / "vllm" / "_version.py"
    match = re.search(r"commit_id\s*=\s*'g([0-9a-f]+)'", path.read_text()) if path.is_file() else None
    return match.group(1) if match else ""


def _vllm(tag: str, root: Path, sdist: FilePin | None, library: Library) -> VllmPin:
    url, short = versions.facts().repository, sdist_commit(root)
    try:
        commit = library.resolve(url, tag)
    except (NetworkError, OfflineError) as error:
        if not short:
            raise
        console.warn(f"{error.args[0]!s}; the commit is the one the source distribution records")
        return VllmPin(repository=url, commit=short, commit_from="sdist", sdist=sdist)
    if short and not commit.startswith(short):
        raise HashMismatch(
            f"tag {tag} is commit {commit}, but the source distribution on PyPI was made from {short}",
            "the tag was moved, or the mirror is wrong: find out which before anything is built",
        )
    return VllmPin(repository=url, commit=commit, commit_from="git", sdist=sdist)


def _cargo(root: Path) -> list[CargoPin]:
    pins = []
    for path in sorted(root.glob("**/Cargo.lock")):
        name, digest = path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
        pins.append(CargoPin(path=name, sha256=digest, crates=len(crates_of(path))))
    return pins


# -- external trees ------------------------------------------------------------------------------


def lock_trees(root: Path, version: str, library: Library) -> list[TreePin]:
    """Every external tree that the CMake files of ``root`` would fetch, pinned as far as can be known."""
    opened: dict[str, _Opened] = {}

    def open_tree(declared: Declaration) -> Read | None:
        found = opened[declared.name] = _Opened()
        try:
            found.commit = library.resolve(declared.repository, declared.revision)
            found.repository = library.with_commit(declared.repository, found.commit, declared.revision)
        except (NetworkError, OfflineError) as error:
            found.reason = str(error.args[0])
            return None
        except RevisionMissing:
            found.reason = f"{declared.repository} as it was at hand had no revision {declared.revision}"
            return None
        repository, commit = found.repository, found.commit
        return lambda path: repository.read(commit, path)

    scan = Scan(open_tree)
    tag = makeup(root, scan)
    if scan.unreadable:
        raise BadData(
            f"CMake declares trees that cannot be read: {'; '.join(scan.unreadable)}", "report this tag"
        )
    for declared in tag.trees:
        if declared.name not in opened:
            open_tree(declared)
    trees = [_tree(declared, scan, opened[declared.name], version) for declared in tag.trees]
    return [msgspec.structs.replace(tree, users=list(tag.users(tree.name))) for tree in trees]


@dataclass
class _Opened:
    """What is known about a declared tree."""

    commit: str = ""
    repository: Repository | None = None
    reason: str = ""


def _tree(declared: Declaration, scan: Scan, found: _Opened, version: str) -> TreePin:
    commit, reason = found.commit, found.reason
    submodules: list[SubmodulePin] = []
    wheel: WheelMembers | None = None
    if found.repository is not None:
        submodules = submodules_of(found.repository, commit, skip=lambda path: _skip(declared, scan, path))
    else:
        console.warn(f"{declared.name}: {reason}")
        unknown = "its submodules are" if commit else "commit and submodules are"
        reason = f"{unknown} not known: when the lock was made, {reason}"
        wheel = _from_wheel(declared, version)
    where = f"{declared.parent}:{declared.where}" if declared.parent else declared.where
    console.step("lock", f"{declared.name} {declared.revision} -> {commit or 'unresolved'}")
    return TreePin(
        name=declared.name, repository=declared.repository, revision=declared.revision, commit=commit,
        variable=declared.variable, subdir=declared.subdir, declared_in=where, submodules=submodules,
        unresolved=reason, from_wheel=wheel,
    )  # fmt: skip


def _skip(declared: Declaration, scan: Scan, path: str) -> str:
    if declared.submodules is not None:
        return "" if path in declared.submodules else f"{declared.where} does not list it in GIT_SUBMODULES"
    if scan.names(declared.name, path):
        return ""
    return "no CMake file that a CUDA build reads names it"


def _from_wheel(declared: Declaration, version: str) -> WheelMembers | None:
    """A tree of Python files only, as the official wheel has it under vllm/third_party."""
    machine = versions.facts().official_wheel_machine
    if not declared.subdir:
        return None
    tags = frozenset(tags_for(machine, (3, 12), resolve.NEWEST_GLIBC))
    try:
        wheels = registry.file_pins("vllm", version, "source", tags)
        if not wheels:
            return None
        members = list_members(wheels[0], f"vllm/third_party/{declared.name}")
    except ArmoryError as error:
        console.warn(f"{declared.name}: not in the official wheel either: {error.args[0]}")
        return None
    return members if members.members else None


def _official(version: str) -> list[OfficialPin]:
    """The official wheels of a version, as far as the index can be asked."""
    found = []
    for machine in ("aarch64", "x86_64"):
        try:
            pin = official.pin(version, machine)
        except ArmoryError as error:
            console.warn(f"the official wheel for {machine} is not pinned: {error.args[0]}")
            continue
        if pin is not None:
            console.step("lock", f"{pin.wheel.filename}: RECORD {pin.record[:16]}")
            found.append(pin)
    return found


# -- torch ---------------------------------------------------------------------------------------


def _torch(pinned: str, known: versions.VersionFacts) -> list[TorchPin]:
    choices = [(pinned, known.torch_index), *((version, registry.PYPI) for version in known.alternatives)]
    pins = []
    for version, index in dict.fromkeys(choices):
        console.step("lock", f"torch {version} from {index}")
        cuda = _cuda_of_index(index)
        try:
            files = resolve.resolve([f"torch=={version}"], "torch-deps", known.pythons(), index=index)
        except (NetworkError, BadData) as error:
            console.warn(str(error.args[0]))
            pins.append(
                TorchPin(
                    version=version,
                    index=index,
                    cuda=cuda,
                    unresolved=f"when the lock was made: {error.args[0]}",
                )
            )
            continue
        torch = [_regroup(pin, "torch") for pin in files if pin.project == "torch"]
        others = [pin for pin in files if pin.project != "torch"]
        needs = sorted({f"{pin.project}=={pin.version}" for pin in others})
        toolkit = {pin.version for pin in others if pin.project in ("cuda-toolkit", "nvidia-cuda-runtime")}
        pins.append(
            TorchPin(
                version=version,
                index=index,
                cuda=cuda or ".".join(min(toolkit, default="").split(".")[:2]),
                files=[*torch, *others],
                requirements=needs,
            )
        )
    return pins


def _cuda_of_index(index: str) -> str:
    match = re.search(r"/cu(\d+)(\d)/?$", index)
    return f"{match.group(1)}.{match.group(2)}" if match else ""


def _regroup(pin: FilePin, group: str) -> FilePin:
    return msgspec.structs.replace(pin, group=group)


# -- for the front door --------------------------------------------------------------------------


def write_lock(tag: str, *, mirrors: Sequence[str], offline: bool, source: str) -> dict[str, Any]:
    """Make and write the lock of a tag; say what moved if there was one. Returns what ``--json`` prints."""
    if not tag and source in ("sdist", "git"):
        raise UsageError("./inv lock needs a tag", f"./inv lock --tag v{versions.facts().releases[-1]}")
    places = Places.from_environment()
    table = configured_mirrors(mirrors)
    own = None
    if source not in ("sdist", "git") or not is_release(tag):
        if source in ("sdist", "git"):
            checkout(tag, str(folder_of(tag, places)), places, mirrors=table, offline=offline)
        own = own_source(tag, source, places)
    before = load_lock(tag) if own is None and lock_path(tag).is_file() else None
    made = make_lock(tag, mirrors=table, offline=offline, places=places, source=source, own=own)
    if own:
        path = own_lock_path(own, places)
        made = msgspec.structs.replace(made, digest=digest_of(made))
        write_atomic(path, lock_text(made))
    else:
        path, made = save_lock(made)
        parts.remove_unused(path.parent)
    changes = diff_locks(before, made) if before else []
    console.say(
        f"{path}: {counted(len(made.trees), 'tree')}, torch {', '.join(pin.version for pin in made.torch)}, "
        f"{counted(len(made.wheels), 'wheel')}, digest {made.digest[:16]}"
    )
    if before:
        _print_changes(tag, changes)
    return {"path": str(path), "lock": msgspec.to_builtins(made), "changes": msgspec.to_builtins(changes)}


def show_diff(old: str, new: str) -> dict[str, Any]:
    """Print what moved from one tag's lock to another's. Returns what ``--json`` prints."""
    if not new:
        raise UsageError(f"--diff {old} needs a second tag", f"./inv lock --diff {old} --against TAG")
    changes = diff_locks(load_lock(old), load_lock(new))
    _print_changes(f"{old} -> {new}", changes)
    return {"from": old, "to": new, "changes": msgspec.to_builtins(changes)}


def _print_changes(title: str, changes: list[Change]) -> None:
    if not changes:
        console.say(f"{title}: nothing moved")
        return
    rows = [[change.what, change.before or "-", change.after or "-"] for change in changes]
    console.table(f"{title}: {counted(len(changes), 'change')}", ["what", "before", "after"], rows)
