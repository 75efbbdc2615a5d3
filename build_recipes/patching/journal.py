"""What was done to a tree, kept beside it: enough to tell ours from a stranger's changes, and to undo it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from build_recipes.formats.bounds import safe_member
from build_recipes.kit.console import one_line
from build_recipes.kit.data import Model, load_json, write_atomic
from build_recipes.kit.errors import BadData, NotWritable, TreeModified, UnsafeArchive


class Change(Model, frozen=True):
    """One file that our patches change."""

    path: str
    """Relative to the tree."""
    before: str | None
    """Its text without our patches; None where there was no such file."""
    after: str | None
    """SHA-256 of its text with them; None where they remove it."""
    earlier: str | None = None
    """SHA-256 of what stood there when this run began, where a run before had patched it."""


class Entry(Model, frozen=True):
    """One patch file that is on the tree."""

    id: str
    variant: str
    sha256: str
    files: list[str]


class Journal(Model, frozen=True):
    """The state of one tree. Written before the first file is changed, and again after the last."""

    status: Literal["applying", "applied"]
    digest: str
    """Of what was asked: version and patch files."""
    patches: list[Entry]
    changes: list[Change]


SUFFIX = ".armory-patches.json"


def place(tree: Path) -> Path:
    """Where the journal of a tree is kept: beside it, not in it."""
    tree = tree.resolve()
    return tree.parent / f".{tree.name}{SUFFIX}"


def read(tree: Path) -> Journal | None:
    """The journal of a tree, or None where nothing was done to it."""
    path = place(tree)
    if not path.exists():
        return None
    advice = f"unpack {tree} anew, and remove {path}"
    journal = load_json(path, Journal, advice)
    for change in journal.changes:
        try:
            safe_member(change.path, path.name)
            inside = (tree / change.path).resolve().is_relative_to(tree.resolve())
        except (UnsafeArchive, OSError, ValueError, RuntimeError):
            inside = False
        if not inside or (tree / change.path).is_dir():
            raise BadData(f"{path} is not right: it names '{one_line(change.path)}'", advice)
    return journal


def write(tree: Path, journal: Journal) -> None:
    """Write the journal of a tree."""
    try:
        write_atomic(place(tree), msgspec.json.format(msgspec.json.encode(journal)))
    except OSError as error:
        raise NotWritable(
            f"{place(tree)} cannot be written: {error.strerror}", "give the build folder to this user"
        ) from error


def settle(tree: Path, journal: Journal | None) -> None:
    """Keep a journal that says what stands; none where nothing of ours does."""
    if journal is None or (journal.status == "applied" and not journal.patches):
        place(tree).unlink(missing_ok=True)
    else:
        write(tree, journal)


def text_of(path: Path) -> str | None:
    """A file's text, or None where there is no file."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def sha256(text: str | None) -> str | None:
    """SHA-256 of a text, or None of none."""
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def intact(tree: Path, journal: Journal) -> bool:
    """Whether every file is as our patches left it."""
    return all(sha256(text_of(tree / change.path)) == change.after for change in journal.changes)


def originals(tree: Path, journal: Journal) -> dict[str, str | None]:
    """The texts of all changed files as they are without our patches. Nothing is written.

    :raises TreeModified: a file is neither as it was nor as we left it.
    """
    strange = [
        change.path
        for change in journal.changes
        if sha256(text_of(tree / change.path)) not in (change.after, sha256(change.before), change.earlier)
    ]
    if strange:
        raise TreeModified(
            f"{tree} has changes that are not ours in {', '.join(strange)}",
            f"unpack it anew, or undo them and run again (what we changed is in {place(tree)})",
        )
    return {change.path: change.before for change in journal.changes}


def put(tree: Path, texts: Mapping[str, str | None]) -> None:
    """Write files of a tree, each whole or not at all; None removes one. Modes stay, and so do the time
    stamps of files that are right already: a build tool must not take them for changed."""
    for name, text in texts.items():
        path = tree / name
        if text_of(path) == text:
            continue
        if text is None:
            path.unlink(missing_ok=True)
            continue
        mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
        try:
            write_atomic(path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise NotWritable(
                f"{path} cannot be written: {error.strerror}", "give the tree to this user"
            ) from error
        path.chmod(mode)
