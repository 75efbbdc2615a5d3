"""Rust for the programs of vLLM: a toolchain by hash, and every crate of a Cargo.lock as a folder.

Crates of the registry are pinned by the SHA-256 in Cargo.lock, git crates by their commit; cargo is then run without a
network. ``vllm-rs`` came with 0.22.0: 609 crates at 0.26.0, two of them from GitHub.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import tomli_w

from build_recipes.formats.archive import unpack
from build_recipes.kit import process
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import BadData, ToolchainMismatch, ToolFailed
from build_recipes.kit.host import Host
from build_recipes.kit.once import filled
from build_recipes.kit.paths import Places
from build_recipes.sources.download import cached, fetch_files
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import FilePin
from build_recipes.sources.registry import content_length
from build_recipes.sources.repository import export_tree

CRATES = "https://static.crates.io/crates"
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


class _Deb(Model, frozen=True):
    url: str
    sha256: str
    size: int
    """Bytes."""


class _Table(Model, frozen=True):
    version: str
    host: str
    deb: list[_Deb]


@dataclass(frozen=True)
class Toolchain:
    """A cargo and rustc that can compile for the device."""

    cargo: Path
    rustc: Path
    libraries: Path | None
    """What LD_LIBRARY_PATH must name for them; None where nothing."""
    version: str

    def environment(self) -> dict[str, str]:
        """Variables that both need."""
        search = [str(self.libraries)] if self.libraries else []
        own = os.environ.get("LD_LIBRARY_PATH", "")
        return {"RUSTC": str(self.rustc), "LD_LIBRARY_PATH": os.pathsep.join([*search, *filter(None, [own])])}


@functools.cache
def _table() -> _Table:
    return load_toml(Path(__file__).with_name("rust.toml"), _Table)


def triple(machine: str) -> str:
    """Rust's name of a machine: ``aarch64-unknown-linux-gnu``."""
    return f"{machine}-unknown-linux-gnu"


def toolchain(places: Places, machine: str, least: str, host: Host, *, offline: bool = False) -> Toolchain:
    """The pinned toolchain where it runs, else the cargo of PATH if it can compile for the machine.

    :param least: oldest version of Rust that will do, ``1.95``.
    :raises ToolchainMismatch: there is neither.
    :raises NetworkError: the pinned one cannot be fetched.
    """
    wrong = []
    if host.machine == _table().host and host.distribution.startswith("debian 12"):
        root = _pinned(places, offline)
        found = Toolchain(
            root / "usr/bin/cargo",
            root / "usr/bin/rustc",
            root / "usr/lib/x86_64-linux-gnu",
            _table().version,
        )
        if not (why := _unfit(found, machine, least)):
            return found
        wrong.append(f"the pinned one {why}")
    cargo, rustc = shutil.which("cargo"), shutil.which("rustc")
    if cargo and rustc:
        found = Toolchain(Path(cargo), Path(rustc), None, "")
        if not (why := _unfit(found, machine, least)):
            return found
        wrong.append(f"{rustc} {why}")
    raise ToolchainMismatch(
        f"no Rust for {machine} here" + (f": {'; '.join(wrong)}" if wrong else ""),
        f"rustup target add {triple(machine)}, with Rust {least} or newer",
    )


def _unfit(found: Toolchain, machine: str, least: str) -> str:
    """Why a toolchain will not do; empty where it will."""
    try:
        environment = process.child_environment() | found.environment()
        said = process.capture([found.rustc, "-vV"], env=environment)
        place = process.capture(
            [found.rustc, "--print", "target-libdir", "--target", triple(machine)], env=environment
        )
    except ToolFailed as error:
        return f"does not run: {error.words[-200:]}"
    release = re.search(r"^release: (\d+)\.(\d+)", said, re.MULTILINE)
    if release is None or (int(release[1]), int(release[2])) < tuple(map(int, least.split(".")[:2])):
        return f"is {release[0].removeprefix('release: ') if release else 'of no known version'}, {least} is needed"
    if not any(Path(place.strip()).glob("libstd-*.rlib")):
        return f"has no standard library for {machine}"
    return ""


def _pinned(places: Places, offline: bool) -> Path:
    pins = [
        FilePin(
            project="rust", version=_table().version, filename=deb.url.rpartition("/")[2], url=deb.url,
            sha256=deb.sha256, size=deb.size, group="source",
        )
        for deb in _table().deb
    ]  # fmt: skip
    files = fetch_files(pins, places.downloads, offline=offline)

    def fill(folder: Path) -> None:
        for pin in pins:
            unpack_deb(files[pin.filename], folder)

    root = places.cache / "toolkits" / f"rust-{_table().version}"
    root.parent.mkdir(parents=True, exist_ok=True)
    return filled(root, fill)


def unpack_deb(package: Path, into: Path) -> None:
    """The files of a Debian package below ``usr/``.

    :raises BadData: it is none.
    """
    with package.open("rb") as stream, tempfile.TemporaryDirectory(prefix="armory-deb-") as scratch:
        if stream.read(8) != b"!<arch>\n":
            raise BadData(f"{package} is no Debian package", "fetch it again")
        while header := stream.read(60):
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
            if name.startswith("data.tar"):
                data = Path(scratch) / name
                with data.open("wb") as sink:
                    shutil.copyfileobj(_Slice(stream, size), sink)
                unpack(data, into, lambda path: path.startswith("usr/") and "/share/" not in path)
                return
            stream.seek(size + size % 2, os.SEEK_CUR)
    raise BadData(f"{package} holds no files", "fetch it again")


class _Slice:
    """The next bytes of a stream as a stream."""

    def __init__(self, stream: object, left: int) -> None:
        self.stream, self.left = stream, left

    def read(self, count: int = -1) -> bytes:
        taken: bytes = self.stream.read(min(count if count > 0 else self.left, self.left))  # type: ignore[attr-defined]
        self.left -= len(taken)
        return taken


# -- crates --------------------------------------------------------------------------------------


class Crate(msgspec.Struct, frozen=True):
    """A crate of a Cargo.lock. Names become folders, so they are held to what cargo itself takes."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    version: Annotated[str, msgspec.Meta(pattern=r"^\d[0-9A-Za-z.+-]{0,100}$")]
    source: str = ""
    """`REGISTRY`, ``git+URL?...#COMMIT``, or empty for one of the workspace's own."""
    checksum: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256; empty where the source is no registry."""


class _CargoLock(msgspec.Struct, frozen=True):
    package: list[Crate] = []


def crates_of(lock: Path) -> list[Crate]:
    """The crates of a Cargo.lock.

    :raises BadData: it is none, or a crate comes from elsewhere than crates.io or a commit of a git repository.
    """
    found = load_toml(
        lock, _CargoLock, "it comes with the sources: take another release, or correct it there"
    ).package
    for one in found:
        pinned = (
            one.checksum
            if one.source == REGISTRY
            else re.match(r"git\+https://[^#]+#[0-9a-f]{40}$", one.source)
        )
        if one.source and not pinned:
            raise BadData(
                f"{lock}: {one.name} {one.version} is not pinned: {one.source[:200]}", "look at that file"
            )
    return found


def vendor(lock: Path, into: Path, library: Library, downloads: Path) -> Path:
    """Every crate of a Cargo.lock as a folder, and cargo's configuration that names them.

    :returns: the configuration, for ``cargo --config``.
    :raises NetworkError: and `OfflineError`, `RevisionMissing`: a crate cannot be fetched.
    :raises HashMismatch: a crate is not what Cargo.lock says.
    """
    ours = [one for one in crates_of(lock) if one.source]
    pins = _pins([one for one in ours if one.source == REGISTRY], downloads, library.offline)
    files = fetch_files(list(pins.values()), downloads, offline=library.offline)
    sources: dict[str, dict[str, str]] = {"armory": {"directory": str(into / "crates")}}
    sources["crates-io"] = {"replace-with": "armory"}

    def fill(folder: Path) -> None:
        for one in ours:
            target = folder / "crates" / f"{one.name}-{one.version}"
            if one.source == REGISTRY:
                target.mkdir(parents=True, exist_ok=True)
                unpack(files[pins[one.checksum].filename], target, top=True)
            elif not target.exists():
                url, _, commit = one.source.removeprefix("git+").partition("#")
                address = url.partition("?")[0]
                export_tree([("", library.with_commit(address, commit), commit, "")], target)
            sums: dict[str, object] = {"files": {}, "package": one.checksum or None}
            (target / ".cargo-checksum.json").write_bytes(msgspec.json.encode(sums))

    filled(into, fill)
    for one in ours:
        if one.source.startswith("git+"):
            sources[one.source.partition("#")[0]] = _git_source(one.source)
    config = into.with_name(f"{into.name}.config.toml")
    config.write_text(tomli_w.dumps({"source": sources, "net": {"offline": True}}), encoding="utf-8")
    return config


def _git_source(text: str) -> dict[str, str]:
    """A git source of Cargo.lock as the configuration names it, replaced by the folder."""
    url, _, query = text.removeprefix("git+").partition("#")[0].partition("?")
    return {"git": url, **dict([query.split("=", 1)] if "=" in query else []), "replace-with": "armory"}


def _pins(crates: list[Crate], downloads: Path, offline: bool) -> dict[str, FilePin]:
    """A pin for each crate, by checksum; sizes are asked of the registry, for those that are not here yet."""

    def pin(one: Crate) -> FilePin:
        name = f"{one.name}-{one.version}.crate"
        known = FilePin(
            project=one.name, version=one.version, filename=name, sha256=one.checksum, size=0,
            url=f"{CRATES}/{one.name}/{name}", group="source",
        )  # fmt: skip
        here = cached(known, downloads)
        size = here.stat().st_size if here else 0 if offline else content_length(known.url)
        return msgspec.structs.replace(known, size=size)

    if not crates:
        return {}
    first = pin(crates[0])  # one question first: an index that cannot be reached is asked once, not 600 times
    with ThreadPoolExecutor(8) as pool:
        return {one.sha256: one for one in [first, *pool.map(pin, crates[1:])]}
