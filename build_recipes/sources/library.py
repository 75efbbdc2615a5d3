"""Where a repository is had: the given mirrors first, then bare mirrors of our own in the cache."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.errors import OfflineError
from build_recipes.sources.mirrors import key
from build_recipes.sources.remote import fetch_commit, held, ls_remote
from build_recipes.sources.repository import Repository, missing, slug


@dataclass(frozen=True)
class Library:
    """All repositories: the given mirrors first, then bare mirrors of our own in the cache."""

    cache: Path
    mirrors: Mapping[str, Path]
    offline: bool = False

    def given(self, url: str) -> Repository | None:
        """The local mirror that stands in for ``url``."""
        for address, folder in self.mirrors.items():
            if key(address) == key(url):
                return Repository(url, folder / ".git" if (folder / ".git").is_dir() else folder)
        return None

    def own(self, url: str) -> Repository:
        """Our own bare mirror of ``url``, whether it is there or not."""
        return Repository(url, self.cache / f"{slug(url)}.git")

    def here(self, url: str, commit: str) -> bool:
        """Whether a commit is on this machine: in the given mirror, or in our own."""
        mirror, own = self.given(url), self.own(url)
        return (mirror is not None and mirror.has(commit)) or (own.git_dir.exists() and own.has(commit))

    def with_commit(self, url: str, commit: str, revision: str = "") -> Repository:
        """A repository that holds ``commit``, fetched where it must be.

        :param revision: a tag that names the commit, for servers that do not give single commits.
        :raises RevisionMissing: the repository does not have it.
        :raises OfflineError: not in the cache, and the network is not to be used.
        :raises NetworkError: the host does not answer.
        """
        mirror, own = self.given(url), self.own(url)
        if mirror is not None and mirror.has(commit):
            return mirror
        if own.git_dir.exists() and own.has(commit):
            return own  # a commit is its content, wherever it came from
        if mirror is not None:
            raise missing(url, commit, f"the mirror {mirror.git_dir}")
        if self.offline:
            raise OfflineError(
                f"commit {commit[:12]} of {url} is not in the cache and the network is not to be used",
                f"--mirror {url}=DIR, or ./inv mirror --from BUNDLE",
            )
        with held(own.git_dir):
            if not own.has(commit):
                fetch_commit(own, commit, revision)
        return own

    def resolve(self, url: str, revision: str) -> str:
        """The commit that a tag, a branch or a full hash names.

        :raises RevisionMissing: no such tag or branch.
        :raises OfflineError: only the network could tell.
        :raises NetworkError: the host does not answer.
        """
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            return revision
        if (mirror := self.given(url)) is not None:
            return mirror.resolve(revision)
        if self.offline:
            raise OfflineError(
                f"which commit {revision} of {url} is can only be asked over the network",
                f"--mirror {url}=DIR",
            )
        refs = ls_remote(url, f"refs/tags/{revision}", f"refs/tags/{revision}^{{}}", f"refs/heads/{revision}")
        for name in (f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", f"refs/heads/{revision}"):
            if name in refs:
                return refs[name]
        raise missing(url, revision, "its tags and branches")
