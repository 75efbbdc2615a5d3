"""Downloads: resumed after cuts, checked by hash, nothing wrong ever left under a right name."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from sources_help import Server, serve

from build_recipes.kit import paths
from build_recipes.kit.errors import HashMismatch, NetworkError, OfflineError
from build_recipes.kit.http import ATTEMPTS
from build_recipes.sources import download
from build_recipes.sources.download import cached, fetch_files, path_of

CONTENT = random.Random(7).randbytes(900_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "backoff", lambda attempt: 0.01 * attempt)


def test_a_cut_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT}, cut_after=300_000, cuts=2)) as server:
        found = fetch_files([server.pin("a.whl")], tmp_path)
    assert found["a.whl"].read_bytes() == CONTENT
    starts = [int(wanted.removeprefix("bytes=").rstrip("-") or 0) for _, wanted in server.seen]
    assert len(starts) == 3
    assert starts[0] == 0 < starts[1] < starts[2], "each request goes on behind the last"
    assert not list(tmp_path.rglob("*.part"))


def test_what_a_killed_run_left_is_used(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT})) as server:
        pin = server.pin("a.whl")
        part = path_of(pin, tmp_path).with_name("a.whl.part")
        part.parent.mkdir(parents=True)
        part.write_bytes(CONTENT[:500_000])
        fetch_files([pin], tmp_path)
    assert server.seen == [("a.whl", "bytes=500000-")]


def test_more_cuts_than_attempts_are_fine_while_bytes_arrive(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT}, cut_after=60_000, cuts=-1)) as server:
        fetch_files([server.pin("a.whl")], tmp_path)
    assert len(server.seen) > ATTEMPTS


def test_a_server_that_cannot_resume_starts_again(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT}, cut_after=300_000, cuts=1, ranges=False)) as server:
        found = fetch_files([server.pin("a.whl")], tmp_path)
    assert found["a.whl"].read_bytes() == CONTENT


def test_a_connection_that_never_brings_a_byte_ends_and_keeps_the_part(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT}, statuses=[503] * 50)) as server:
        pin = server.pin("a.whl")
        part = path_of(pin, tmp_path).with_name("a.whl.part")
        part.parent.mkdir(parents=True)
        part.write_bytes(CONTENT[:1000])
        with pytest.raises(NetworkError, match="1000 of 900000 bytes") as caught:
            fetch_files([pin], tmp_path)
        assert "goes on from here" in caught.value.advice
        assert part.stat().st_size == 1000
        server.statuses.clear()
        assert fetch_files([pin], tmp_path)["a.whl"].read_bytes() == CONTENT


def test_a_wrong_file_is_removed_and_named(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT})) as server:
        pin = server.pin("a.whl", sha256="0" * 64)
        with pytest.raises(HashMismatch, match="the lock says 0000"):
            fetch_files([pin], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT})) as server, pytest.raises(HashMismatch, match="longer"):
        fetch_files([server.pin("a.whl", size=1000)], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_that_is_gone_is_not_asked_for_again(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT})) as server:
        pin = server.pin("a.whl", url=f"{server.url}/other.whl")
        with pytest.raises(NetworkError, match="404"):
            fetch_files([pin], tmp_path)
        assert len(server.seen) == 1


def test_offline_names_what_is_missing_and_asks_nothing(tmp_path: Path) -> None:
    with serve(Server({"a.whl": CONTENT, "b.whl": b"b"})) as server:
        fetch_files([server.pin("b.whl")], tmp_path)
        server.seen.clear()
        assert fetch_files([server.pin("b.whl")], tmp_path, offline=True)["b.whl"].read_bytes() == b"b"
        with pytest.raises(OfflineError, match=r"1 file \(900 kB\).*a\.whl"):
            fetch_files([server.pin("a.whl"), server.pin("b.whl")], tmp_path, offline=True)
        assert server.seen == []


def test_a_checked_file_is_not_hashed_again_but_a_changed_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(Server({"a.whl": CONTENT})) as server:
        pin = server.pin("a.whl")
        path = fetch_files([pin], tmp_path)["a.whl"]
    hashed: list[Path] = []
    original = download.hash_file

    def seen(file: Path) -> str:
        hashed.append(file)
        return original(file)

    monkeypatch.setattr(download, "hash_file", seen)
    assert cached(pin, tmp_path) == path
    assert hashed == []
    path.write_bytes(CONTENT[:-1] + b"!")
    os.utime(path, (1, 1))
    assert cached(pin, tmp_path) is None
    assert hashed == [path]
    assert not path.exists()


def test_many_files_come_in_parallel_and_one_failure_fails_all(tmp_path: Path) -> None:
    files = {f"{number}.whl": bytes([number]) * 5000 for number in range(12)}
    with serve(Server(files)) as server:
        found = fetch_files([server.pin(name) for name in files], tmp_path)
        assert {name: path.read_bytes() for name, path in found.items()} == files
        pins = [server.pin(name) for name in files]
        with pytest.raises(NetworkError):
            fetch_files([*pins, server.pin("1.whl", sha256="1" * 64, url=f"{server.url}/none")], tmp_path)


# -- a disk that is full or read-only: real ones, in a mount namespace -----------------------------

ON_A_SMALL_DISK = """
import os, subprocess, sys
from pathlib import Path
import build_recipes.sources.download as download
from build_recipes.kit.errors import ArmoryError
from build_recipes.sources.lockfile import FilePin
disk, url, sha256, size, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
if mode == "fills up":
    download._check_room = lambda *_: None  # as when another program takes the room meanwhile
pin = FilePin(project="a", version="1", filename="a.whl", url=url, sha256=sha256, size=size, group="build")
try:
    download.fetch_files([pin], disk / "downloads")
except ArmoryError as error:
    print(type(error).__name__, error.exit_code, error)
print(sum(p.stat().st_size for p in disk.rglob("*") if p.is_file()))
"""


@pytest.mark.parametrize(
    ("options", "mode", "name", "left"),
    [
        ("size=200k", "is too small", "NotEnoughDisk 44", 0),
        ("size=200k", "fills up", "NotEnoughDisk 44", 100_000),
        ("size=9m,ro", "is read-only", "NotWritable 46", 0),
    ],
)
def test_a_disk_that_cannot_take_the_file(
    tmp_path: Path, options: str, mode: str, name: str, left: int
) -> None:
    mount = f'mount -t tmpfs -o {options} tmpfs "$1" && exec "$2" -c "$3" "$1" "$4" "$5" "$6" "$7"'
    with serve(Server({"a.whl": CONTENT})) as server:
        pin = server.pin("a.whl")
        words = [str(tmp_path), sys.executable, ON_A_SMALL_DISK, pin.url, pin.sha256, str(pin.size), mode]
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *words],
            cwd=paths.PROJECT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"this kernel forbids mounts to this user: {done.stderr.strip()}")
    assert done.stdout.startswith(name), done.stdout + done.stderr
    assert "VLLM_ARMORY_CACHE" in done.stdout
    assert int(done.stdout.split()[-1]) >= left, "what has come is kept"
    assert "Traceback" not in done.stderr
