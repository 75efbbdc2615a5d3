"""vLLM's main branch as a source tree, pinned to a commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import git

from build_recipes.facts import versions
from build_recipes.kit import console
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import NetworkError, UsageError
from build_recipes.kit.once import replaced
from build_recipes.kit.paths import Places
from build_recipes.sources.library import Library
from build_recipes.sources.mirrors import configured_mirrors
from build_recipes.sources.remote import fetch_history
from build_recipes.sources.repository import Repository, config_options, export_tree
from build_recipes.sources.scm import SEAL, VERSION, describe, next_version


def checkout(
    ref: str, to: str, places: Places, *, offline: bool = False, mirrors: Mapping[str, Path] | None = None
) -> dict[str, str]:
    """Bring vLLM at a branch, tag or commit into a folder. Does nothing where it is there already.

    :param mirrors: repository address to a local one; the configuration's where it is not given.
    :returns: ``ref``, ``commit`` and ``folder``.
    :raises UsageError: the folder holds something else.
    :raises RevisionMissing: there is no such branch, tag or commit.
    :raises NetworkError: the host does not answer.
    """
    if not ref or not to:
        raise UsageError(
            "./inv tree needs a revision and a folder", "./inv tree --ref main --to build/vllm-main"
        )
    into = Path(to).resolve()
    if into.exists() and not (into / SEAL).is_file() and any(into.iterdir()):
        raise UsageError(f"{into} holds something that is not ours", "name another folder with --to")
    url = versions.facts().repository
    library = Library(places.git, configured_mirrors() if mirrors is None else mirrors, offline)
    commit = library.resolve(url, ref)
    if (into / SEAL).is_file() and (into / SEAL).read_text().strip() == commit:
        return {"ref": ref, "commit": commit, "folder": str(into)}
    named = "" if re.fullmatch(r"[0-9a-f]{40}", ref) else ref
    repository = library.with_commit(url, commit, named)

    version = _version(repository, commit, offline=offline)

    def fill(beside: Path) -> Path:
        export_tree([("", repository, commit, "")], beside / "vllm")
        write_atomic(beside / "vllm" / SEAL, commit + "\n")
        if version:
            write_atomic(beside / "vllm" / VERSION, version + "\n")
        return beside / "vllm"

    replaced(into, fill)
    return {"ref": ref, "commit": commit, "folder": str(into)}


def _version(repository: Repository, commit: str, *, offline: bool) -> str:
    """What setuptools-scm would call a commit; empty where no tag can be found."""
    where = (*config_options(repository.git_dir), f"--git-dir={repository.git_dir}")
    described = describe(repository.git_dir, *where, revision=commit)
    if not described and not offline:
        try:
            fetch_history(repository, commit)
        except (NetworkError, git.GitCommandError) as error:
            console.warn(f"the tags before {commit[:12]} cannot be read: {error.args[0]}")
        described = describe(repository.git_dir, *where, revision=commit)
    return next_version(described)
