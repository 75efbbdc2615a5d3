"""All sources of a lock as one file, for a machine without a network.

A zstd tar of ``bundle.json``, ``lock.toml``, ``downloads/<sha256>/<name>`` and one git pack per repository
with only the pinned commits' objects, uncompressed and without deltas. The same lock and the same sources
make the same bytes. Nothing in a bundle is believed: files are hashed, git objects are named by their hash,
member paths are checked.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import git
import msgspec
import zstandard

from build_recipes.formats.archive import Entry, entries, unpack_sdist
from build_recipes.formats.bounds import BUNDLE
from build_recipes.kit.console import one_line
from build_recipes.kit.data import Model, parse_toml
from build_recipes.kit.errors import (
    DamagedArchive,
    HashMismatch,
    NetworkError,
    OfflineError,
    RevisionMissing,
    SourceIncomplete,
    UnsafeArchive,
)
from build_recipes.kit.paths import Places
from build_recipes.sources import official
from build_recipes.sources.download import fetch_files, path_of
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import FilePin, Lock, digest_of, lock_text
from build_recipes.sources.mirrors import key
from build_recipes.sources.modules import makeup
from build_recipes.sources.remote import held
from build_recipes.sources.repository import Repository, slug
from build_recipes.sources.submodules import submodules_of
from build_recipes.sources.wheel_members import member_files

_ADVICE = "do not use this bundle; make it again with ./inv mirror --tag T --to BUNDLE"


OFFICIAL = "the official wheel"
"""What a bundle lacks where its list of members, or a file to take from it, could not be fetched."""


class RepositoryEntry(Model, frozen=True):
    """A repository of a bundle."""

    url: str
    commits: list[str]


class Contents(Model, frozen=True):
    """bundle.json: what is in a bundle."""

    tag: str
    digest: str
    """Of the lock."""
    repositories: list[RepositoryEntry]
    files: list[str]
    """``<sha256>/<name>``"""
    missing: dict[str, str]
    """Trees that could not be fetched when it was made, and why; also `OFFICIAL`."""


class Gathered(Model, frozen=True):
    """All sources of a lock on this machine."""

    files: dict[str, Path]
    """``<sha256>/<name>`` to path."""
    commits: dict[str, list[tuple[Repository, str]]]
    """Repository `slug` to where its pinned commits are."""
    missing: dict[str, str]


def gather(
    lock: Lock,
    library: Library,
    places: Places,
    wheels: list[FilePin],
    machines: Iterable[str] = ("aarch64",),
) -> Gathered:
    """Bring every source of a lock, and the given wheels, onto this machine; one that cannot be fetched is listed.

    :param machines: CPUs of the devices that are built for: what their wheels take from the official one is a source.
    """
    pins = [*([lock.vllm.sdist] if lock.vllm.sdist else []), *wheels]
    paths = list(fetch_files(pins, places.downloads, offline=library.offline).values())
    commits: dict[str, list[tuple[Repository, str]]] = {}
    missing: dict[str, str] = {}
    for tree in lock.trees:
        try:
            if not tree.commit:
                if tree.from_wheel is None:
                    raise SourceIncomplete(tree.unresolved, "")
                paths += member_files(tree.from_wheel, places.downloads, offline=library.offline).values()
                continue
            root = library.with_commit(tree.repository, tree.commit, tree.revision)
            found = [(root, tree.commit)]
            submodules = submodules_of(root, tree.commit) if tree.unresolved else tree.submodules
            for sub in submodules:
                if not sub.skip:
                    found.append((library.with_commit(sub.repository, sub.commit), sub.commit))
        except (NetworkError, OfflineError, RevisionMissing, SourceIncomplete) as error:
            missing[tree.name] = str(error.args[0])
            continue
        for repository, commit in found:
            commits.setdefault(slug(repository.url), []).append((repository, commit))
    try:
        paths += _of_official(lock, library, places, missing, machines)
    except (NetworkError, OfflineError) as error:
        missing[OFFICIAL] = str(error.args[0])
    files = {f"{path.parent.name}/{path.name}": path for path in paths}
    return Gathered(files=files, commits=commits, missing=missing)


def _of_official(
    lock: Lock, library: Library, places: Places, missing: Collection[str], machines: Iterable[str]
) -> list[Path]:
    """The official wheel's RECORD, which a wheel is compared with, and its files that a build may take (`official`)."""
    pins = {machine: pin for machine in machines if (pin := official.of(lock.official, machine)) is not None}
    if lock.vllm.sdist is None or not pins:
        return []
    found: list[Path] = []
    with tempfile.TemporaryDirectory() as scratch:
        tag = makeup(unpack_sdist(path_of(lock.vllm.sdist, places.downloads), Path(scratch) / "vllm"))
    for machine, pin in pins.items():
        rows = official.record(pin, places.downloads, offline=library.offline)
        names = official.wanted(tag, pin, rows, missing, machine)
        found += official.take(pin, names, places.downloads, offline=library.offline).values()
        found.append(official.record_path(pin, places.downloads))
    return found


# -- packing -------------------------------------------------------------------------------------


def pack(lock: Lock, gathered: Gathered, to: Path) -> Contents:
    """Write a bundle, whole or not at all."""
    repositories = []
    for name in sorted(gathered.commits):
        entries = gathered.commits[name]
        url = f"https://{key(entries[0][0].url)}" if "://" in entries[0][0].url else entries[0][0].url
        repositories.append(RepositoryEntry(url=url, commits=sorted({commit for _, commit in entries})))
    contents = Contents(
        tag=lock.tag,
        digest=lock.digest,
        repositories=repositories,
        files=sorted(gathered.files),
        missing=gathered.missing,
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    beside = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        with beside.open("wb") as sink, _compressed(sink) as stream, _plain_tar(stream) as tar:
            _add(tar, "bundle.json", msgspec.json.format(msgspec.json.encode(contents), indent=1))
            _add(tar, "lock.toml", lock_text(lock).encode())
            for name in sorted(gathered.files):
                _add_file(tar, f"downloads/{name}", gathered.files[name])
            for name in sorted(gathered.commits):
                with tempfile.NamedTemporaryFile(dir=to.parent, prefix=".pack.") as packed:
                    _pack_objects(gathered.commits[name], packed.file)
                    _add_file(tar, f"git/{name}.pack", Path(packed.name))
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        beside.replace(to)
    finally:
        beside.unlink(missing_ok=True)
    return contents


@contextmanager
def _compressed(sink: IO[bytes]) -> Iterator[IO[bytes]]:
    # a window of 128 MiB (the most that readers take unasked): trees share whole files, megabytes apart
    settings = zstandard.ZstdCompressionParameters.from_level(12, window_log=27, enable_ldm=True)
    with zstandard.ZstdCompressor(compression_params=settings).stream_writer(sink, closefd=False) as stream:
        yield stream


@contextmanager
def _plain_tar(stream: IO[bytes]) -> Iterator[tarfile.TarFile]:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        yield tar


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # owner, group and time are 0: the same content makes the same bytes
    member.size, member.mode = size, 0o644
    return member


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as stream:
        tar.addfile(_member(name, path.stat().st_size), stream)


def _pack_objects(entries: list[tuple[Repository, str]], sink: IO[bytes]) -> None:
    """One git pack with every object of the commits: they may lie in different repositories."""
    wanted: dict[str, Repository] = {}
    for repository, commit in sorted(entries, key=lambda entry: entry[1]):
        for oid in repository.objects(commit):
            wanted.setdefault(oid, repository)
    stores = list(dict.fromkeys(str(repository.git_dir) for repository in wanted.values()))
    first = next(iter(wanted.values()))
    # objects of the other repositories are seen through GIT_ALTERNATE_OBJECT_DIRECTORIES
    others = os.pathsep.join(f"{store}/objects" for store in stores if store != str(first.git_dir))
    first.git(
        "-c", "pack.compression=0", "-c", "pack.threads=1", "pack-objects", "--stdout", "--quiet",
        "--window=0", "--no-reuse-object", "--no-reuse-delta",
        given="\n".join(sorted(wanted)) + "\n", alternates=others, output_stream=sink,
    )  # fmt: skip
    sink.flush()


# -- unpacking -----------------------------------------------------------------------------------


def unpack(bundle: Path, places: Places) -> tuple[Lock, Contents]:
    """Bring everything in a bundle into the cache. Needs no network.

    :returns: the lock that came with it (not written anywhere) and the table of contents.
    :raises UnsafeArchive: no bundle, damaged, or a member that does not belong.
    :raises HashMismatch: a file, or the lock, is not what its name says.
    :raises RevisionMissing: a pack lacks a commit it should hold.
    """
    documents: dict[str, bytes] = {}
    repositories: dict[str, RepositoryEntry] = {}
    if not bundle.exists():
        raise UnsafeArchive(f"{bundle} is not there", "./inv mirror --from BUNDLE")
    try:
        for entry in entries(bundle, BUNDLE):
            name, parts = entry.path.as_posix(), entry.path.parts
            if entry.kind == "file" and name in ("bundle.json", "lock.toml"):
                documents[name] = entry.read()
                if name == "bundle.json":
                    listed = msgspec.json.decode(documents[name], type=Contents)
                    repositories = {slug(known.url): known for known in listed.repositories}
            elif entry.kind == "file" and parts[0] == "downloads" and len(parts) == 3:
                _keep_file(entry, parts[1], parts[2], places.downloads)
            elif (
                entry.kind == "file"
                and parts[0] == "git"
                and entry.path.stem in repositories
                and len(parts) == 2
            ):
                _keep_pack(entry, repositories[entry.path.stem], places)
            else:
                raise UnsafeArchive(f"{bundle.name}: '{one_line(name)}' does not belong there", _ADVICE)
        contents = msgspec.json.decode(documents["bundle.json"], type=Contents)
        lock = msgspec.convert(parse_toml(documents["lock.toml"].decode()), Lock)
    except (DamagedArchive, msgspec.MsgspecError, KeyError, ValueError, RecursionError) as error:
        why = error.args[0] if isinstance(error, DamagedArchive) else error
        raise DamagedArchive(f"{bundle} is not a bundle, or damaged: {why}", _ADVICE) from error
    if digest_of(lock) != lock.digest or lock.digest != contents.digest:
        raise HashMismatch(f"the lock in {bundle.name} was changed after it was made", _ADVICE)
    return lock, contents


def _keep_file(entry: Entry, digest: str, name: str, downloads: Path) -> None:
    folder = downloads / digest
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{name}.{os.getpid()}"
    seen = hashlib.sha256()
    try:
        with beside.open("wb") as sink:
            for block in entry.pieces():
                seen.update(block)
                sink.write(block)
        if seen.hexdigest() != digest:
            raise HashMismatch(f"{name} in the bundle has SHA-256 {seen.hexdigest()}, not {digest}", _ADVICE)
        beside.replace(folder / name)
    finally:
        beside.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _keep_pack(packed: Entry, entry: RepositoryEntry, places: Places) -> None:
    own = Library(places.git, {}).own(entry.url)
    with held(own.git_dir), tempfile.TemporaryFile(dir=places.git) as stream:
        for block in packed.pieces():
            stream.write(block)
        stream.seek(0)
        try:
            own.git("index-pack", "--stdin", istream=stream)  # names every object by its own hash
        except git.GitCommandError as error:
            raise UnsafeArchive(f"the pack of {entry.url} is damaged", _ADVICE) from error
        shallow = own.git_dir / "shallow"
        known = set(shallow.read_text().split()) if shallow.exists() else set()
        for commit in entry.commits:
            if not own.has(commit):
                raise RevisionMissing(f"the bundle's pack of {entry.url} lacks {commit}", _ADVICE)
            known.add(commit)  # its parents are not there
        shallow.write_text("".join(f"{commit}\n" for commit in sorted(known)))
        for commit in entry.commits:
            own.git("update-ref", f"refs/armory/{commit}", commit)
