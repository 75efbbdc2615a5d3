"""The wheels folder as a static package index: PEP 503 pages, PEP 691 JSON, PEP 658/714 metadata, hashes.

    wheels/<wheel>  wheels/<wheel>.metadata
    wheels/simple/index.{html,json}  wheels/simple/<project>/index.{html,json}

Any web server can serve the folder; pip also takes ``file:`` addresses. Each page is replaced in one step,
the metadata files before the pages that name them, so a reader never sees a page that points to nothing.
Names come out of the wheels, so they are believed only as far as PEP 427, 440 and 503 go: a wheel whose name is
no project's, or not its file's, is refused, and nothing is written but below the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from build_recipes.formats.wheel import Wheel, incomplete
from build_recipes.kit import evidence
from build_recipes.kit.console import one_line
from build_recipes.kit.data import Model, read_sealed, write_atomic, write_sealed
from build_recipes.kit.errors import ArmoryError, NotAWheel, NotWritable
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.pages import page

PAGES = "simple"
_HASHES = ".hashes.json"
_API = "1.1"
_ROOM = "build_recipes.wheelhouse"


@dataclass(frozen=True)
class Entry:
    """One wheel of the index."""

    file: str
    project: str
    version: str
    sha256: str
    """Of the wheel."""
    metadata: str
    """SHA-256 of its METADATA."""
    requires_python: str
    size: int
    """Bytes."""


class _Known(Model, frozen=True):
    """What an earlier index knew of a wheel, so that it is hashed once."""

    stamp: str
    """`kit.evidence.stamp`: what must be unchanged for the file not to have been written since."""
    sha256: str


def write_index(wheels: Path) -> list[Entry]:
    """Write the index of a folder of wheels; files that are not wheels are left alone.

    :returns: its entries, by project and version.
    :raises NotAWheel: files called .whl are none, or say a name or version that is none; all of them are told,
        and the pages stay as they were.
    :raises NotWritable: the folder cannot be written, or a link stands where a page is to be.
    """
    try:
        with _locked(wheels):
            return _write(wheels)
    except PermissionError as error:
        raise NotWritable(f"{wheels} cannot be written: {error.strerror}", f"chmod u+w {wheels}") from error


@contextmanager
def _locked(wheels: Path) -> Iterator[None]:
    """Two publishes at once take turns."""
    wheels.mkdir(parents=True, exist_ok=True)
    for place in (wheels / PAGES, *(wheels / PAGES).glob("*"), wheels / ".lock"):
        if place.is_symlink():
            raise NotWritable(
                f"{place} is a link: the index is written into its own folder only", f"rm {place}"
            )
    handle = os.open(wheels / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(wheels: Path) -> list[Entry]:
    entries = _entries(wheels)
    projects = write_pages(wheels / PAGES, entries, _address)
    known = {one.file: _Known(stamp=evidence.stamp(wheels / one.file), sha256=one.sha256) for one in entries}
    write_sealed(wheels / _HASHES, known)
    kept = {f"{entry.file}.metadata" for entry in entries}
    for stale in wheels.glob("*.whl.metadata"):
        if stale.name not in kept:
            stale.unlink()
    for old in (wheels / PAGES).glob("*/index.*"):
        if old.parent.name not in projects:
            old.unlink()
    return entries


def write_pages(folder: Path, entries: Iterable[Entry], address: Callable[[Entry], str]) -> list[str]:
    """Write the pages of an index: PEP 503, and PEP 691 beside it.

    :param folder: ``simple``.
    :param address: where a wheel is, as seen from its project's page or in whole; without a fragment.
    :returns: its projects.
    """
    projects: dict[str, list[Entry]] = {}
    for entry in entries:
        projects.setdefault(entry.project, []).append(entry)
    for project, own in projects.items():
        links = [
            {"href": f"{address(one)}#sha256={one.sha256}", "attributes": _attributes(one), "text": one.file}
            for one in own
        ]
        _pages(folder / project, f"Links for {project}", links, _document(project, own, address))
    links = [{"href": f"{name}/", "attributes": {}, "text": name} for name in projects]
    root = {"meta": {"api-version": _API}, "projects": [{"name": name} for name in projects]}
    _pages(folder, "Simple index", links, root)
    return list(projects)


def _entries(wheels: Path) -> list[Entry]:
    """Every whole wheel of the folder, by project and version: smoke and partial ones are not offered."""
    known = read_sealed(wheels / _HASHES, dict[str, _Known]) or {}  # not whole: every wheel is hashed
    entries, refused = [], []
    for path in sorted(wheels.glob("*.whl")):
        if not path.name.startswith(".") and not incomplete("".join(path.name.split("-")[1:2])):
            try:
                entries.append(_entry(path, known.get(path.name)))
            except NotAWheel as error:
                refused.append(str(error.args[0]))
            except ArmoryError as error:
                refused.append(f"{one_line(path.name)}: {error.args[0]}")
    if refused:
        raise NotAWheel(
            f"{wheels} holds what no index can list:\n  " + "\n  ".join(refused),
            "move these files elsewhere, then ./inv index",
        )
    return sorted(entries, key=lambda entry: (entry.project, Version(entry.version), entry.file))


def _entry(path: Path, known: _Known | None) -> Entry:
    shown = one_line(path.name)
    if path.is_symlink() or not path.is_file():
        raise NotAWheel(f"{shown} is a link or no file", "copy the wheel itself")
    try:
        if not re.fullmatch(r"[A-Za-z0-9._+!-]+", path.name):
            raise InvalidWheelFilename("it has characters that no wheel's name has")
        project, version = parse_wheel_filename(path.name)[:2]
    except InvalidWheelFilename as error:
        raise NotAWheel(f"{shown} is not a wheel's file name: {one_line(str(error))}", "rename it") from error
    status = path.stat()
    with Wheel(path) as wheel:
        if (wheel.name, Version(wheel.version)) != (project, version):
            raise NotAWheel(
                f"{shown} says in its METADATA that it is {wheel.name} {wheel.version}: pip and uv would refuse it",
                "give the file the name that it was made with",
            )
        metadata = wheel.text(f"{wheel.dist_info}/METADATA").encode()
        requires_python = wheel.metadata.get("Requires-Python", "")
    fresh = known is not None and known.stamp == evidence.stamp(path)
    beside = path.with_name(f"{path.name}.metadata")
    if beside.is_symlink() or not beside.exists() or beside.read_bytes() != metadata:
        write_atomic(beside, metadata)
    return Entry(
        file=path.name,
        project=str(project),
        version=str(version),
        sha256=known.sha256 if known and fresh else file_sha256(path),
        metadata=hashlib.sha256(metadata).hexdigest(),
        requires_python=str(requires_python),
        size=status.st_size,
    )


def _pages(folder: Path, title: str, links: list[dict[str, Any]], document: dict[str, Any]) -> None:
    write_atomic(folder / "index.html", page(_ROOM, "index.html", api=_API, title=title, links=links))
    write_atomic(folder / "index.json", json.dumps(document, indent=1))


def _address(entry: Entry) -> str:
    return f"../../{quote(entry.file)}"


def _attributes(entry: Entry) -> dict[str, str | None]:
    """Of a PEP 503 link, with PEP 658 and 714."""
    return {
        "data-requires-python": entry.requires_python or None,
        "data-core-metadata": f"sha256={entry.metadata}",
        "data-dist-info-metadata": f"sha256={entry.metadata}",
    }


def _document(project: str, entries: list[Entry], address: Callable[[Entry], str]) -> dict[str, Any]:
    """PEP 691 document (API 1.1: versions and sizes)."""
    files = [
        {
            "filename": entry.file,
            "url": address(entry),
            "hashes": {"sha256": entry.sha256},
            "requires-python": entry.requires_python or None,
            "size": entry.size,
            "core-metadata": {"sha256": entry.metadata},
            "dist-info-metadata": {"sha256": entry.metadata},
        }
        for entry in entries
    ]
    versions = list(dict.fromkeys(entry.version for entry in entries))
    return {"meta": {"api-version": _API}, "name": project, "versions": versions, "files": files}
