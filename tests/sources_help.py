"""Real things to fetch from, made on the spot: git repositories, a web server, a source distribution."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from build_recipes.sources.lockfile import FilePin, Lock, TreePin, VllmPin

IDENTITY = {
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}


def git(where: Path, *arguments: str) -> str:
    """Output of a git command in a folder."""
    return subprocess.run(
        ["git", "-C", str(where), *arguments], env=IDENTITY, check=True, capture_output=True, text=True
    ).stdout.strip()


def make_repository(
    where: Path, files: dict[str, str], *, tag: str = "", submodules: dict[str, tuple[str, str]] | None = None
) -> str:
    """A repository with one more commit that holds exactly ``files``. Returns the commit.

    :param submodules: path to (address, commit).
    """
    if not (where / ".git").exists():
        where.mkdir(parents=True)
        git(where, "init", "-q", "-b", "main")
    files = dict(files)
    if submodules:
        files[".gitmodules"] = "".join(
            f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, (url, _) in submodules.items()
        )
    for name, text in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)
        git(where, "add", name)
    for path, (_, commit) in (submodules or {}).items():
        git(where, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    git(where, "commit", "-q", "-m", "one")
    if tag:
        git(where, "tag", "-a", tag, "-m", tag)
    return git(where, "rev-parse", "HEAD")


@dataclass
class Server:
    """A web server on the loopback address that can misbehave."""

    files: dict[str, bytes]
    cut_after: int = 0
    """Bytes of a body after which the connection is cut; 0 for never."""
    cuts: int = 0
    """How often it is still cut; -1 for always."""
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    """Error statuses to answer with, before anything else."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """(path, Range header) of each request."""
    url: str = ""

    def pin(self, name: str, **changes: object) -> FilePin:
        """The pin of one of its files."""
        content = self.files[name]
        values = {
            "project": "thing", "version": "1", "filename": name, "url": f"{self.url}/{name}",
            "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "group": "build",
        }  # fmt: skip
        return FilePin(**(values | changes))  # type: ignore[arg-type]


@contextmanager
def serve(server: Server) -> Iterator[Server]:
    """Run a server in a thread."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            name, wanted = self.path.lstrip("/"), self.headers.get("Range", "")
            server.seen.append((name, wanted))
            if server.statuses:
                self.send_response(server.statuses.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if name not in server.files:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = server.files[name]
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
            part = content
            if match and server.ranges:
                first = int(match.group(1))
                last = int(match.group(2)) + 1 if match.group(2) else len(content)
                part = content[first:last]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if not body:
                return
            if server.cut_after and server.cuts and len(part) > server.cut_after:
                server.cuts -= 1
                self.wfile.write(part[: server.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(part)

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                self.close_connection = True

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{listener.server_address[1]}"
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


def make_sdist(files: dict[str, str], top: str = "vllm-0.12.0") -> bytes:
    """A source distribution as bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def small_lock(sdist: FilePin, trees: list[TreePin]) -> Lock:
    """A lock of v0.12.0 that holds only what is given."""
    vllm = VllmPin(
        repository="https://example.org/vllm", commit="4fd9d6a85", commit_from="sdist", sdist=sdist
    )
    return Lock(tag="v0.12.0", version="0.12.0", vllm=vllm, trees=trees, torch=[], wheels=[])
