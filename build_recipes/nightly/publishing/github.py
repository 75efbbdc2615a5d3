"""What the nights ask of GitHub: releases and their assets, tags, pull requests. REST API version 2022-11-28.

https://docs.github.com/en/rest/releases, /git, /pulls. The repository, the API's address and the token come from the
environment that GitHub Actions gives every step (GH_TOKEN has to be passed on).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from build_recipes.kit import http
from build_recipes.kit.console import one_line
from build_recipes.kit.data import parse_json
from build_recipes.kit.errors import NetworkError, UsageError

API = "https://api.github.com"
PAGE = 100
"""Entries of a list that are asked for at once, the most that GitHub gives."""


@dataclass(frozen=True)
class Asset:
    """A file of a release."""

    id: int
    name: str
    size: int
    state: str
    """``uploaded``; ``starter`` is what an upload that was cut off leaves."""
    sha256: str
    """Empty where GitHub does not say it (files from before June 2025)."""
    url: str
    """Where it is downloaded from."""

    @property
    def whole(self) -> bool:
        """Whether all of it arrived."""
        return self.state == "uploaded"


@dataclass(frozen=True)
class Release:
    """A release and what it has."""

    id: int
    tag: str
    upload_url: str
    assets: tuple[Asset, ...]

    def asset(self, name: str) -> Asset | None:
        """The asset of that name."""
        return next((asset for asset in self.assets if asset.name == name), None)


class GitHub:
    """One repository."""

    def __init__(self, repository: str, token: str = "", api: str = API) -> None:
        self.repository, self._token, self._api = repository, token, api.rstrip("/")

    @classmethod
    def of_environment(cls, repository: str = "", environ: Mapping[str, str] | None = None) -> GitHub | None:
        """The repository that is named, else the one that a step of GitHub Actions is in; None where there is none.

        :raises UsageError: what is named is no ``owner/name``.
        """
        env = os.environ if environ is None else environ
        name = repository or env.get("GITHUB_REPOSITORY", "")
        if not name:
            return None
        if name.count("/") != 1 or not all(name.split("/")):
            raise UsageError(f"'{one_line(name)}' is not a repository", "--repository owner/name")
        return cls(name, env.get("GH_TOKEN", ""), env.get("GITHUB_API_URL") or API)

    # -- releases --------------------------------------------------------------------------------

    def releases(self) -> list[Release]:
        """All releases, the newest first."""
        return [self._release(row) for row in self._pages("releases")]

    def release(self, tag: str) -> Release | None:
        """The release of a tag."""
        found = self.call("GET", f"releases/tags/{quote(tag, safe='')}", absent=(404,))
        return self._release(found) if found else None

    def create_release(self, tag: str, *, commit: str, title: str, notes: str, prerelease: bool) -> Release:
        """Make a release, and its tag where that is not there; one that is there already is returned."""
        body = {"tag_name": tag, "name": title, "body": notes, "prerelease": prerelease}
        made = self.call("POST", "releases", {**body, **({"target_commitish": commit} if commit else {})},
                         absent=(422,))  # fmt: skip
        found = self._release(made) if made else self.release(tag)
        if found is None:
            raise self._refused("POST", "releases", 422, f"no release {tag} could be made")
        return found

    def delete_release(self, release: Release) -> None:
        """Remove a release and its tag."""
        self.call("DELETE", f"releases/{release.id}", absent=(404,))
        self.call("DELETE", f"git/refs/tags/{quote(release.tag)}", absent=(404, 422))

    def upload(self, release: Release, name: str, content: Path | bytes) -> Asset:
        """Add a file to a release.

        :raises NetworkError: also where there is one of that name.
        """
        address = release.upload_url.split("{", maxsplit=1)[0] + f"?name={quote(name, safe='')}"
        kind = "application/json" if name.endswith(".json") else "application/octet-stream"
        return _asset(self.call("POST", address, content=content, kind=kind))

    def rename(self, asset: Asset, name: str) -> None:
        """Give an asset another name."""
        self.call("PATCH", f"releases/assets/{asset.id}", {"name": name})

    def delete(self, asset: Asset) -> None:
        """Remove an asset; one that is gone is no failure."""
        self.call("DELETE", f"releases/assets/{asset.id}", absent=(404,))

    def download(self, asset: Asset) -> bytes:
        """An asset's content, for small ones."""
        where = f"releases/assets/{asset.id}"
        address = f"{self._api}/repos/{self.repository}/{where}"
        answer = http.ask(address, headers=self._headers("application/octet-stream"))
        if answer.status != 200:
            raise self._refused("GET", where, answer.status, answer.reason)
        return answer.body

    def _release(self, row: Mapping[str, Any]) -> Release:
        assets = tuple(_asset(one) for one in self._pages(f"releases/{row['id']}/assets"))
        return Release(int(row["id"]), str(row["tag_name"]), str(row["upload_url"]), assets)

    # -- tags and pull requests ------------------------------------------------------------------

    def move_tag(self, tag: str, commit: str) -> None:
        """Point a tag at a commit; it is made where it is not there."""
        moved = self.call(
            "PATCH", f"git/refs/tags/{quote(tag)}", {"sha": commit, "force": True}, absent=(404, 422)
        )
        if moved is None:
            self.call("POST", "git/refs", {"ref": f"refs/tags/{tag}", "sha": commit})

    def commit_files(self, branch: str, base: str, files: Mapping[str, bytes | None], message: str) -> str:
        """Put one commit on ``base`` and point a branch at it, whatever it pointed at before.

        :param files: path to content; None removes it.
        :returns: the commit.
        """
        import base64

        parent = self.call("GET", f"git/commits/{base}")
        entries = []
        for path, content in sorted(files.items()):
            sha = None
            if content is not None:
                blob = {"content": base64.b64encode(content).decode(), "encoding": "base64"}
                sha = self.call("POST", "git/blobs", blob)["sha"]
            entries.append({"path": path, "mode": "100644", "type": "blob", "sha": sha})
        tree = self.call("POST", "git/trees", {"base_tree": parent["tree"]["sha"], "tree": entries})
        commit = self.call(
            "POST", "git/commits", {"message": message, "tree": tree["sha"], "parents": [base]}
        )
        name = f"heads/{quote(branch)}"
        moved = self.call(
            "PATCH", f"git/refs/{name}", {"sha": commit["sha"], "force": True}, absent=(404, 422)
        )
        if moved is None:
            self.call("POST", "git/refs", {"ref": f"refs/heads/{branch}", "sha": commit["sha"]})
        return str(commit["sha"])

    def default_branch(self) -> tuple[str, str]:
        """Name of the default branch, and its commit."""
        name = str(self.call("GET", "")["default_branch"])
        return name, str(self.call("GET", f"git/ref/heads/{quote(name)}")["object"]["sha"])

    def pull_request(self, branch: str, title: str, body: str) -> str:
        """Open a pull request of a branch, or write the open one's text again. Returns its page."""
        owner = self.repository.partition("/")[0]
        there = self.call("GET", f"pulls?state=open&head={quote(owner)}:{quote(branch)}")
        if there:
            done = self.call("PATCH", f"pulls/{there[0]['number']}", {"title": title, "body": body})
        else:
            base, _ = self.default_branch()
            done = self.call("POST", "pulls", {"title": title, "body": body, "head": branch, "base": base})
        return str(done["html_url"])

    # -- inside ----------------------------------------------------------------------------------

    def _headers(self, kind: str = "application/vnd.github+json") -> dict[str, str]:
        headers = {"Accept": kind, "X-GitHub-Api-Version": "2022-11-28"}
        return {**headers, "Authorization": f"Bearer {self._token}"} if self._token else headers

    def call(
        self, method: str, where: str, document: Any = None, *, content: Path | bytes | None = None,
        kind: str = "application/json", absent: Collection[int] = (),
    ) -> Any:  # fmt: skip
        """Ask the API.

        :param where: below the repository, or an address.
        :param absent: statuses that mean that there is no such thing: None is returned.
        :raises NetworkError: GitHub does not answer, or refuses; its words are in the message.
        """
        url = where if "://" in where else f"{self._api}/repos/{self.repository}/{where}".rstrip("/")
        sent = content if content is not None else None if document is None else json.dumps(document).encode()
        headers = {**self._headers(), **({"Content-Type": kind} if sent is not None else {})}
        answer = http.ask(url, method=method, headers=headers, send=sent, read=range(200, 500))
        if answer.status in absent:
            return None
        try:
            found = parse_json(answer.body) if answer.body.strip() else None
        except ValueError:
            found = None
        if not 200 <= answer.status < 300:
            said = found.get("message", "") if isinstance(found, dict) else ""
            raise self._refused(method, where, answer.status, said or answer.reason)
        return found

    def _pages(self, where: str) -> Iterator[Any]:
        number = 1
        while True:
            rows = self.call("GET", f"{where}?per_page={PAGE}&page={number}")
            yield from rows
            if len(rows) < PAGE:
                return
            number += 1

    def _refused(self, method: str, where: str, status: int, said: str) -> NetworkError:
        need = "see that GH_TOKEN is the token of this repository and may do that, then run it again"
        return NetworkError(f"GitHub refuses {method} {where}: {status} {one_line(said)}", need)


def _asset(row: Mapping[str, Any]) -> Asset:
    digest = str(row.get("digest") or "")
    return Asset(
        int(row["id"]),
        str(row["name"]),
        int(row["size"]),
        str(row["state"]),
        digest.removeprefix("sha256:") if digest.startswith("sha256:") else "",
        str(row["browser_download_url"]),
    )
