"""Servers that are slow, endless, forgetful or lie: each ends soon, in words, with little memory."""

from __future__ import annotations

import gzip
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import pytest
import zstandard

from build_recipes.formats.inflate import Archive
from build_recipes.kit import http
from build_recipes.kit.errors import ArmoryError, HashMismatch, NetworkError
from build_recipes.sources import download, registry
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import FilePin
from build_recipes.sources.wheel_members import RemoteFile

CONTENT = random.Random(1).randbytes(300_000)


@dataclass
class Raw:
    """A server of plain sockets: each connection is handed to ``answer`` with the request's text."""

    answer: Callable[[socket.socket, str], None]
    seen: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def raw(answer: Callable[[socket.socket, str], None]) -> Iterator[Raw]:
    server = Raw(answer)
    listening = socket.create_server(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def one(client: socket.socket) -> None:
        with client, suppress(OSError):
            text = b""
            while b"\r\n\r\n" not in text:
                text += client.recv(4096)
            server.seen.append(text.decode())
            answer(client, text.decode())

    def loop() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()
    yield server
    listening.close()


def say(client: socket.socket, status: str, body: bytes = b"", *headers: str, length: bool = True) -> None:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    client.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def pin(server: Raw, size: int = len(CONTENT)) -> FilePin:
    import hashlib

    digest = hashlib.sha256(CONTENT).hexdigest()
    return FilePin(
        project="a",
        version="1",
        filename="a.whl",
        url=f"{server.url}/a.whl",
        sha256=digest,
        size=size,
        group="build",
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (http, download):
        monkeypatch.setattr(module, "backoff", lambda attempt: 0.001)
    monkeypatch.setattr(http, "WINDOW", 0.3)
    monkeypatch.setattr(http, "HEAD_WITHIN", 0.5)
    monkeypatch.setattr(http, "DOCUMENT_WITHIN", 2)
    registry.packages.cache_clear()


def refused(work: Callable[[], object], within: float = 20) -> ArmoryError:
    started = time.monotonic()
    with pytest.raises((NetworkError, HashMismatch)) as caught:
        work()
    assert time.monotonic() - started < within
    assert caught.value.advice
    assert str(caught.value).replace("\n", "").isprintable()
    return caught.value


# -- documents -----------------------------------------------------------------------------------


def endless(client: socket.socket, _: str) -> None:
    say(client, "200 OK", b"", "Content-Type: application/vnd.pypi.simple.v1+json", length=False)
    while True:
        client.sendall(b"[" * 65536)


def chunked(client: socket.socket, _: str) -> None:
    say(client, "200 OK", b"", "Transfer-Encoding: chunked", length=False)
    while True:
        client.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def slow(client: socket.socket, _: str) -> None:
    say(client, "200 OK", b"", "Content-Length: 300000", length=False)
    while True:
        client.sendall(b"x")
        time.sleep(0.05)


def slow_head(client: socket.socket, _: str) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        client.sendall(b"x")
        time.sleep(0.05)


def slow_chunk(client: socket.socket, _: str) -> None:
    say(client, "200 OK", b"", "Transfer-Encoding: chunked", length=False)
    while True:
        client.sendall(b"1")
        time.sleep(0.05)


def stops(client: socket.socket, _: str) -> None:
    say(client, "200 OK", b"[", length=False)
    time.sleep(5)


def silent(client: socket.socket, _: str) -> None:
    time.sleep(5)


def packed(client: socket.socket, _: str) -> None:
    say(client, "200 OK", gzip.compress(bytes(100 << 20), 1), "Content-Encoding: gzip")


def packed_otherwise(client: socket.socket, _: str) -> None:
    say(client, "200 OK", zstandard.ZstdCompressor().compress(bytes(1 << 20)), "Content-Encoding: zstd")


def no_gzip(client: socket.socket, _: str) -> None:
    say(client, "200 OK", b"no gzip", "Content-Encoding: gzip")


def round_and_round(client: socket.socket, _: str) -> None:
    say(client, "302 Found", b"", "Location: /again")


def redirect_with_an_endless_body(client: socket.socket, _: str) -> None:
    say(client, "302 Found", b"", "Location: /x", "Transfer-Encoding: chunked", length=False)
    while True:
        client.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def to_a_file(client: socket.socket, _: str) -> None:
    say(client, "302 Found", b"", "Location: file:///etc/passwd")


def no_http(client: socket.socket, _: str) -> None:
    client.sendall(b"\xff\x00SSH-2.0\r\n" * 9)


def many_headers(client: socket.socket, _: str) -> None:
    say(client, "200 OK", b"", *(f"X{number}: y" for number in range(5000)))


DOCUMENTS = [
    endless, chunked, slow, slow_head, slow_chunk, stops, packed, packed_otherwise, no_gzip, round_and_round,
    redirect_with_an_endless_body, to_a_file, no_http, many_headers,
]  # fmt: skip


@pytest.mark.parametrize("answer", DOCUMENTS, ids=lambda answer: answer.__name__)
def test_a_document_that_never_comes_right(answer: Callable[[socket.socket, str], None]) -> None:
    with raw(answer) as server:
        refused(lambda: http.ask(f"{server.url}/x"))
        assert len(server.seen) <= http.ATTEMPTS * (http.MOST_REDIRECTS + 1)


def test_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ATTEMPTS", 2)
    with raw(silent) as server:
        refused(lambda: http.ask(f"{server.url}/x"), within=4)


@pytest.mark.parametrize(
    "url", ["", "nowhere", "ftp://x/y", "http://", "http://[::1", "http://x y/", "http://\udc80/"]
)
def test_an_address_that_is_none(url: str) -> None:
    refused(lambda: http.ask(url), within=5)


JSON = "application/vnd.pypi.simple.v1+json"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b""),
        (JSON, b"["),
        (JSON, b"[" * 100_000),
        (JSON, b'{"meta": {"api-version": "9.0"}, "name": "x", "files": []}'),
        (JSON, b'{"meta": {"api-version": "1.0"}, "name": "x", "files": [{}]}'),
        (JSON, b'{"meta": 1}'),
        (JSON, b"\xff\xfe"),
        ("text/html", b"<div>" * 5_000),
        ("application/x-evil", b""),
        ("text/html; charset=nonsense", b"\xff" * 99),
    ],
)
def test_an_index_that_is_none(kind: str, body: bytes) -> None:
    with raw(lambda client, _: say(client, "200 OK", body, f"Content-Type: {kind}")) as server:
        try:
            assert registry.packages("x", server.url) == ()
        except NetworkError as error:
            assert "cannot be read" in str(error)


def test_a_good_index_is_read_packed_or_not() -> None:
    row = {"filename": "x-1-py3-none-any.whl", "url": "x.whl", "hashes": {"sha256": "0" * 64}}
    body = json.dumps({"meta": {"api-version": "1.0"}, "name": "x", "files": [row]}).encode()
    for wrap, header in ((bytes, "X: y"), (gzip.compress, "Content-Encoding: gzip")):
        registry.packages.cache_clear()
        with raw(
            lambda client, _, wrap=wrap, header=header: say(  # type: ignore[misc]
                client, "200 OK", wrap(body), header, f"Content-Type: {JSON}"
            )
        ) as server:
            assert [file.filename for file in registry.packages("x", server.url)] == [row["filename"]]


def test_retry_after_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["429 Slow", "503 Busy"]

    def busy(client: socket.socket, _: str) -> None:
        date = formatdate(time.time() + 2, usegmt=True)
        if len(answers) == 2:
            say(client, answers.pop(), b"", "Retry-After: 1")
        elif answers:
            say(client, answers.pop(), b"", f"Retry-After: {date}")
        else:
            say(client, "200 OK", b"here")

    started = time.monotonic()
    with raw(busy) as server:
        assert http.ask(server.url).body == b"here"
    assert 2 < time.monotonic() - started < 6


@pytest.mark.parametrize("wait", ["86400", "Fri, 31 Dec 2099 23:59:59 GMT"])
def test_a_server_that_says_tomorrow_is_not_waited_for(tmp_path: Path, wait: str) -> None:
    with raw(lambda client, _: say(client, "429 Slow", b"", f"Retry-After: {wait}")) as server:
        assert "Retry-After" in str(refused(lambda: http.ask(server.url), within=2))
        assert "Retry-After" in str(refused(lambda: fetch_files([pin(server)], tmp_path), within=2))


@pytest.mark.parametrize("wait", ["", "soon", "-5", "1e9", "\u0661", "Fri, 99 Dec"])
def test_a_retry_after_that_says_nothing(wait: str) -> None:
    assert http.asked_to_wait({"Retry-After": wait}, "x") == 0


# -- files ---------------------------------------------------------------------------------------


def truncated_then_416(client: socket.socket, text: str) -> None:
    if "Range:" in text:
        say(client, "416 Range Not Satisfiable", b"", "Content-Range: bytes */150000")
    else:
        say(client, "200 OK", CONTENT[:150_000])


def truncated_then_a_bare_416(client: socket.socket, text: str) -> None:
    if "Range:" in text:
        say(client, "416 Range Not Satisfiable")
    else:
        say(client, "200 OK", CONTENT[:150_000], length=False)


def another_range(client: socket.socket, text: str) -> None:
    if "Range:" in text:
        say(
            client,
            "206 Partial Content",
            CONTENT[5:],
            f"Content-Range: bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}",
        )
    else:
        say(client, "200 OK", CONTENT[:100_000], f"Content-Length: {len(CONTENT)}", length=False)


def a_little_each_time(client: socket.socket, text: str) -> None:
    start = int(text.split("bytes=")[1].split("-", maxsplit=1)[0]) if "bytes=" in text else 0
    say(
        client, "206 Partial Content" if start else "200 OK", CONTENT[start : start + 10],
        *([f"Content-Range: bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"] if start else []),
        f"Content-Length: {len(CONTENT) - start}", length=False,
    )  # fmt: skip


def the_same_part_for_ever(client: socket.socket, text: str) -> None:
    say(client, "200 OK", CONTENT[:100_000], f"Content-Length: {len(CONTENT)}", length=False)


def longer_than_the_lock(client: socket.socket, text: str) -> None:
    say(client, "200 OK", CONTENT + b"more")


def longer_without_a_word(client: socket.socket, text: str) -> None:
    say(client, "200 OK", b"", length=False)
    while True:
        client.sendall(CONTENT)


FILES = [
    truncated_then_416, truncated_then_a_bare_416, another_range, a_little_each_time, the_same_part_for_ever,
    longer_than_the_lock, longer_without_a_word, slow, slow_head, slow_chunk, endless, chunked, round_and_round,
]  # fmt: skip


@pytest.mark.parametrize("answer", FILES, ids=lambda answer: answer.__name__)
def test_a_file_that_never_comes_right(tmp_path: Path, answer: Callable[[socket.socket, str], None]) -> None:
    with raw(answer) as server:
        refused(lambda: fetch_files([pin(server)], tmp_path))
        assert len(server.seen) <= 8 * http.ATTEMPTS
    assert not list(tmp_path.rglob("a.whl"))


@pytest.mark.parametrize("answer", [slow, endless, chunked, the_same_part_for_ever, no_gzip])
def test_a_wheel_read_in_places_from_a_server_that_does_not(
    answer: Callable[[socket.socket, str], None],
) -> None:
    with raw(answer) as server:
        refused(lambda: Archive(Path("a.whl"), source=RemoteFile(server.url, 300_000)))
