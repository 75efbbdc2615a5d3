"""Python files of a wheel, an sdist or a source tree, read in memory: nothing is unpacked to disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from build_recipes.formats.archive import entries
from build_recipes.kit.errors import CouldNotCheck, DamagedArchive

LARGEST = 8_000_000
"""Bytes past which a source file is not read: no module written by hand is that long."""

_KEPT = ("setup.py", "PKG-INFO", "METADATA", "entry_points.txt")
_COMPILED = (".so", ".pyd")
_YAML = (".yaml", ".yml")

Member = tuple[str, int, "bytes | None"]
"""Path below the archive's top, size, content (None where it is not read)."""


@dataclass
class Contents:
    """What an archive or a tree holds of one package."""

    origin: str
    """The file or folder, as people know it."""
    package: str
    name: str = ""
    """Distribution name from its metadata, normalised; empty where there is none."""
    version: str = ""
    requires: list[str] = field(default_factory=list)
    """``Requires-Dist`` lines."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Python source by path: ``vllm/config/model.py``. Empty for a file in ``unread``."""
    unread: dict[str, str] = field(default_factory=dict)
    """Files that were not read, with the reason."""
    compiled: list[str] = field(default_factory=list)
    """Compiled modules, by path."""
    extras: dict[str, str] = field(default_factory=dict)
    """``setup.py``, ``entry_points.txt`` and ``common.txt`` (the requirements), where they are."""
    mentions: set[str] = field(default_factory=set)
    """Dotted names below the package in its YAML files: classes that are loaded by name."""


def read(path: Path, package: str) -> Contents:
    """Read the Python files of ``package`` from a wheel, an sdist or a folder.

    :raises CouldNotCheck: the file is damaged, of no known kind, or holds no such package.
    :raises UnsafeArchive: a member's path climbs out of the archive.
    """
    found = Contents(origin=path.name, package=package)
    if path.is_dir():
        members = _folder(path, package)
    elif path.name.endswith((".whl", ".zip", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".tar")):
        members = _archive(path, package)
    else:
        raise CouldNotCheck(
            f"{path} is not a wheel, sdist or folder"
            if path.exists()
            else f"{path} does not exist, and is not a version of {package.replace('_', '-')}",
            f"give a version, a .whl, a .tar.gz, or a folder that holds {package}/",
        )
    try:
        for name, size, content in members:
            _keep(found, name, size, content)
    except (DamagedArchive, OSError) as error:
        if not path.exists():
            raise CouldNotCheck(f"{path} does not exist", "check the path") from error
        raise CouldNotCheck(
            f"{path} is damaged or cut short: {error.args[0] if isinstance(error, DamagedArchive) else error}",
            "remove the file, then run the same command: what came from an index is fetched again",
        ) from error
    if not found.files:
        held = f"; it is {found.name} {found.version}".rstrip() if found.name else ""
        raise CouldNotCheck(
            f"{path} holds no package {package}{held}",
            f"give a wheel, an sdist or a tree of {package.replace('_', '-')}",
        )
    return found


def data_files(path: Path, package: str) -> Iterator[tuple[str, bytes]]:
    """What a package's modules may open while they are imported: its files that are no code, by path.

    :raises DamagedArchive: see `formats.archive.entries`.
    """
    top = f"{package}/"
    if path.is_dir():
        root = path.parent if path.name == package and (path / "__init__.py").is_file() else path
        for item in sorted((root / package).rglob("*")):
            data = item.is_file() and not item.name.endswith((".py", *_COMPILED))
            if data and item.stat().st_size <= LARGEST:
                yield item.relative_to(root).as_posix(), item.read_bytes()
        return
    top_folder = path.suffix not in (".whl", ".zip")
    for entry in entries(path):
        name = entry.name.partition("/")[2] if top_folder else entry.name
        data = entry.kind == "file" and name.startswith(top) and not name.endswith(".py")
        if data and _read_at_all(name, entry.size):
            yield name, entry.read()


def _keep(found: Contents, name: str, size: int, content: bytes | None) -> None:
    if name.startswith(f"{found.package}/"):
        if name.endswith(_COMPILED):
            found.compiled.append(name)
            return
        if name.endswith(_YAML):
            pattern = rf"\b{found.package}(?:\.\w+)+"
            found.mentions.update(re.findall(pattern, (content or b"").decode("utf-8", "replace")))
            return
        found.files[name] = content or b""
        if content is None:
            found.unread[name] = f"{size / 1e6:.0f} MB is too long for a source file"
    elif content is not None:
        _metadata(found, name.rpartition("/")[2], content.decode("utf-8", "replace"))


def _metadata(found: Contents, last: str, text: str) -> None:
    if last not in ("PKG-INFO", "METADATA"):
        found.extras[last] = text
    elif not found.name:
        header = HeaderParser().parsestr(text)
        found.name = re.sub(r"[-_.]+", "-", header.get("Name", "")).lower()
        found.version = header.get("Version", "")
        found.requires = header.get_all("Requires-Dist") or []


def _wanted(name: str, package: str) -> bool:
    if name == "requirements/common.txt":
        return True
    if name.startswith(f"{package}/"):
        return name.endswith((".py", *_COMPILED, *_YAML))
    folder, _, last = name.rpartition("/")
    return last in _KEPT and (
        not folder or ("/" not in folder and folder.endswith((".dist-info", ".egg-info")))
    )


def _read_at_all(name: str, size: int) -> bool:
    return size <= LARGEST and not name.endswith(_COMPILED)


def _archive(path: Path, package: str) -> Iterator[Member]:
    """Members of a wheel as they lie, of a source distribution below its top folder."""
    top_folder = path.suffix not in (".whl", ".zip")
    for entry in entries(path):
        name = entry.name.partition("/")[2] if top_folder else entry.name
        if entry.kind == "file" and _wanted(name, package):
            yield name, entry.size, entry.read() if _read_at_all(name, entry.size) else None


def _folder(path: Path, package: str) -> Iterator[Member]:
    if path.name == package and (path / "__init__.py").is_file():
        path = path.parent
    candidates = [
        *sorted(item for kept in _KEPT for item in path.glob(kept)),
        *sorted(item for kept in _KEPT for item in path.glob(f"{package}*-info/{kept}")),
        path / "requirements" / "common.txt",
        *sorted((path / package).rglob("*")),
    ]
    for item in candidates:
        name = item.relative_to(path).as_posix()
        if item.is_file() and _wanted(name, package):
            size = item.stat().st_size
            yield name, size, item.read_bytes() if _read_at_all(name, size) else None
