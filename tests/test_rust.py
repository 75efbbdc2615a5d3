"""Rust for the device: the pinned toolchain, crates as folders, and a small program cross-compiled for real."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import platform
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_recipes.build.stages.rust import cargo, least
from build_recipes.formats.elf import mapped
from build_recipes.kit.errors import BadData, HashMismatch, OfflineError, ToolchainMismatch
from build_recipes.kit.host import Host
from build_recipes.kit.paths import Places
from build_recipes.sources import rust
from build_recipes.sources.library import Library
from build_recipes.sources.modules import Crate

MAIN = """fn main() {
    println!("{} {}", std::env::consts::ARCH, needed::VALUE);
    if std::env::args().count() > 1 { println!("{}", needed::place()); }
}
"""
LIB = "pub const VALUE: u32 = 42;\npub fn place() -> &'static str { file!() }\n"
MANIFEST = '[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n\n[features]\nsome = []\n'
PROGRAM = Crate("Cargo.toml", ("--bin", "small"), ("some",), program=True)


def crate(folder: Path) -> tuple[Path, str]:
    """A crate as the registry has it, and its SHA-256."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in (
            ("Cargo.toml", '[package]\nname = "needed"\nversion = "1.2.3"\nedition = "2021"\n'),
            ("src/lib.rs", LIB),
        ):
            entry = tarfile.TarInfo(f"needed-1.2.3/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    path = folder / "needed/needed-1.2.3.crate"
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    return path, hashlib.sha256(buffer.getvalue()).hexdigest()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry on loopback with one crate; its SHA-256."""
    (tmp_path / "registry").mkdir()
    _, digest = crate(tmp_path / "registry")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "registry"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(rust, "CRATES", f"http://127.0.0.1:{server.server_address[1]}")
        yield digest
        server.shutdown()


def source(folder: Path, digest: str) -> Path:
    """A small program that needs one crate."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.rs").write_text(MAIN)
    (folder / "Cargo.toml").write_text(MANIFEST + '\n[dependencies]\nneeded = "1.2"\n')
    (folder / "Cargo.lock").write_text(
        'version = 4\n\n[[package]]\nname = "needed"\nversion = "1.2.3"\n'
        f'source = "{rust.REGISTRY}"\nchecksum = "{digest}"\n\n'
        '[[package]]\nname = "small"\nversion = "0.1.0"\ndependencies = [\n "needed",\n]\n'
    )
    return folder


def test_crates_come_by_hash_and_are_kept(tmp_path: Path, registry: str) -> None:
    tree, downloads = source(tmp_path / "tree", registry), tmp_path / "downloads"
    library = Library(tmp_path / "git", {})
    config = rust.vendor(tree / "Cargo.lock", tmp_path / "crates", library, downloads)
    kept = tmp_path / "crates/crates/needed-1.2.3"
    assert (kept / "src/lib.rs").read_text() == LIB
    assert registry in (kept / ".cargo-checksum.json").read_text()
    assert 'replace-with = "armory"' in config.read_text()
    (tmp_path / "registry/needed/needed-1.2.3.crate").unlink()
    offline = Library(tmp_path / "git", {}, True)
    rust.vendor(tree / "Cargo.lock", tmp_path / "again", offline, downloads)  # from the cache
    with pytest.raises(OfflineError):
        rust.vendor(tree / "Cargo.lock", tmp_path / "third", offline, tmp_path / "nothing here")


def test_another_crate_than_the_lock_says_is_refused(tmp_path: Path, registry: str) -> None:
    tree = source(tmp_path / "tree", registry.replace(registry[0], "f" if registry[0] != "f" else "0", 1))
    with pytest.raises(HashMismatch):
        rust.vendor(
            tree / "Cargo.lock", tmp_path / "crates", Library(tmp_path / "git", {}), tmp_path / "downloads"
        )


def test_what_is_no_debian_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"PK\3\4 no package")
    with pytest.raises(BadData, match=r"a\.deb is no Debian package"):
        rust.unpack_deb(tmp_path / "a.deb", tmp_path)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="cross-compiling is from x86_64")
def test_a_program_is_compiled_for_the_device(tmp_path: Path, registry: str) -> None:
    """135 MB of Debian packages, by hash, once."""
    host = Host.this()
    if not host.distribution.startswith("debian 12") or not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("the pinned toolchain and the cross compiler are Debian 12's")
    places = Places.from_environment()
    chosen = rust.toolchain(places, "aarch64", "1.95", host)
    assert chosen.version == "1.96.0"

    def make(root: Path) -> Path:
        tree = source(root / "tree", registry)
        config = rust.vendor(
            tree / "Cargo.lock", root / "crates", Library(tmp_path / "git", {}), tmp_path / "got"
        )
        return cargo(
            chosen, tree / "Cargo.toml", PROGRAM, machine="aarch64", cross=True, config=config, into=root / "rust",
            log=root / "rust.log", variables={},
        )  # fmt: skip

    built = make(tmp_path)
    assert b"../crates/crates/needed-1.2.3/src/lib.rs" in built.read_bytes()
    assert make(tmp_path / "some/other/folder").read_bytes() == built.read_bytes()
    with mapped(built) as elf:
        assert elf.machine == "aarch64"
    if emulator := shutil.which("qemu-aarch64-static"):
        words = [emulator, "-L", "/usr/aarch64-linux-gnu", str(built)]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "aarch64 42\n"
    with pytest.raises(ToolchainMismatch, match=r"the pinned one is 1\.96, 9\.0 is needed"):
        rust.toolchain(places, "aarch64", "9.0", host)


def test_the_rust_that_a_tree_asks_for(tmp_path: Path) -> None:
    assert least(tmp_path) == ""
    (tmp_path / "rust-toolchain.toml").write_text('[toolchain]\nchannel = "1.95"\n')
    assert least(tmp_path) == "1.95"
