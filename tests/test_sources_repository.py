"""Git sources: pinned commits only, from mirrors and servers, through cuts, and never HEAD instead."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sources_help import IDENTITY, git, make_repository

from build_recipes.kit.errors import NetworkError, OfflineError, RevisionMissing, SourceIncomplete, UsageError
from build_recipes.sources import remote, repository
from build_recipes.sources.library import Library
from build_recipes.sources.mirrors import configured_mirrors, key, parse_mirrors
from build_recipes.sources.repository import Repository, export_tree
from build_recipes.sources.submodules import absolute, parse_gitmodules, submodules_of

URL = "https://example.org/Group/Thing.git"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "backoff", lambda attempt: 0.02 * attempt)


@pytest.mark.parametrize(
    "same",
    [
        "https://github.com/NVIDIA/cutlass.git",
        "https://github.com/nvidia/cutlass/",
        "https://github.com/nvidia/cutlass.git/",
        "http://github.com/nvidia/cutlass",
        "git@github.com:nvidia/cutlass.git",
        "ssh://git@github.com/nvidia/cutlass",
        "https://user:word@github.com/nvidia/cutlass",
    ],
)
def test_one_repository_has_many_spellings(same: str) -> None:
    assert key(same) == key("https://github.com/nvidia/cutlass")
    assert key(same) != key("https://github.com/nvidia/cutlass-two")


def test_mirrors_come_from_options_over_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        make_repository(tmp_path / name, {"f": name})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("build_recipes.kit.paths.PROJECT", tmp_path)
    (tmp_path / "config/vllm-armory").mkdir(parents=True)
    (tmp_path / "config/vllm-armory/config.toml").write_text(
        f'[mirrors]\n"https://e.org/x" = "{tmp_path}/a"\n"https://e.org/y.git" = "{tmp_path}/a"\n'
    )
    (tmp_path / "armory.toml").write_text('[mirrors]\n"https://e.org/Y" = "b"\n"https://e.org/z" = "b"\n')
    found = configured_mirrors([f"https://E.org/z/={tmp_path / 'c'}"])
    assert {name: path.name for name, path in found.items()} == {
        "e.org/x": "a",
        "e.org/y": "b",
        "e.org/z": "c",
    }


@pytest.mark.parametrize("pair", ["https://e.org/x", "=dir", "https://e.org/x="])
def test_a_mirror_option_is_a_pair(pair: str) -> None:
    with pytest.raises(UsageError, match="URL=DIR"):
        parse_mirrors([pair])


def test_a_mirror_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no git repository"):
        parse_mirrors([f"{URL}={tmp_path}"])


def test_a_mutable_tag_becomes_a_commit_and_a_missing_one_never_head(tmp_path: Path) -> None:
    first = make_repository(tmp_path / "work", {"a": "1"}, tag="v1")
    second = make_repository(tmp_path / "work", {"a": "2"})
    library = Library(tmp_path / "cache", parse_mirrors([f"{URL}={tmp_path / 'work'}"]))
    assert library.resolve("https://example.org/group/thing", "v1") == first
    assert library.resolve(URL, "main") == second
    assert library.resolve(URL, second) == second
    for revision in ("v2", "HEAD", "v", first[:12]):
        with pytest.raises(RevisionMissing, match="nothing else is taken"):
            library.resolve(URL, revision)
    with pytest.raises(RevisionMissing, match="0000000000"):
        library.with_commit(URL, "0" * 40, "main")


def test_an_export_is_the_commit_without_git_and_with_submodules_in_place(tmp_path: Path) -> None:
    sub = make_repository(tmp_path / "sub", {"include/s.h": "s\n"})
    other = make_repository(tmp_path / "other", {"o": "o"})
    top = make_repository(
        tmp_path / "top",
        {"a.txt": "one\r\ntwo\n", "d/b": "b"},
        submodules={"lib/sub": ("../sub.git", sub), "lib/no": ("https://e.org/other", other)},
    )
    (tmp_path / "top/run").symlink_to("a.txt")
    git(tmp_path / "top", "add", "run")
    git(tmp_path / "top", "commit", "-q", "-m", "link")
    top = git(tmp_path / "top", "rev-parse", "HEAD")
    library = Library(
        tmp_path / "cache",
        parse_mirrors([f"https://e.org/g/top={tmp_path / 'top'}", f"https://e.org/g/sub={tmp_path / 'sub'}"]),
    )
    where = library.with_commit("https://e.org/g/top", top)
    pins = submodules_of(where, top, skip=lambda path: "not needed" if path == "lib/no" else "")
    assert [(pin.path, pin.repository, pin.commit, pin.skip) for pin in pins] == [
        ("lib/no", "https://e.org/other", other, "not needed"),
        ("lib/sub", "https://e.org/g/sub.git", sub, ""),
    ]
    parts = [("", where, top, ""), ("lib/sub", library.with_commit(pins[1].repository, sub), sub, "")]
    export_tree(parts, tmp_path / "out")
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found.pop(".gitmodules")
    assert found == {
        "a.txt": b"one\r\ntwo\n", "d/b": b"b", "run": b"one\r\ntwo\n", "lib/sub/include/s.h": b"s\n",
    }  # fmt: skip
    assert (tmp_path / "out/run").is_symlink()
    assert git(tmp_path / "top", "status", "--porcelain", "--ignore-submodules=all") == "", "mirror untouched"


def test_a_mirror_that_lacks_a_file_is_incomplete_unless_it_is_a_picture(tmp_path: Path) -> None:
    commit = make_repository(tmp_path / "work", {"a.png": "picture", "k.cu": "kernel"})

    def lose(name: str) -> None:
        oid = git(tmp_path / "work", "rev-parse", f"HEAD:{name}")
        (tmp_path / "work/.git/objects" / oid[:2] / oid[2:]).unlink()

    library = Library(tmp_path / "cache", parse_mirrors([f"{URL}={tmp_path / 'work'}"]))
    where = library.with_commit(URL, commit)
    lose("a.png")
    assert where.export(commit, tmp_path / "one") == ["a.png"]
    assert (tmp_path / "one/k.cu").read_text() == "kernel"
    lose("k.cu")
    with pytest.raises(SourceIncomplete, match=r"k\.cu"):
        where.export(commit, tmp_path / "two")


def test_relative_addresses_of_submodules() -> None:
    assert absolute("../c.git", "https://h.org/a/b.git") == "https://h.org/a/c.git"
    assert absolute("./c", "https://h.org/a/b") == "https://h.org/a/b/c"
    assert absolute("https://x/y", "https://h.org/a/b") == "https://x/y"
    text = '[submodule "n"]\n  url = u  \n\tpath = p/q\n[submodule "half"]\n path = z\n'
    assert parse_gitmodules(text) == {"p/q": "u"}


# -- a server ------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def git_server(base: Path, cuts: int = 0) -> Iterator[tuple[str, list[int]]]:
    """git's own daemon behind a relay that cuts the first ``cuts`` connections after 20 kB.

    Yields the address and the number of bytes each connection brought.
    """
    if not (Path(git(base, "--exec-path")) / "git-daemon").exists():
        pytest.skip("this git has no daemon")
    behind = _free_port()
    brought: list[int] = []
    command = [
        "git",
        "daemon",
        "--export-all",
        f"--base-path={base}",
        "--listen=127.0.0.1",
        f"--port={behind}",
    ]
    daemon = subprocess.Popen(
        [*command, "--reuseaddr", str(base)],
        env=IDENTITY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    front = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, sink: socket.socket, number: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if number is not None:
                    brought[number] += len(data)
                    if number < cuts and brought[number] > 20_000:
                        break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def relay() -> None:
        with suppress(OSError):
            while True:
                client, _ = front.accept()
                server = socket.create_connection(("127.0.0.1", behind))
                brought.append(0)
                number = len(brought) - 1
                threading.Thread(target=copy, args=(client, server, None), daemon=True).start()
                threading.Thread(target=copy, args=(server, client, number), daemon=True).start()

    try:
        for _ in range(100):
            with suppress(OSError), socket.create_connection(("127.0.0.1", behind)):
                break
            time.sleep(0.05)
        threading.Thread(target=relay, daemon=True).start()
        yield f"git://127.0.0.1:{front.getsockname()[1]}", brought
    finally:
        front.close()
        daemon.terminate()
        daemon.wait()


def test_one_commit_is_fetched_alone_through_cuts(tmp_path: Path) -> None:
    noise = {f"n{number}": os.urandom(20_000).hex() for number in range(4)}
    old = make_repository(tmp_path / "serve/thing", noise | {"big": os.urandom(2_000_000).hex()})
    git(tmp_path / "serve/thing", "rm", "-q", "big")
    wanted = make_repository(tmp_path / "serve/thing", {"a": "1"}, tag="v1")
    make_repository(tmp_path / "serve/thing", {"a": "2"})
    with git_server(tmp_path / "serve", cuts=2) as (address, brought):
        library = Library(tmp_path / "cache", {})
        assert library.resolve(f"{address}/thing", "v1") == wanted  # its answer is small: not cut
        where = library.with_commit(f"{address}/thing", wanted, "v1")
        assert where.has(wanted)
        assert not where.has(old), "history is not fetched"
        assert sum(brought) < 1_000_000
        assert sum(1 for octets in brought if octets > 20_000) >= 2, "it was cut, and went on"
        with pytest.raises(RevisionMissing):
            library.with_commit(f"{address}/thing", "1" * 40, "v1")
        with pytest.raises(RevisionMissing):
            library.resolve(f"{address}/thing", "v9")
        address_gone = address
    where = Library(tmp_path / "cache", {}, offline=True).with_commit(f"{address_gone}/thing", wanted)
    where.export(wanted, tmp_path / "out")
    assert (tmp_path / "out/a").read_text() == "1"


@pytest.mark.parametrize("revision", ["v1", ""])
def test_a_server_that_gives_no_single_commit_is_asked_by_tag_then_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    wanted = make_repository(tmp_path / "serve/thing", {"a": "1"}, tag="v1")
    last = make_repository(tmp_path / "serve/thing", {"a": "2"})
    monkeypatch.setattr(repository, "_OPTIONS", [*repository._OPTIONS, "protocol.version=0"])
    with git_server(tmp_path / "serve") as (address, brought):
        where = Library(tmp_path / "cache", {}).with_commit(f"{address}/thing", wanted, revision)
    assert where.has(wanted)
    assert where.has(last) is (revision == ""), "everything only where nothing smaller is given"
    assert len(brought) > 1, "the first request was refused"


def test_a_stale_lock_of_a_killed_git_does_not_stop_the_next(tmp_path: Path) -> None:
    wanted = make_repository(tmp_path / "thing", {"a": "1"})
    library = Library(tmp_path / "cache", {})
    url = f"file://{tmp_path}/thing"
    own = library.own(url).git_dir
    with remote.held(own):
        (own / "shallow.lock").write_text("")
    assert library.with_commit(url, wanted).has(wanted)


def test_a_server_that_does_not_answer_is_a_network_error(tmp_path: Path) -> None:
    url = f"git://127.0.0.1:{_free_port()}/thing"
    with pytest.raises(NetworkError, match="cannot be read"):
        Library(tmp_path / "cache", {}).resolve(url, "v1")
    with pytest.raises(NetworkError, match="--mirror"):
        Library(tmp_path / "cache", {}).with_commit(url, "1" * 40)


def test_offline_asks_nobody(tmp_path: Path) -> None:
    library = Library(tmp_path / "cache", {}, offline=True)
    with pytest.raises(OfflineError, match="not in the cache"):
        library.with_commit(URL, "1" * 40)
    with pytest.raises(OfflineError, match="only be asked"):
        library.resolve(URL, "v1")
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def test_a_machine_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan asks what is in the cache before git is installed."""
    make_repository(tmp_path / "own", {"f": "x"})
    own = Repository("https://e.org/own", tmp_path / "own/.git")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not own.has("0" * 40)
