"""Patches on plain folders by the real git: check, apply, reverse, 3-way. Nothing here touches a source tree:
all of it happens in a scratch folder that holds copies of the files a patch names."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from build_recipes.kit import process
from build_recipes.kit.errors import BadData, MissingPackages, ToolFailed
from build_recipes.kit.once import remove_tree

Outcome = Literal["applies", "3-way", "already", "conflict"]
Files = Mapping[str, bytes]
"""Contents by path."""
CONTEXT = 3


@dataclass(frozen=True)
class Attempt:
    """What became of one patch file on one set of files."""

    outcome: Outcome
    detail: str = ""
    """For a conflict: file and line, the hunk, and the file's own lines there."""


class Scratch:
    """Copies of some files of a tree, in a folder of their own, which patches are tried on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "LC_ALL": "C",
            "GIT_CEILING_DIRECTORIES": str(folder.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def take(self, tree: Path, names: Iterator[str] | tuple[str, ...]) -> None:
        """Copy files of ``tree`` here; an absent one stays absent, one that is here already is kept."""
        for name in names:
            source, target = tree / name, self.folder / name
            if target.exists() or not source.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def apply(self, patch: Path, base: Callable[[], Files | None] = lambda: None) -> Attempt:
        """Put a patch on the files, or leave them as they are and say why it does not fit.

        :param base: gives the files the patch was written against, for a 3-way merge, or None where they are
            not here; asked only when the patch does not fit as it is.
        """
        refused = self._git("apply", "--check", patch)
        if refused is None:
            self._git("apply", patch)
            return Attempt("applies")
        if self._git("apply", "--check", "--reverse", patch) is None:
            return Attempt("already")
        files = base()
        if files and self._three_way(patch, files):
            return Attempt("3-way")
        return Attempt("conflict", _explain(refused, patch, self.folder))

    def _three_way(self, patch: Path, base: Files) -> bool:
        kept = {name: (self.folder / name).read_bytes() for name in base if (self.folder / name).is_file()}
        self._git("init", "--quiet")
        try:
            for name, content in base.items():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
            self._git("add", "--all", "--force", "--", *base)
            for name in base:
                (self.folder / name).unlink()
            for name, content in kept.items():
                (self.folder / name).write_bytes(content)
            self._git("add", "--all", "--force", "--", *base)
            merged = self._git("apply", "--3way", patch) is None
            if not merged:
                for name, content in kept.items():
                    (self.folder / name).write_bytes(content)
            return merged
        finally:
            remove_tree(self.folder / ".git")

    def _git(self, *words: str | Path) -> str | None:
        """Run git here; None where it succeeds, else what it said."""
        try:
            process.capture(["git", *words], cwd=self.folder, env=self._environment)
        except ToolFailed as error:
            _need_git(error)
            return error.words
        return None


@contextmanager
def scratch() -> Iterator[Scratch]:
    """A scratch folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="armory-patch-") as folder:
        yield Scratch(Path(folder).resolve())


def touched(patch: Path) -> tuple[str, ...]:
    """The files a patch names, in its order.

    :raises BadData: the file is no patch, or damaged.
    """
    try:
        listing = process.capture(["git", "apply", "--numstat", patch])
    except ToolFailed as error:
        _need_git(error)
        raise BadData(
            f"{patch} is not a whole patch: {error.words}", "restore it: git checkout -- patches/"
        ) from None
    return tuple(line.split("\t", 2)[2] for line in listing.splitlines())


def _need_git(error: ToolFailed) -> None:
    """:raises MissingPackages: git could not even be started."""
    if error.code is None:
        raise MissingPackages("git is not installed", "install it: apt-get install git") from None


def _explain(said: str, patch: Path, folder: Path) -> str:
    """The hunk that does not fit and the lines that are in its place."""
    absent = re.search(r"^error: (\S+): No such file", said, re.MULTILINE)
    if absent:
        return f"{absent[1]} is not in the tree"
    failed = re.search(r"^error: patch failed: (.+):(\d+)$", said, re.MULTILINE)
    if not failed:
        return said.strip()
    name, line = failed[1], int(failed[2])
    hunk = _hunk(patch, name, line)
    lines = (folder / name).read_text(errors="replace").splitlines()
    length = sum(1 for text in hunk if text[:1] in " -")
    first = max(0, _nearest(lines, hunk, line - 1) - CONTEXT)
    here = [f"{first + n + 1:6} {text}" for n, text in enumerate(lines[first : first + length + 2 * CONTEXT])]
    return "\n".join([f"{name}:{line}: this hunk does not fit", *hunk, f"{name} has here", *here])


def _hunk(patch: Path, name: str, line: int) -> list[str]:
    found: list[str] = []
    current = ""
    for text in patch.read_text(errors="replace").splitlines():
        if text.startswith(("diff --git", "@@")) and found:
            break
        if text.startswith("+++ "):
            current = text[4:].removeprefix("b/")
        elif text.startswith(f"@@ -{line},") and current == name:
            found = [text]
        elif found:
            found.append(text)
    return found


def _nearest(lines: list[str], hunk: list[str], guess: int) -> int:
    """Where in the file the hunk's old lines agree best, as an index."""
    old = [text[1:] for text in hunk if text[:1] in (" ", "-")]
    if not old or not lines:
        return max(0, min(guess, len(lines) - 1))
    known = {text for text in old if text.strip()}

    def agreement(start: int) -> tuple[int, int]:
        return sum(text in known for text in lines[start : start + len(old)]), -abs(start - guess)

    return max(range(max(1, len(lines) - len(old) + 1)), key=agreement)
