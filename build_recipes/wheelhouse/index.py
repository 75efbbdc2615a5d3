"""The wheels folder as a static package index: PEP 503 pages, PEP 691 JSON, PEP 658/714 metadata, hashes.

    wheels/<wheel>  wheels/<wheel>.metadata
    wheels/simple/index.{html,json}  wheels/simple/<project>/index.{html,json}

Any web server can serve the folder; pip also takes ``file:`` addresses. Each page is replaced in one step,
the metadata files before the pages that name them, so a reader never sees a page that points to nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import html
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from build_recipes.formats.wheel import Wheel
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import NotWritable
from build_recipes.kit.hashing import file_sha256

PAGES = "simple"
_HASHES = ".hashes.json"
_API = "1.1"


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
    mtime: float
    """Seconds since 1970."""


def write_index(wheels: Path) -> list[Entry]:
    """Write the index of a folder of wheels; files that are no wheels are left alone.

    :returns: its entries, by project and version.
    :raises NotAWheel: a file called .whl is none.
    :raises NotWritable: the folder cannot be written.
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
    with (wheels / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write(wheels: Path) -> list[Entry]:
    known = _known(wheels / _HASHES)
    entries = []
    for path in sorted(wheels.glob("*.whl")):
        entries.append(_entry(path, known.get(path.name)))
    kept = {f"{entry.file}.metadata" for entry in entries}
    projects = {entry.project for entry in entries}
    for project in sorted(projects):
        own = [entry for entry in entries if entry.project == project]
        own.sort(key=lambda entry: (Version(entry.version), entry.file))
        write_atomic(wheels / PAGES / project / "index.html", _page(project, own))
        write_atomic(wheels / PAGES / project / "index.json", json.dumps(_document(project, own), indent=1))
    links = "".join(f'<a href="{name}/">{name}</a><br>\n' for name in sorted(projects))
    root = {"meta": {"api-version": _API}, "projects": [{"name": name} for name in sorted(projects)]}
    write_atomic(wheels / PAGES / "index.html", _frame("Simple index", links))
    write_atomic(wheels / PAGES / "index.json", json.dumps(root, indent=1))
    write_atomic(wheels / _HASHES, json.dumps({entry.file: _stamp(entry) for entry in entries}))
    for stale in wheels.glob("*.whl.metadata"):
        if stale.name not in kept:
            stale.unlink()
    for page in (wheels / PAGES).glob("*/index.*"):
        if page.parent.name not in projects:
            page.unlink()
    return sorted(entries, key=lambda entry: (entry.project, Version(entry.version), entry.file))


def _known(path: Path) -> dict[str, dict[str, Any]]:
    """What an earlier index knew: file to size, time and hash, so that wheels are hashed once."""
    try:
        return msgspec.convert(msgspec.json.decode(path.read_bytes()), dict[str, dict[str, Any]])
    except (OSError, msgspec.MsgspecError):
        return {}


def _stamp(entry: Entry) -> dict[str, Any]:
    return {"size": entry.size, "mtime": entry.mtime, "sha256": entry.sha256}


def _entry(path: Path, known: dict[str, Any] | None) -> Entry:
    status = path.stat()
    with Wheel(path) as wheel:
        metadata = wheel.text(f"{wheel.dist_info}/METADATA").encode()
        requires_python = wheel.metadata.get("Requires-Python", "")
        project, version = wheel.name, wheel.version
    with suppress(InvalidWheelFilename):
        version = str(parse_wheel_filename(path.name)[1])
    fresh = known and known.get("size") == status.st_size and known.get("mtime") == status.st_mtime
    digest = known["sha256"] if known and fresh else file_sha256(path)
    beside = path.with_name(f"{path.name}.metadata")
    if not beside.exists() or beside.read_bytes() != metadata:
        write_atomic(beside, metadata)
    return Entry(
        file=path.name,
        project=project,
        version=version,
        sha256=digest,
        metadata=hashlib.sha256(metadata).hexdigest(),
        requires_python=requires_python,
        size=status.st_size,
        mtime=status.st_mtime,
    )


def _frame(title: str, body: str) -> str:
    return (
        "<!DOCTYPE html>\n<html><head>"
        f'<meta name="pypi:repository-version" content="{_API}"><meta charset="utf-8"><title>{title}</title>'
        f"</head><body>\n{body}</body></html>\n"
    )


def _page(project: str, entries: list[Entry]) -> str:
    """PEP 503 page with PEP 658/714 attributes."""
    lines = []
    for entry in entries:
        python = (
            f' data-requires-python="{html.escape(entry.requires_python)}"' if entry.requires_python else ""
        )
        core = f"sha256={entry.metadata}"
        lines.append(
            f'<a href="../../{quote(entry.file)}#sha256={entry.sha256}"{python}'
            f' data-core-metadata="{core}" data-dist-info-metadata="{core}">'
            f"{html.escape(entry.file)}</a><br>\n"
        )
    return _frame(f"Links for {project}", "".join(lines))


def _document(project: str, entries: list[Entry]) -> dict[str, Any]:
    """PEP 691 document (API 1.1: versions and sizes)."""
    files = [
        {
            "filename": entry.file,
            "url": f"../../{quote(entry.file)}",
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
