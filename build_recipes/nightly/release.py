"""Upload a folder to a release of the repository, with GitHub's own `gh`, which its runners have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.console import say
from build_recipes.kit.errors import MissingPackages, NetworkError, UsageError

NOTES = "Wheels of the newest green nightly builds. They are replaced every night; SHA256SUMS names them."


def upload(folder: Path, tag: str, repository: str = "") -> list[Path]:
    """Replace a release's files by those of a folder; the release is made where it is not there.

    :param repository: ``owner/name``; GitHub Actions' own by default. Without one nothing is uploaded.
    :returns: the files.
    :raises UsageError: the folder is not there.
    :raises MissingPackages: there is no `gh`.
    :raises NetworkError: GitHub did not take them; `gh`'s words are in the message.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "./inv gather makes it")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    repository = repository or os.environ.get("GITHUB_REPOSITORY", "")
    if not repository or not files:
        why = "no repository is named" if files else f"{folder} is empty"
        say(f"{why}: nothing is uploaded ({', '.join(path.name for path in files) or 'no files'})")
        return files
    program = shutil.which("gh")
    if program is None:
        raise MissingPackages(
            "GitHub's gh, which uploads releases, is not installed", "apt-get install -y gh"
        )
    there = process.run([program, "release", "view", tag, "--repo", repository])
    if not there.ok:
        _run([program, "release", "create", tag, "--repo", repository, "--prerelease", "--title", tag,
              "--notes", NOTES])  # fmt: skip
    _run([program, "release", "upload", tag, "--repo", repository, "--clobber", *map(str, files)])
    return files


def _run(command: list[str]) -> None:
    done = process.run(command)
    if not done.ok:
        raise NetworkError(
            f"gh {' '.join(command[1:3])} failed:\n" + "\n".join(done.tail[-5:]),
            "see that GH_TOKEN may write releases, then run it again",
        )
