"""A lock: everything a build of one tag reads, by commit and by hash.

Locks are generated (``./inv lock``), kept as TOML in build_recipes/locks, and carry the SHA-256 of their
own content, so that an edit by hand is noticed. What many have in common is kept once (`parts`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from build_recipes.facts import versions
from build_recipes.kit import paths
from build_recipes.kit.console import counted
from build_recipes.kit.data import Model, load_toml, write_atomic
from build_recipes.kit.errors import LockEdited, LockMissing
from build_recipes.sources import parts

SCHEMA = 1


class FilePin(Model, frozen=True, kw_only=True):
    """One file of a package index."""

    project: str
    """Normalised project name."""
    version: str
    filename: str
    url: str
    sha256: str
    size: int
    """Bytes."""
    group: str
    """``source``, ``torch``, ``torch-deps``, ``cuda`` or ``build``."""


class MemberPin(Model, frozen=True, kw_only=True):
    """One file inside a wheel."""

    path: str
    """Relative to `WheelMembers.inner`."""
    sha256: str
    size: int


class WheelMembers(Model, frozen=True, kw_only=True):
    """Files of a wheel that can stand in for a source tree, each with its own hash."""

    wheel: FilePin
    inner: str
    """Folder inside the wheel."""
    members: list[MemberPin]


class SubmodulePin(Model, frozen=True, kw_only=True):
    """A submodule of an external tree, as the gitlink of the pinned commit has it."""

    path: str
    repository: str
    commit: str
    skip: str = ""
    """Why the build does not need it; empty where it does."""


class TreePin(Model, frozen=True, kw_only=True):
    """An external source tree that vLLM's CMake would fetch."""

    name: str
    """Name of the FetchContent declaration."""
    repository: str
    revision: str
    """GIT_TAG as the CMake file has it: a commit, a tag or a branch."""
    commit: str = ""
    """Full commit; empty where it could not be resolved (`unresolved` says why)."""
    variable: str = ""
    """Variable that points CMake to a local tree instead (``VLLM_CUTLASS_SRC_DIR``)."""
    subdir: str = ""
    """Folder of the repository that the variable must name; empty for its root."""
    declared_in: str
    """CMake file and line of the declaration."""
    submodules: list[SubmodulePin] = msgspec.field(default_factory=list)
    unresolved: str = ""
    """What could not be found out, and why; empty where all is pinned."""
    from_wheel: WheelMembers | None = None
    """The same files in a wheel, where the repository cannot be fetched."""
    users: list[str] = msgspec.field(default_factory=list)
    """Targets of the modules that are made from it, as the tag's setup.py and CMake have it."""


class TorchPin(Model, frozen=True, kw_only=True):
    """One torch this tag can be built against."""

    version: str
    index: str
    cuda: str = ""
    """CUDA version of its Linux wheels; empty where they have none."""
    files: list[FilePin] = msgspec.field(default_factory=list)
    """Groups ``torch`` and ``torch-deps``."""
    requirements: list[str] = msgspec.field(default_factory=list)
    """What it requires, resolved: ``project==version``."""
    unresolved: str = ""
    """Why `files` is empty; empty where it is not."""


class VllmPin(Model, frozen=True, kw_only=True):
    """vLLM itself."""

    repository: str
    commit: str = ""
    """40 digits from git, or the short commit that the source distribution records; empty for a folder without."""
    commit_from: str
    """``git`` or ``sdist``: where the commit was read; ``folder`` and its state for a source of one's own."""
    sdist: FilePin | None = None


class CargoPin(Model, frozen=True, kw_only=True):
    """A Cargo.lock of the tree: its hash pins every crate."""

    path: str
    sha256: str
    crates: int


class OfficialPin(Model, frozen=True, kw_only=True):
    """The official wheel of the tag: what a whole wheel is compared with."""

    machine: str
    """``aarch64`` or ``x86_64``."""
    wheel: FilePin
    record: str
    """SHA-256 of its RECORD, which pins every member."""


class Lock(Model, frozen=True, kw_only=True):
    """Everything a build of one tag reads."""

    schema: int = SCHEMA
    tag: str
    version: str
    vllm: VllmPin
    trees: list[TreePin]
    torch: list[TorchPin]
    """In order of preference."""
    cargo: list[CargoPin] = msgspec.field(default_factory=list)
    wheels: list[FilePin]
    """Groups ``cuda`` and ``build``."""
    official: list[OfficialPin] = msgspec.field(default_factory=list)
    """One for each CPU that the index has a wheel for."""
    digest: str = ""
    """SHA-256 of all of the above."""

    def tree(self, name: str) -> TreePin:
        """The tree called ``name``. Raises `KeyError`."""
        for tree in self.trees:
            if tree.name == name:
                return tree
        raise KeyError(name)

    def torch_pin(self, version: str | None = None) -> TorchPin:
        """The torch of that version, or the first one whose files are known. Raises `KeyError`."""
        for pin in self.torch:
            if pin.version == version or (version is None and pin.files):
                return pin
        raise KeyError(version or "any torch with files")

    def files(self) -> Iterator[FilePin]:
        """Every file pin of the lock."""
        if self.vllm.sdist:
            yield self.vllm.sdist
        for pin in self.torch:
            yield from pin.files
        yield from self.wheels


def digest_of(lock: Lock) -> str:
    """SHA-256 of a lock's content without its digest, independent of how the TOML is laid out."""
    text = msgspec.json.encode(msgspec.structs.replace(lock, digest=""), order="deterministic")
    for name, there in (("official", lock.official), ("users", any(tree.users for tree in lock.trees))):
        if not there:  # locks that were made before there was such a field keep their digest
            text = re.sub(rb',"%b":\[\]|"%b":\[\],' % (name.encode(), name.encode()), b"", text)
    return hashlib.sha256(text).hexdigest()


def lock_path(tag: str, folder: Path | None = None) -> Path:
    """Where the lock of ``tag`` is read: in ``folder``, else where one is; else where it would be written."""
    folders = [folder] if folder else paths.lock_folders()
    return next(
        (path for place in folders if (path := place / f"{tag}.toml").exists()), folders[0] / f"{tag}.toml"
    )


def load_lock(tag: str, folder: Path | None = None) -> Lock:
    """Read the lock of a tag.

    :raises NotATag: ``tag`` is a branch or a commit.
    :raises UnknownTag: no such release; the nearest are named.
    :raises LockMissing: a release whose lock is not there.
    :raises LockEdited: the content is not what its digest says.
    """
    path = lock_path(versions_tag(tag), folder)
    if not path.exists():
        versions.check_known(tag)
        folders = [folder] if folder else paths.lock_folders()
        here = ", ".join(sorted({file.stem for place in folders for file in place.glob("v*.toml")})) or "none"
        raise LockMissing(
            f"there is no lock for {tag} (locks here: {here})",
            f"make one (needs the network): ./inv lock --tag {tag}",
        )
    lock = load_toml(
        path,
        Lock,
        hint=f"make it again: ./inv lock --tag {tag}",
        prepare=lambda plain: parts.put_back(plain, path.parent),
    )
    if lock.schema != SCHEMA:
        raise LockEdited(
            f"{path} has schema {lock.schema}, this program reads {SCHEMA}", f"./inv lock --tag {tag}"
        )
    if digest_of(lock) != lock.digest or lock.tag != tag:
        raise LockEdited(
            f"{path} was changed after it was made: its digest does not match its content",
            f"git checkout {path}, or make it again: ./inv lock --tag {tag}",
        )
    return lock


def versions_tag(tag: str) -> str:
    """``tag`` itself, once it is known to look like a release tag. Raises `NotATag`."""
    versions.version_of(tag)
    return tag


def save_lock(lock: Lock, folder: Path | None = None) -> tuple[Path, Lock]:
    """Seal a lock with its digest and write it, and its parts. Returns the path and the sealed lock."""
    sealed = msgspec.structs.replace(lock, digest=digest_of(lock))
    path = (folder or paths.lock_folders()[0]) / f"{lock.tag}.toml"
    write_atomic(path, lock_text(sealed, path.parent))
    return path, sealed


def lock_text(lock: Lock, parts_in: Path | None = None) -> str:
    """A lock as TOML.

    :param parts_in: folder that keeps what locks have in common; the text is whole where it is None.
    """
    plain: dict[str, Any] = _without_empty(msgspec.to_builtins(lock))
    if parts_in is not None:
        plain = parts.take_out(plain, parts_in)
    head = f"# Made by `invoke lock --tag {lock.tag}`; do not edit: the digest would not match.\n"
    return head + tomli_w.dumps(plain)


def _without_empty(value: Any) -> Any:
    """Leave out what the models default to (TOML has no null)."""
    if isinstance(value, dict):
        return {k: _without_empty(v) for k, v in value.items() if v is not None and v not in ("", [])} | {
            k: v for k, v in value.items() if k in ("trees", "torch", "wheels") and v == []
        }
    if isinstance(value, list):
        return [_without_empty(entry) for entry in value]
    return value


# -- choosing wheels -----------------------------------------------------------------------------


def tags_for(machine: str, python: tuple[int, int], glibc: tuple[int, int]) -> dict[Tag, int]:
    """Compatible wheel tags of a Linux machine, with their rank (0 is best)."""
    oldest = 5 if machine == "x86_64" else 17
    platforms: list[str] = []
    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    for minor in range(glibc[1], oldest - 1, -1):
        platforms.append(f"manylinux_{glibc[0]}_{minor}_{machine}")
        if minor in legacy:
            platforms.append(f"{legacy[minor]}_{machine}")
    platforms.append(f"linux_{machine}")
    short = f"cp{python[0]}{python[1]}"
    ordered = [
        *cpython_tags(python, abis=[short], platforms=platforms),
        *compatible_tags(python, interpreter=short, platforms=platforms),
    ]
    ranks: dict[Tag, int] = {}
    for tag in ordered:
        ranks.setdefault(tag, len(ranks))
    return ranks


def pick_wheels(
    lock: Lock,
    group: str,
    *,
    machine: str,
    python: tuple[int, int],
    glibc: tuple[int, int],
    torch: str | None = None,
) -> list[FilePin]:
    """The best compatible wheel of each project of a group.

    :param machine: ``aarch64`` or ``x86_64``.
    :param glibc: of the machine that will load it.
    :param torch: which torch of the lock; the first with files where it is None.
    :returns: sorted by project. A project with no compatible wheel is left out: the group's list is the
        union over machines and Pythons.
    """
    pool = lock.torch_pin(torch).files if group.startswith("torch") else lock.wheels
    return best_wheels([pin for pin in pool if pin.group == group], tags_for(machine, python, glibc))


def best_wheels(pins: Sequence[FilePin], ranks: dict[Tag, int]) -> list[FilePin]:
    """Of each project the newest version with a compatible wheel, and of that the best ranked wheel."""
    best: dict[str, tuple[tuple[Version, int], FilePin]] = {}
    for pin in pins:
        if not pin.filename.endswith(".whl"):
            continue
        rank = min(
            (ranks[tag] for tag in parse_wheel_filename(pin.filename)[3] if tag in ranks), default=None
        )
        if rank is None:
            continue
        key = (Version(pin.version), -rank)
        if pin.project not in best or key > best[pin.project][0]:
            best[pin.project] = (key, pin)
    return [best[project][1] for project in sorted(best)]


# -- what moved ----------------------------------------------------------------------------------


class Change(Model, frozen=True, kw_only=True):
    """One difference between two locks."""

    what: str
    before: str
    after: str


def diff_locks(a: Lock, b: Lock) -> list[Change]:
    """What moved from ``a`` to ``b``: vLLM, trees, submodules, torch, wheels. Empty where nothing did."""
    old, new = _flat(a), _flat(b)
    return [
        Change(what=key, before=old.get(key, ""), after=new.get(key, ""))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(lock: Lock) -> dict[str, str]:
    flat = {"vllm": f"{lock.version} {lock.vllm.commit}"}
    if lock.vllm.sdist:
        flat["vllm sdist"] = lock.vllm.sdist.sha256
    for tree in lock.trees:
        commit = tree.commit or "unresolved"
        flat[f"tree {tree.name}"] = commit if commit == tree.revision else f"{tree.revision} ({commit})"
        flat[f"tree {tree.name} repository"] = tree.repository
        flat[f"tree {tree.name} variable"] = tree.variable
        for sub in tree.submodules:
            skipped = " (skipped)" if sub.skip else ""
            flat[f"tree {tree.name} submodule {sub.path}"] = f"{sub.repository} {sub.commit}{skipped}"
    for place, pin in enumerate(lock.torch):
        flat[f"torch choice {place + 1}"] = f"{pin.version} from {pin.index}"
    for official in lock.official:
        flat[f"official wheel {official.machine}"] = f"{official.wheel.filename} {official.wheel.sha256[:12]}"
    for cargo in lock.cargo:
        flat[f"crates {cargo.path}"] = f"{cargo.crates} crates {cargo.sha256}"
    names: dict[str, set[str]] = {}
    hashes: dict[str, set[str]] = {}
    for file in lock.files():
        if file.group != "source":
            key = f"{file.group} {canonicalize_name(file.project)}"
            names.setdefault(key, set()).add(file.version)
            hashes.setdefault(key, set()).add(file.sha256)
    for key, found in names.items():
        seal = hashlib.sha256("".join(sorted(hashes[key])).encode()).hexdigest()[:12]
        flat[key] = f"{', '.join(sorted(found))} ({counted(len(hashes[key]), 'file')}, {seal})"
    return flat
