"""`./inv propose`: what an adoption changed, as one commit on a branch of its own and a pull request.

This needs no checkout and runs none of vLLM's code: only it is given a token that may write.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from build_recipes.kit.data import Model, load_json
from build_recipes.kit.errors import BadData, UsageError
from build_recipes.nightly.adopt.command import CHANGES, WRITES
from build_recipes.nightly.publishing.github import GitHub

BODY = 60_000
"""Characters of a pull request's text: GitHub takes 65,536."""


class Changes(Model, frozen=True):
    """changes.json."""

    branch: str
    title: str
    body: str
    files: list[str]


def propose(folder: str, repository: str = "") -> list[str]:
    """Open a pull request, or bring the open one of that branch up to date. Returns its page.

    :raises UsageError: no repository is named.
    :raises BadData: a change is not where an adoption writes.
    :raises NetworkError: GitHub refuses.
    """
    if not folder:
        raise UsageError("propose takes --changes DIR", "./inv adopt --newest leaves it in wheels/adopted")
    place = Path(folder)
    if not (place / CHANGES).is_file():
        return []
    hub = GitHub.of_environment(repository)
    if hub is None:
        raise UsageError("no repository is named", "./inv propose --changes DIR --repository owner/name")
    changes = load_json(place / CHANGES, Changes)
    files: dict[str, bytes | None] = {}
    for name in changes.files:
        if ".." in PurePosixPath(name).parts or not name.startswith(WRITES):
            raise BadData(f"{name} is not where an adoption writes", f"look at {place / CHANGES}")
        path = place / "files" / name
        files[name] = path.read_bytes() if path.is_file() and not path.is_symlink() else None
    if not files:
        return []
    base = hub.default_branch()[1]
    hub.commit_files(changes.branch, base, files, f"{changes.title}\n\n{changes.body[:BODY]}")
    return [hub.pull_request(changes.branch, changes.title, changes.body[:BODY])]
