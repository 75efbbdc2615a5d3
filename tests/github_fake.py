"""A small GitHub on loopback: releases, assets, tags, pull requests, artifacts, Pages. A real HTTP server.

It behaves as the REST API documents it where a client can trip over it: 422 for a name that is there, an asset left in
state ``starter`` by an upload that was cut off, names that GitHub changes, lists in pages, redirects for downloads, and
403 for what the token may not do. A token says what it may: ``contents=write,pulls=write``. Tags, branches and commits
are those of a real bare repository, beside it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = "owner/armory"


@dataclass
class Fake:
    """What the server knows."""

    root: Path
    """Folder for assets, artifacts and Pages."""
    git_dir: Path
    """The bare repository."""
    address: str = ""
    releases: dict[int, dict[str, Any]] = field(default_factory=dict)
    assets: dict[int, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Run to name to zip."""
    pulls: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """What was asked: ``METHOD path``."""
    cut: dict[str, int] = field(default_factory=dict)
    """Uploads and requests that fail, by a part of their line, and how often still."""
    digests: bool = True
    """Whether assets have a digest, which GitHub gives since June 2025."""
    number: int = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    def git(self, *words: str, send: bytes = b"", **env: str) -> str:
        who = {"GIT_AUTHOR_NAME": "bot", "GIT_AUTHOR_EMAIL": "bot@example.org"}
        who |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in who.items()}
        done = subprocess.run(
            ["git", "--git-dir", self.git_dir, *words], input=send, capture_output=True, check=False,
            env={**os.environ, **who, **env},
        )  # fmt: skip
        if done.returncode:
            raise LookupError(done.stderr.decode())
        return done.stdout.decode().strip()

    def asset_path(self, number: int) -> Path:
        return self.root / "assets" / str(number)

    def named(self, tag: str) -> dict[str, bytes]:
        """A release's files as a visitor downloads them."""
        release = next(one for one in self.releases.values() if one["tag_name"] == tag)
        rows = [one for one in self.assets.values() if one["release"] == release["id"]]
        return {one["name"]: self.asset_path(one["id"]).read_bytes() for one in rows}


def asset_name(name: str) -> str:
    """The name that GitHub gives an uploaded file: other characters become dots."""
    return re.sub(r"[^\w.+@-]", ".", name).strip(".")


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    fake: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def _answer(
        self, status: int, document: Any = None, kind: str = "application/json", **headers: str
    ) -> None:
        body = (
            document
            if isinstance(document, bytes)
            else b""
            if document is None
            else json.dumps(document).encode()
        )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _may(self, what: str) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if what in token.split(","):
            return True
        self._answer(403, {"message": f"Resource not accessible by integration ({what} is needed)"})
        return False

    def _serve(self) -> None:
        fake, parts = self.fake, urlsplit(self.path)
        path, query = unquote(parts.path), {key: values[0] for key, values in parse_qs(parts.query).items()}
        line = f"{self.command} {unquote(self.path)}"
        fake.calls.append(line)
        size = int(self.headers.get("Content-Length") or 0)
        for what in [what for what, left in fake.cut.items() if what in line and left]:
            fake.cut[what] -= 1
            if "/uploads/" in path:  # the connection ends in the middle of the file
                self._store(path, query, self.rfile.read(size // 2), "starter")
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(size)
        for method, pattern, act in ROUTES:
            match = re.fullmatch(pattern.replace("{repo}", f"/repos/{NAME}"), path)
            if match and method in (self.command, "GET" if self.command == "HEAD" else ""):
                try:
                    act(self, query, body, *match.groups())
                except (LookupError, StopIteration) as error:
                    self._answer(404, {"message": f"Not Found {error}"})
                return
        self._answer(404, {"message": f"no route {line}"})

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    # -- releases --------------------------------------------------------------------------------

    def _shown(self, release: dict[str, Any]) -> dict[str, Any]:
        where = f"{self.fake.address}/uploads/repos/{NAME}/releases/{release['id']}/assets"
        return {**release, "upload_url": where + "{?name,label}"}

    def _shown_asset(self, asset: dict[str, Any]) -> dict[str, Any]:
        tag = self.fake.releases[asset["release"]]["tag_name"]
        place = f"{self.fake.address}/{NAME}/releases/download/{tag}/{asset['name'].replace('+', '%2B')}"
        hidden = {} if self.fake.digests else {"digest": None}
        return {**asset, "browser_download_url": place, **hidden}

    def list_releases(self, query: dict[str, str], body: bytes) -> None:
        self._page(
            [self._shown(one) for one in sorted(self.fake.releases.values(), key=lambda one: -one["id"])],
            query,
        )

    def _page(self, rows: list[Any], query: dict[str, str]) -> None:
        size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
        self._answer(200, rows[(page - 1) * size : page * size])

    def get_release(self, query: dict[str, str], body: bytes, tag: str) -> None:
        self._answer(
            200, self._shown(next(one for one in self.fake.releases.values() if one["tag_name"] == tag))
        )

    def make_release(self, query: dict[str, str], body: bytes) -> None:
        if not self._may("contents=write"):
            return
        said = json.loads(body)
        tag = said["tag_name"]
        if any(one["tag_name"] == tag for one in self.fake.releases.values()):
            self._answer(422, {"message": "Validation Failed: already_exists"})
            return
        with contextlib.suppress(LookupError):
            self.fake.git("rev-parse", "--verify", f"refs/tags/{tag}")
        if tag not in self.fake.git("tag").split():
            self.fake.git("tag", tag, said.get("target_commitish") or "HEAD")
        number = self.fake.next()
        kept = {key: said.get(key) for key in ("tag_name", "name", "body", "prerelease")}
        self.fake.releases[number] = {"id": number, **kept}
        self._answer(201, self._shown(self.fake.releases[number]))

    def delete_release(self, query: dict[str, str], body: bytes, number: str) -> None:
        if self._may("contents=write"):
            del self.fake.releases[int(number)]
            self.fake.assets = {k: v for k, v in self.fake.assets.items() if v["release"] != int(number)}
            self._answer(204)

    def list_assets(self, query: dict[str, str], body: bytes, number: str) -> None:
        rows = [one for one in self.fake.assets.values() if one["release"] == int(number)]
        self._page([self._shown_asset(one) for one in rows], query)

    def _store(self, path: str, query: dict[str, str], body: bytes, state: str) -> dict[str, Any]:
        fake, number = self.fake, self.fake.next()
        release = int(path.split("/releases/")[1].split("/", maxsplit=1)[0])
        target = fake.asset_path(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}" if state == "uploaded" else None
        fake.assets[number] = {"id": number, "release": release, "name": asset_name(query["name"]),
                               "size": len(body), "state": state, "digest": digest}  # fmt: skip
        return fake.assets[number]

    def upload(self, query: dict[str, str], body: bytes, number: str) -> None:
        if not self._may("contents=write"):
            return
        name = asset_name(query["name"])
        if any(one["name"] == name and one["release"] == int(number) for one in self.fake.assets.values()):
            self._answer(422, {"message": "Validation Failed: ReleaseAsset.name already exists"})
            return
        self._answer(201, self._shown_asset(self._store(self.path, query, body, "uploaded")))

    def get_asset(self, query: dict[str, str], body: bytes, number: str) -> None:
        asset = self.fake.assets[int(number)]
        if self.headers.get("Accept") == "application/octet-stream":
            self._answer(302, Location=self._shown_asset(asset)["browser_download_url"])
        else:
            self._answer(200, self._shown_asset(asset))

    def rename_asset(self, query: dict[str, str], body: bytes, number: str) -> None:
        if self._may("contents=write"):
            asset, name = self.fake.assets[int(number)], asset_name(json.loads(body)["name"])
            if any(
                one["name"] == name and one["release"] == asset["release"]
                for one in self.fake.assets.values()
            ):
                self._answer(422, {"message": "Validation Failed: already_exists"})
                return
            asset["name"] = name
            self._answer(200, self._shown_asset(asset))

    def delete_asset(self, query: dict[str, str], body: bytes, number: str) -> None:
        if self._may("contents=write"):
            del self.fake.assets[int(number)]
            self._answer(204)

    def download(self, query: dict[str, str], body: bytes, tag: str, name: str) -> None:
        release = next(one for one in self.fake.releases.values() if one["tag_name"] == tag)
        asset = next(one for one in self.fake.assets.values()
                     if (one["release"], one["name"]) == (release["id"], name))  # fmt: skip
        content = self.fake.asset_path(asset["id"]).read_bytes()
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if ranged:
            first, last = int(ranged[1]), int(ranged[2] or len(content) - 1)
            piece = content[first : last + 1]
            where = f"bytes {first}-{first + len(piece) - 1}/{len(content)}"
            self._answer(206, piece, "application/octet-stream", **{"Content-Range": where})
        else:
            self._answer(200, content, "application/octet-stream", **{"Accept-Ranges": "bytes"})

    # -- git -------------------------------------------------------------------------------------

    def repository(self, query: dict[str, str], body: bytes) -> None:
        self._answer(200, {"default_branch": self.fake.git("symbolic-ref", "--short", "HEAD")})

    def get_ref(self, query: dict[str, str], body: bytes, name: str) -> None:
        self._answer(200, {"object": {"sha": self.fake.git("rev-parse", "--verify", f"refs/{name}")}})

    def set_ref(self, query: dict[str, str], body: bytes, name: str) -> None:
        if not self._may("contents=write"):
            return
        try:
            self.fake.git("rev-parse", "--verify", f"refs/{name}")
        except LookupError:
            self._answer(422, {"message": "Reference does not exist"})
            return
        self.fake.git("update-ref", f"refs/{name}", json.loads(body)["sha"])
        self._answer(200, {})

    def make_ref(self, query: dict[str, str], body: bytes) -> None:
        if self._may("contents=write"):
            said = json.loads(body)
            self.fake.git("update-ref", said["ref"], said["sha"], "")
            self._answer(201, {})

    def delete_ref(self, query: dict[str, str], body: bytes, name: str) -> None:
        if self._may("contents=write"):
            self.fake.git("update-ref", "-d", f"refs/{name}")
            self._answer(204)

    def get_commit(self, query: dict[str, str], body: bytes, sha: str) -> None:
        self._answer(200, {"sha": sha, "tree": {"sha": self.fake.git("rev-parse", f"{sha}^{{tree}}")}})

    def make_blob(self, query: dict[str, str], body: bytes) -> None:
        if self._may("contents=write"):
            content = base64.b64decode(json.loads(body)["content"])
            self._answer(201, {"sha": self.fake.git("hash-object", "-w", "--stdin", send=content)})

    def make_tree(self, query: dict[str, str], body: bytes) -> None:
        if not self._may("contents=write"):
            return
        said, index = json.loads(body), str(self.fake.root / "index")
        self.fake.git("read-tree", said["base_tree"], GIT_INDEX_FILE=index)
        lines = [
            f"{row['mode'] if row['sha'] else 0} {row['sha'] or '0' * 40}\t{row['path']}"
            for row in said["tree"]
        ]
        self.fake.git(
            "update-index", "--index-info", send="\n".join(lines).encode() + b"\n", GIT_INDEX_FILE=index
        )
        self._answer(201, {"sha": self.fake.git("write-tree", GIT_INDEX_FILE=index)})

    def make_commit(self, query: dict[str, str], body: bytes) -> None:
        if self._may("contents=write"):
            said = json.loads(body)
            parents = [word for sha in said["parents"] for word in ("-p", sha)]
            self._answer(
                201, {"sha": self.fake.git("commit-tree", said["tree"], *parents, "-m", said["message"])}
            )

    def list_pulls(self, query: dict[str, str], body: bytes) -> None:
        head = query.get("head", "").partition(":")[2]
        self._page([one for one in self.fake.pulls if one["head"] == head], query)

    def make_pull(self, query: dict[str, str], body: bytes) -> None:
        if self._may("pull-requests=write"):
            number = len(self.fake.pulls) + 1
            page = f"{self.fake.address}/{NAME}/pull/{number}"
            self.fake.pulls.append({"number": number, "html_url": page, **json.loads(body)})
            self._answer(201, self.fake.pulls[-1])

    def change_pull(self, query: dict[str, str], body: bytes, number: str) -> None:
        if self._may("pull-requests=write"):
            self.fake.pulls[int(number) - 1] |= json.loads(body)
            self._answer(200, self.fake.pulls[int(number) - 1])

    # -- artifacts and Pages ---------------------------------------------------------------------

    def put_artifact(self, query: dict[str, str], body: bytes, run: str, name: str) -> None:
        """Not GitHub's own call (that is not documented): what stands in for actions/upload-artifact uses it."""
        target = self.fake.root / "artifacts" / run / f"{name}.zip"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
        self.fake.artifacts.setdefault(run, {})[name] = target
        self._answer(201, {})

    def list_artifacts(self, query: dict[str, str], body: bytes, run: str) -> None:
        rows = [
            {
                "name": name,
                "archive_download_url": f"{self.fake.address}/repos/{NAME}/actions/artifacts/{run}/{name}/zip",
            }
            for name in sorted(self.fake.artifacts.get(run, {}))
        ]
        self._answer(200, {"total_count": len(rows), "artifacts": rows})

    def get_artifact(self, query: dict[str, str], body: bytes, run: str, name: str) -> None:
        self._answer(200, self.fake.artifacts[run][name].read_bytes(), "application/zip")

    def page(self, query: dict[str, str], body: bytes, name: str) -> None:
        target = (self.fake.root / "pages" / name).resolve()
        if not target.is_relative_to((self.fake.root / "pages").resolve()):
            raise LookupError(name)
        if target.is_dir():
            if not name.endswith("/") and name:
                self._answer(301, Location=f"/pages/{name}/")
                return
            target = target / "index.html"
        if not target.is_file():
            raise LookupError(name)
        kinds = {".html": "text/html", ".json": "application/json"}
        self._answer(200, target.read_bytes(), kinds.get(target.suffix, "application/octet-stream"))


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", r"{repo}", Handler.repository),
    ("GET", r"{repo}/releases", Handler.list_releases),
    ("POST", r"{repo}/releases", Handler.make_release),
    ("GET", r"{repo}/releases/tags/(.+)", Handler.get_release),
    ("DELETE", r"{repo}/releases/(\d+)", Handler.delete_release),
    ("GET", r"{repo}/releases/(\d+)/assets", Handler.list_assets),
    ("POST", r"/uploads{repo}/releases/(\d+)/assets", Handler.upload),
    ("GET", r"{repo}/releases/assets/(\d+)", Handler.get_asset),
    ("PATCH", r"{repo}/releases/assets/(\d+)", Handler.rename_asset),
    ("DELETE", r"{repo}/releases/assets/(\d+)", Handler.delete_asset),
    ("GET", rf"/{NAME}/releases/download/([^/]+)/([^/]+)", Handler.download),
    ("GET", r"{repo}/git/ref/(.+)", Handler.get_ref),
    ("PATCH", r"{repo}/git/refs/(.+)", Handler.set_ref),
    ("DELETE", r"{repo}/git/refs/(.+)", Handler.delete_ref),
    ("POST", r"{repo}/git/refs", Handler.make_ref),
    ("GET", r"{repo}/git/commits/([0-9a-f]+)", Handler.get_commit),
    ("POST", r"{repo}/git/blobs", Handler.make_blob),
    ("POST", r"{repo}/git/trees", Handler.make_tree),
    ("POST", r"{repo}/git/commits", Handler.make_commit),
    ("GET", r"{repo}/pulls", Handler.list_pulls),
    ("POST", r"{repo}/pulls", Handler.make_pull),
    ("PATCH", r"{repo}/pulls/(\d+)", Handler.change_pull),
    ("PUT", r"{repo}/actions/runs/(\d+)/artifacts/([^/]+)", Handler.put_artifact),
    ("GET", r"{repo}/actions/runs/(\d+)/artifacts", Handler.list_artifacts),
    ("GET", r"{repo}/actions/artifacts/(\d+)/([^/]+)/zip", Handler.get_artifact),
    ("GET", r"/pages/(.*)", Handler.page),
]


@contextlib.contextmanager
def serving(root: Path, source: Path) -> Iterator[Fake]:
    """A server with an empty GitHub, whose repository is a bare clone of a folder."""
    root.mkdir(parents=True, exist_ok=True)
    git_dir = root / "repository.git"
    if not git_dir.exists():
        subprocess.run(["git", "clone", "-q", "--bare", source, git_dir], check=True)
    fake = Fake(root, git_dir)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": fake})) as server:
        fake.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield fake
        finally:
            server.shutdown()


def deploy(fake: Fake, site: Path) -> None:
    """What actions/deploy-pages does: the site replaces the one that was there."""
    target = fake.root / "pages"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(site, target)
