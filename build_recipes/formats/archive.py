"""Source archives, taken apart and made with care: every member's path is checked before it is written."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from build_recipes.kit.errors import UnsafeArchive
from build_recipes.kit.once import replaced

_ADVICE = "do not use this archive; remove it from the cache and run again"


def safe_member(name: str, archive: str) -> PurePosixPath:
    """The path of a member, when it stays inside its folder.

    :raises UnsafeArchive: absolute, with ``..``, a drive, a backslash or a NUL.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UnsafeArchive(
            f"{archive} has a member '{name}' that would be written outside its folder", _ADVICE
        )
    return path


@contextlib.contextmanager
def gzip_file(archive: Path) -> Iterator[IO[bytes]]:
    """A gzip file's content, to be read from front to end; by isal, three times as fast as zlib.

    :raises gzip.BadGzipFile: it is damaged. `EOFError` where it is cut short.
    """
    from isal import igzip_threaded, isal_zlib

    opened: Callable[..., Any] = igzip_threaded.open
    try:
        with opened(archive, "rb") as stream:
            yield stream
    except cast("type[Exception]", isal_zlib.error) as error:
        raise gzip.BadGzipFile(str(error)) from error


def unpack_sdist(archive: Path, into: Path) -> Path:
    """Unpack a source distribution into the new folder ``into``, without its single top folder.

    The folder is made beside and renamed: it is whole or not there.

    :raises UnsafeArchive: a member would leave the folder, is a link that does, or is no file, folder or
        link; the archive is damaged, or has more than one top folder. Nothing is left behind.
    """

    def fill(beside: Path) -> Path:
        with tarfile.open(archive) as tar:
            for member in tar:
                _unpack_member(tar, member, beside, archive.name)
        tops = [entry for entry in beside.iterdir() if entry.is_dir() and not entry.is_symlink()]
        if len(tops) != 1:
            raise UnsafeArchive(f"{archive.name} has {len(tops)} top folders, not one", _ADVICE)
        return tops[0]

    try:
        return replaced(into, fill)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnsafeArchive(f"{archive} is damaged: {error}", _ADVICE) from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, archive: str) -> None:
    path = safe_member(member.name, archive)
    target = root / path
    _refuse_link_above(target, root, member.name, archive)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        end = os.path.normpath(os.path.join(path.parent, member.linkname))  # noqa: PTH118 (pure text)
        if PurePosixPath(member.linkname).is_absolute() or end.startswith(".."):
            raise UnsafeArchive(f"{archive}: '{member.name}' links to '{member.linkname}', outside", _ADVICE)
        target.symlink_to(member.linkname)
        return
    if member.islnk():
        origin = root / safe_member(member.linkname, archive)
        _refuse_link_above(origin, root, member.linkname, archive)
        if not origin.is_file():
            raise UnsafeArchive(f"{archive}: '{member.name}' is a link to nothing", _ADVICE)
        shutil.copyfile(origin, target)
        target.chmod(origin.stat().st_mode & 0o777)
        return
    stream = tar.extractfile(member) if member.isfile() else None
    if stream is None:
        raise UnsafeArchive(f"{archive}: '{member.name}' is no file, folder or link", _ADVICE)
    if target.is_symlink():
        raise UnsafeArchive(f"{archive}: '{member.name}' would be written through a link", _ADVICE)
    with stream, target.open("wb") as sink:
        shutil.copyfileobj(stream, sink, 1 << 20)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(target, (member.mtime, member.mtime))


def _refuse_link_above(target: Path, root: Path, name: str, archive: str) -> None:
    for parent in target.relative_to(root).parents:
        if (root / parent).is_symlink():
            raise UnsafeArchive(f"{archive}: '{name}' would be written through a link", _ADVICE)
