"""What a commit is called: git's nearest tag, by setuptools-scm's rules."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.version import Version

from build_recipes.kit import process
from build_recipes.kit.errors import ToolFailed

SEAL = ".vllm-armory-commit"
VERSION = ".vllm-armory-version"
"""What the commit is called: `git describe` with setuptools-scm's rules."""


def describe(folder: Path, *git: str, revision: str = "HEAD") -> str:
    """``git describe`` of a folder, ``v0.33.0-12-g<40 digits>``; empty where no tag is to be found."""
    words = ["describe", "--long", "--tags", "--abbrev=40", "--match", "v[0-9]*", revision]
    place = git or ("-c", f"safe.directory={folder}", "-C", str(folder))
    try:
        return process.capture(["git", *place, *words]).strip()
    except ToolFailed:
        return ""


def next_version(described: str) -> str:
    """setuptools-scm's version (guess-next-dev, no local part) of a long ``git describe``; empty for no version.

    https://setuptools-scm.readthedocs.io/en/latest/extending/#setuptools_scmversion_scheme
    """
    match = re.fullmatch(r"v(.+)-(\d+)-g[0-9a-f]+", described)
    if not match:
        return ""
    try:
        tag, distance = Version(match.group(1)), int(match.group(2))
    except ValueError:
        return ""
    if not distance:
        return str(tag)
    text = str(tag.public)
    if tag.is_prerelease or tag.post is not None:
        head, number = re.fullmatch(r"(.*?)(\d+)", text).groups()  # type: ignore[union-attr]
        return f"{head}{int(number) + 1}.dev{distance}"
    head, _, last = text.rpartition(".")
    return f"{head}.{int(last) + 1}.dev{distance}"
