"""Git repositories on this machine, only read: objects, revisions, and plain folders made of a commit."""

from __future__ import annotations

import contextlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import git

from build_recipes.kit import console
from build_recipes.kit.errors import RevisionMissing, SourceIncomplete
from build_recipes.kit.once import replaced
from build_recipes.sources.mirrors import key

ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",  # not ext: an address must not name a command
}
_OPTIONS = [
    "core.autocrlf=false",
    "advice.detachedHead=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "gc.auto=0",
]
_PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".mp4", ".pdf"}


def slug(url: str) -> str:
    """A folder name for a repository."""
    return re.sub(r"[^a-z0-9.]+", "-", key(url)).strip("-")


@dataclass(frozen=True)
class Repository:
    """A git repository on this machine that is only read."""

    url: str
    git_dir: Path

    def git(
        self,
        *arguments: str,
        work_tree: Path | None = None,
        index: Path | None = None,
        given: str | None = None,
        alternates: str = "",
        **options: Any,
    ) -> str:
        """Output of one git command, which reads ``given``. Raises `git.GitCommandError`.

        :param alternates: other object folders to look into, separated as PATH is.
        """
        environment = dict(ENVIRONMENT)
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        if alternates:
            environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = alternates
        command = ["git", *config_options(self.git_dir), f"--git-dir={self.git_dir}"]
        if work_tree is not None:
            command.append(f"--work-tree={work_tree}")
        with tempfile.TemporaryFile() as stream:
            stream.write((given or "").encode("utf-8", "surrogateescape"))
            stream.seek(0)
            options.setdefault("istream", stream)
            output = git.Git(work_tree or self.git_dir).execute(
                [*command, *arguments], env=environment, with_extended_output=False, **options
            )
        return str(output)

    def has(self, commit: str) -> bool:
        """Whether the commit and its tree are there (a tag object of that hash is no commit)."""
        try:
            return self.git("cat-file", "-t", f"{commit}^{{tree}}") == "tree"
        except (git.GitCommandError, git.GitCommandNotFound):  # a plan is shown on a machine without git, too
            return False

    def resolve(self, revision: str) -> str:
        """The commit a full hash, a tag or a branch names, in that order.

        :raises RevisionMissing: none of these.
        """
        names = [f"refs/tags/{revision}", f"refs/heads/{revision}", f"refs/remotes/origin/{revision}"]
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            names = [revision]
        for name in names:
            with contextlib.suppress(git.GitCommandError):
                return self.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        raise missing(self.url, revision, f"the mirror {self.git_dir}")

    def read(self, commit: str, path: str) -> str | None:
        """Text of a file in a commit; None where there is none."""
        try:
            return self.git("cat-file", "blob", f"{commit}:{path}", strip_newline_in_stdout=False)
        except git.GitCommandError:
            return None

    def gitlinks(self, commit: str) -> dict[str, str]:
        """Submodule path to the commit it is pinned to."""
        found = {}
        for entry in self.git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0"):
            head, _, path = entry.partition("\t")
            if head.startswith("160000 commit "):
                found[path] = head.split()[2]
        return found

    def export(self, commit: str, into: Path, subdir: str = "") -> list[str]:
        """Write the files of a commit, as a clone would have them, into the folder ``into``.

        A mirror may lack single large files (a partial clone). Pictures and the like are left out and
        returned; anything a build might read is an error. Submodules are left out.

        :raises RevisionMissing: the commit is not there.
        :raises SourceIncomplete: files of the commit are not there.
        """
        into.mkdir(parents=True, exist_ok=True)
        if not self.has(commit):
            raise missing(self.url, commit, str(self.git_dir))
        rows = self.git(
            "ls-tree", "-r", "-z", "--full-tree", commit, "--", *([subdir] if subdir else [])
        ).split("\0")
        blobs = [row for row in rows if row and row.split(" ", 2)[1] == "blob"]
        absent = self._absent({_oid(row) for row in blobs})
        lost = [_path(row) for row in blobs if _oid(row) in absent]
        if needed := [path for path in lost if Path(path).suffix.lower() not in _PICTURES]:
            raise SourceIncomplete(
                f"{self.git_dir} has commit {commit[:12]} of {self.url} but not {len(needed)} of its files: "
                f"{', '.join(needed[:5])}",
                f"complete it: git -C {self.git_dir} fetch --refetch origin, or leave out --mirror",
            )
        index_info = "\0".join(row for row in blobs if _oid(row) not in absent)
        with tempfile.TemporaryDirectory(prefix="armory-index.") as folder:
            index = Path(folder) / "index"
            self.git("update-index", "-z", "--index-info", work_tree=into, index=index, given=index_info)
            self.git("checkout-index", "--all", "--force", "--quiet", work_tree=into, index=index)
        return lost

    def objects(self, commit: str) -> list[str]:
        """Every object a build needs of the commit, as far as it is here: commit, trees, blobs but pictures."""
        rows = self.git("ls-tree", "-r", "-t", "-z", "--full-tree", commit).split("\0")
        oids = {
            _oid(row)
            for row in rows
            if row
            and " commit " not in row.partition("\t")[0]
            and Path(_path(row)).suffix.lower() not in _PICTURES
        }
        oids |= {commit, self.git("rev-parse", f"{commit}^{{tree}}")}
        return sorted(oids - self._absent(oids))

    def _absent(self, oids: set[str]) -> set[str]:
        """Which of these objects are not in the repository."""
        rows = self.git("cat-file", "--batch-check", given="\n".join(sorted(oids)) + "\n").splitlines()
        return {row.split()[0] for row in rows if row.endswith(" missing")}


def _oid(row: str) -> str:
    """Object of a line of ls-tree: ``<mode> <type> <object>TAB<path>``."""
    return row.partition("\t")[0].split(" ")[2]


def _path(row: str) -> str:
    return row.partition("\t")[2]


def missing(url: str, revision: str, where: str) -> RevisionMissing:
    """The error for a revision that is not there."""
    return RevisionMissing(
        f"{url} has no revision {revision} in {where}; nothing else is taken in its place",
        f"update the mirror (git -C DIR fetch --tags origin {revision}), or leave out --mirror",
    )


def config_options(git_dir: Path) -> list[str]:
    options = [*_OPTIONS, f"safe.directory={git_dir}", f"safe.directory={git_dir.parent}"]
    return [word for option in options for word in ("-c", option)]


def last_words(error: git.GitCommandError) -> str:
    """git's last words, without its decoration."""
    text = re.sub(r"^stderr: '|'$", "", str(error.stderr).strip()).strip()
    if "Could not resolve" in text:
        return "its host name cannot be resolved"
    return (
        text.splitlines()[-1].strip().removeprefix("fatal: ") if text else f"git exit status {error.status}"
    )


# -- whole trees ---------------------------------------------------------------------------------


def export_tree(parts: list[tuple[str, Repository, str, str]], into: Path) -> None:
    """Write commits as one plain folder, whole or not at all.

    :param parts: (folder below ``into``, repository, commit, only this folder of it); the root comes first.
    """

    def fill(beside: Path) -> None:
        for folder, repository, commit, subdir in parts:
            if lost := repository.export(commit, beside / folder, subdir):
                more = f" and {len(lost) - 1} more pictures" if lost[1:] else ""
                console.warn(f"{repository.git_dir} lacks {lost[0]}{more}; no build reads them")

    replaced(into, fill)
