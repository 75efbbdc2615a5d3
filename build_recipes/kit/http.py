"""The one HTTP client: how much a server may send, how slowly, how often it is asked, and for how long.

`ask` is for documents, which are held in memory; files are streamed by `sources.download` under the same policy.
A server that is slow, endless, silent, or asks to come back tomorrow ends in a `NetworkError`, never in a wait.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import socket
import threading
import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from build_recipes.kit.console import one_line
from build_recipes.kit.data import open_regular
from build_recipes.kit.errors import NetworkError

ATTEMPTS = 6
"""Attempts in a row that bring nothing worth while, before we give up."""
TIMEOUT = (15, 60)
"""Seconds to connect, seconds without a byte."""
HEAD_WITHIN = 90
"""Seconds until status and headers are there, whole."""
SLOWEST, WINDOW = 1000, 60
"""Bytes a second that have to come, seen over so many seconds."""
DOCUMENT_WITHIN = 300
"""Seconds until a document is there, whole."""
MOST_DOCUMENT = 64 << 20
"""Bytes of a document: the largest pages of PyPI have some 10 million."""
MOST_WAIT = 120
"""Seconds that a server may ask us to wait (Retry-After)."""
MOST_REDIRECTS = 5
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may be answered."""

FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError)
"""What a request raises when the network or the server fails."""


class TooSlow(requests.RequestException):
    """Fewer bytes come than anybody would wait for."""


class TooLong(requests.RequestException):
    """More bytes come than any such document has."""


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    url: str
    """After redirects."""
    status: int
    reason: str
    headers: Mapping[str, str]
    """Their names in any case."""
    body: bytes
    """Empty where it was not asked for, or the status is another one."""


class _Fuse:
    """Cuts a connection after a time, unless it is stopped before; a timeout counts only from byte to byte."""

    def __init__(self, connection: Any, seconds: float) -> None:
        self.connection, self.burnt = connection, False
        self.timer = threading.Timer(seconds, self._cut)
        self.timer.daemon = True
        self.timer.start()

    def _cut(self) -> None:
        self.burnt = True
        with contextlib.suppress(OSError, AttributeError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Leave the connection as it is."""
        self.timer.cancel()


class Pace:
    """Watches how fast the body of an answer comes, while it is read; what hangs is cut.

    :param within: seconds until it is there, whole.
    :raises TooSlow: at the end, when it was cut: what came may look whole.
    """

    def __init__(self, answer: requests.Response, within: float = float("inf")) -> None:
        self.connection = getattr(answer.raw, "armory_socket", None)
        self.last = time.monotonic() + within
        self._begin()

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.fuse.stop()
        if kind is None and self.fuse.burnt:
            raise TooSlow(f"{self.came} bytes came in {time.monotonic() - self.start:.0f} seconds")

    def _begin(self) -> None:
        self.start, self.came = time.monotonic(), 0
        self.fuse = _Fuse(self.connection, min(2 * WINDOW, self.last - self.start))

    def note(self, octets: int) -> None:
        """Count bytes that came.

        :raises TooSlow: fewer than `SLOWEST` bytes a second came in the last `WINDOW` seconds, or time is up.
        """
        self.came += octets
        now = time.monotonic()
        seconds = now - self.start
        if now > self.last or (seconds >= WINDOW and self.came < SLOWEST * seconds):
            raise TooSlow(f"{self.came} bytes came in {seconds:.0f} seconds")
        if seconds >= WINDOW:
            self.fuse.stop()
            self._begin()


def backoff(attempt: int) -> float:
    """Seconds to wait before attempt ``attempt`` (from 1): 0.5, 1, 2, ... at most 20, with jitter."""
    return min(20.0, 0.5 * float(2 ** (attempt - 1))) * random.uniform(0.75, 1.25)


def asked_to_wait(headers: Mapping[str, str], url: str) -> float:
    """Seconds that an answer's Retry-After asks for (a number or a date); 0 where it says nothing.

    :raises NetworkError: more than `MOST_WAIT`.
    """
    text = headers.get("Retry-After", "").strip()
    seconds = 0.0
    if text.isascii() and text.isdecimal():
        seconds = float(text)
    elif text:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            seconds = max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    if seconds > MOST_WAIT:
        raise NetworkError(
            f"{one_line(url)} asks to wait {seconds:.0f} seconds (Retry-After)",
            "type the same after that time: it goes on from here",
        )
    return seconds


def words(error: BaseException) -> str:
    """The innermost cause, as people read it."""
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return one_line(f"{type(cause).__name__}: {cause}")


def unresolved(error: BaseException) -> bool:
    """Whether the host's name cannot be resolved: to ask again is of no use."""
    return any(text in f"{error!r} {words(error)}" for text in ("NameResolution", "gaierror"))


class _HeadWithin:
    """A connection whose status and headers have to come in time."""

    sock: Any

    def getresponse(self) -> Any:
        """Wait for status and headers."""
        held = self.sock
        fuse = _Fuse(held, HEAD_WITHIN)
        try:
            answer = super().getresponse()  # type: ignore[misc]
        finally:
            fuse.stop()
        if fuse.burnt:  # headers that are cut look whole to http.client
            raise TimeoutError("its headers do not come")
        answer.armory_socket = held
        return answer


class _Http(_HeadWithin, HTTPConnection):
    pass


class _Https(_HeadWithin, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *words: Any, **options: Any) -> None:
        super().init_poolmanager(*words, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, *words: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*words, **options)
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager

    def send(
        self, request: Any, stream: bool = False, timeout: Any = None, *words: Any, **options: Any
    ) -> requests.Response:
        answer = super().send(request, True, timeout or TIMEOUT, *words, **options)
        if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", "gzip"):
            answer.close()
            raise requests.exceptions.ContentDecodingError("an encoding that was not asked for")
        if answer.is_redirect:  # requests would read its body, however long
            answer._content = b""
            answer.close()
        elif not stream:
            answer._content = _body(answer, MOST_DOCUMENT)
        return answer


def client() -> requests.Session:
    """A session that keeps to the policy, also where it is used directly."""
    session = requests.Session()
    session.max_redirects = MOST_REDIRECTS
    session.headers.update({"Accept-Encoding": "gzip", "User-Agent": "vllm-armory"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    send: bytes | Path | None = None,
    most: int = MOST_DOCUMENT,
    read: Collection[int] = (200, 206),
) -> Answer:
    """One document, asked for up to `ATTEMPTS` times.

    :param send: what goes with the request; a file is streamed. It may arrive twice: where an answer was lost, the
        request is made again.
    :param most: bytes that it may have.
    :param read: statuses whose body is read.
    :returns: also an answer that says no (404, 403): the caller knows what it means.
    :raises NetworkError: no answer, one of `AGAIN` to the end, too slow, or too long.
    """
    reason = ""
    with client() as session:
        for attempt in range(1, ATTEMPTS + 1):
            wait = backoff(attempt)
            try:
                with (
                    _opened(send) as data,
                    session.request(method, url, headers=headers, data=data, stream=True) as answer,
                ):
                    if answer.status_code not in AGAIN:
                        wanted = method != "HEAD" and answer.status_code in read
                        body = _body(answer, most) if wanted else b""
                        return Answer(answer.url, answer.status_code, answer.reason, answer.headers, body)
                    reason = f"{answer.status_code} {one_line(answer.reason)}"
                    wait = max(wait, asked_to_wait(answer.headers, url))
            except TooLong as error:
                raise NetworkError(
                    f"{one_line(url)}: {error}", "check the address: this is no such document"
                ) from error
            except (*FAILURES, ValueError, zlib.error) as error:
                reason = words(error)
                if unresolved(error) or isinstance(error, ValueError):
                    break
            if attempt < ATTEMPTS:
                time.sleep(wait)
    raise NetworkError(
        f"{one_line(url)} could not be read: {reason}", "check the network, or use --offline with a lock"
    )


def _opened(send: bytes | Path | None) -> contextlib.AbstractContextManager[bytes | BinaryIO | None]:
    return open_regular(send) if isinstance(send, Path) else contextlib.nullcontext(send)


def _body(answer: requests.Response, most: int) -> bytes:
    """The body, decoded, within bounds of size and time."""
    packed = answer.headers.get("Content-Encoding", "identity").lower() == "gzip"
    codec, blocks, size = zlib.decompressobj(47) if packed else None, [], 0
    with Pace(answer, DOCUMENT_WITHIN) as pace:
        while block := answer.raw.read1(1 << 16, decode_content=False):
            pace.note(len(block))
            plain = codec.decompress(block, most - size + 1) if codec else block
            size += len(plain)
            if size > most:
                raise TooLong(f"it sends more than {most} bytes")
            blocks.append(plain)
    if codec and blocks and not codec.eof:
        raise requests.exceptions.ContentDecodingError("its gzip stream was cut")
    return b"".join(blocks)
