"""Serve the wheels folder on loopback, with the content negotiation of PEP 691."""

from __future__ import annotations

import functools
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from build_recipes.kit.errors import UsageError

_JSON = "application/vnd.pypi.simple.v1+json"
_HTML = "application/vnd.pypi.simple.v1+html"


class _Handler(SimpleHTTPRequestHandler):
    """Files of the folder; pages of the index as the client asks for them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve one request."""
        self._negotiate()
        super().do_GET()

    def do_HEAD(self) -> None:
        """Serve the head of one request."""
        self._negotiate()
        super().do_HEAD()

    def _negotiate(self) -> None:
        self.kind = ""
        path = urlsplit(self.path).path
        if path.startswith("/simple/") and path.endswith("/"):
            self.kind = _JSON if _prefers_json(self.headers.get("Accept", "")) else _HTML
            self.path = f"{path}index.{'json' if self.kind == _JSON else 'html'}"

    def guess_type(self, path: object) -> str:
        """Content type: the one negotiated for a page."""
        return self.kind or super().guess_type(str(path))

    def list_directory(self, path: object) -> None:
        """No listings: hidden files stay hidden."""
        self.send_error(HTTPStatus.NOT_FOUND, "no such page")

    def translate_path(self, path: str) -> str:
        """Path of the file; names that start with a dot do not exist."""
        hidden = any(part.startswith(".") for part in urlsplit(path).path.split("/"))
        return super().translate_path("/.none" if hidden else path)


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


def server(wheels: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the folder on 127.0.0.1, not yet running; port 0 takes a free one.

    :raises UsageError: the port is taken or not allowed.
    """
    handler = functools.partial(_Handler, directory=str(wheels))
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port} cannot be used: {error}", "give another --port, or none") from error
