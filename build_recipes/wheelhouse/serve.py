"""Serve the wheels folder, on loopback by default, with the content negotiation of PEP 691.

What the index lists is served, and nothing else: a page at ``/`` that says how to install, the index's pages, the
wheels on them, and their metadata. A link is followed nowhere.
"""

from __future__ import annotations

import functools
import io
import ipaddress
import os
import socket
import stat
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import msgspec

from build_recipes.kit import console
from build_recipes.kit.errors import UsageError
from build_recipes.wheelhouse.index import PAGES

_JSON = "application/vnd.pypi.simple.v1+json"
_HTML = "application/vnd.pypi.simple.v1+html"
_KINDS = {
    ".json": _JSON,
    ".html": "text/html; charset=utf-8",
    ".whl": "application/octet-stream",
    ".metadata": "text/plain; charset=utf-8",
}


class _Handler(SimpleHTTPRequestHandler):
    """Files of the index; pages as the client asks for them."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    """Seconds that a silent client may hold a thread."""

    def send_head(self) -> BinaryIO | None:
        """Send status and headers; the file to copy, or None where there is none."""
        path, accept = unquote(urlsplit(self.path).path), self.headers.get("Accept", "")
        front = getattr(self.server, "front", "").encode() if path == "/" else b""
        if front:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _KINDS[".html"])
            self.send_header("Content-Length", str(len(front)))
            self.end_headers()
            return io.BytesIO(front)
        if path.startswith(f"/{PAGES}/") and path.endswith("/"):
            path += "index.json" if _prefers_json(accept) else "index.html"
        stream = _opened(Path(self.directory), path.removeprefix("/"))
        if stream is None:
            self.send_error(HTTPStatus.NOT_FOUND, "the index does not list that")
            return None
        self.send_response(HTTPStatus.OK)
        kind = _HTML if path.endswith(".html") and _HTML in accept else _KINDS[Path(path).suffix]
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(os.fstat(stream.fileno()).st_size))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        return stream

    def log_message(self, format: str, *words: Any) -> None:
        """Tell one request; what the client sent is made visible."""
        console.say(f"{self.address_string()}  {format % words}")


class _Row(msgspec.Struct):
    name: str = ""
    filename: str = ""


class _Page(msgspec.Struct):
    projects: list[_Row] = []
    files: list[_Row] = []


def _listed(wheels: Path) -> set[str]:
    """The paths that the index on disk lists, below its folder."""
    paths = {f"{PAGES}/index.{kind}" for kind in ("html", "json")}
    for row in _page(wheels / PAGES).projects:
        paths |= {f"{PAGES}/{row.name}/index.{kind}" for kind in ("html", "json")}
        for file in _page(wheels / PAGES / row.name).files:
            paths |= {file.filename, f"{file.filename}.metadata"}
    return paths


def _page(folder: Path) -> _Page:
    """A page of the index; an empty one where there is none, or it is damaged."""
    try:
        return msgspec.json.decode((folder / "index.json").read_bytes(), type=_Page)
    except (OSError, ValueError, RecursionError):
        return _Page()


def _opened(wheels: Path, path: str) -> BinaryIO | None:
    """A listed file, opened through real folders only; None where there is no such thing."""
    if path not in _listed(wheels):
        return None
    *folders, last = path.split("/")
    steps = [*((folder, os.O_DIRECTORY) for folder in folders), (last, os.O_NONBLOCK)]
    handles: list[int] = []
    try:
        handles.append(os.open(wheels, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for name, flag in steps:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flag
            handles.append(os.open(name, flags, dir_fd=handles[-1]))
        return os.fdopen(handles.pop(), "rb") if stat.S_ISREG(os.fstat(handles[-1]).st_mode) else None
    except OSError:
        return None
    finally:
        for handle in handles:
            os.close(handle)


def _prefers_json(accept: str) -> bool:
    """Whether an Accept header takes JSON at least as gladly as HTML (RFC 9110 weights)."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = [piece.strip() for piece in part.split(";")]
        weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            weights[kind] = float(weight)
        except ValueError:
            weights[kind] = 0.0
    wanted = weights.get(_JSON, 0.0)
    return wanted > 0 and wanted >= max(weights.get(_HTML, 0.0), weights.get("text/html", 0.0))


class IndexServer(ThreadingHTTPServer):
    """A server of one folder of wheels."""

    front = ""
    """The page at ``/``; without one there is none."""

    def __init__(self, wheels: Path, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), functools.partial(_Handler, directory=str(wheels)))

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(str(self.server_address[0])).is_loopback


def server(wheels: Path, port: int = 0, host: str = "127.0.0.1") -> IndexServer:
    """A server of the folder, not yet running; port 0 takes a free one.

    :param host: an address of this machine, or 0.0.0.0 for all.
    :raises UsageError: the address is not this machine's; the port is taken or not allowed.
    """
    try:
        return IndexServer(wheels, host, port)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"{host} port {port} cannot be used: {error}", "give another --host or --port, or none"
        ) from error
