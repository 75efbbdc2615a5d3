"""The one reader of archives: zips and tars of every packing, member by member, within bounds.

Nothing of an archive is believed. Each path is checked before it is told (`bounds.safe_member`), what comes out
is counted against what lies in the file (`bounds.Bounds`), links are followed before one is made, and whatever
is damaged ends in `DamagedArchive`.
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from build_recipes.formats.bounds import ADVICE, Bounds, Names, is_plain, reading, safe_member
from build_recipes.formats.headers import PIECE, Readable, Stream, opened
from build_recipes.formats.inflate import Archive
from build_recipes.kit.console import one_line
from build_recipes.kit.data import open_regular
from build_recipes.kit.errors import DamagedArchive, UnsafeArchive
from build_recipes.kit.once import replaced

_MOST_WINDOW = 128 << 20
"""Bytes that a decompressor may remember; what `zstd --long` and our bundles ask for."""
_THREADED = 4 << 20
"""Bytes of a gzip file from which a second thread inflates it."""

Select = Callable[[str], bool]
"""Takes a path (``vllm/envs.py``), says whether it is wanted."""


@dataclass(frozen=True)
class Entry:
    """One member. Its bytes are there until the next one is asked for."""

    name: str
    """Its path below the archive's top, checked: ``vllm/envs.py``; ``.`` for the top itself."""
    kind: str
    """``file``, ``folder``, ``link`` (symbolic) or ``hardlink``."""
    size: int
    """Bytes of a file's content."""
    executable: bool
    mtime: float | None
    """Seconds since 1970; None where the archive's kind does not tell."""
    target: str
    """Of a link, as written."""
    pieces: Callable[[], Iterator[bytes]]
    """The content of a file, piece by piece."""

    @property
    def path(self) -> PurePosixPath:
        """Its path."""
        return PurePosixPath(self.name)

    def read(self, most: int = 64 << 20) -> bytes:
        """The content whole.

        :raises DamagedArchive: it is longer than ``most`` bytes, or damaged.
        """
        if self.size > most:
            raise DamagedArchive(f"'{one_line(self.name)}' is longer than {most} bytes", ADVICE)
        return b"".join(self.pieces())


def entries(archive: Path, bounds: Bounds = Bounds()) -> Iterator[Entry]:  # noqa: B008 (frozen)
    """The members of a zip or tar file, in its order; the kind is told by its first bytes.

    :raises DamagedArchive: it is not there, damaged, cut short or of no known kind.
    :raises UnsafeArchive: a name leads outside, two members are in each other's way, or too much comes out.
    """
    try:
        stream = open_regular(archive)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DamagedArchive(f"{archive} cannot be read: {why}", "give the path of the file") from error
    with stream:
        magic = stream.read(262)
        stream.seek(0)
        if magic[:4] in (b"PK\3\4", b"PK\5\6") and magic[257:] != b"ustar":
            yield from _of_zip(archive, bounds)
        else:
            yield from _of_tar(archive, stream, magic, bounds)


def _checked(name: str, archive: str) -> str:
    """The path of a member as text.

    :raises UnsafeArchive: see `bounds.safe_member`.
    """
    return name if is_plain(name) else safe_member(name, archive).as_posix()


def _of_zip(path: Path, bounds: Bounds) -> Iterator[Entry]:
    with Archive(path, bounds) as archive:
        for row in archive.rows:
            kind, mode = "folder" if row.is_dir() else "file", row.external_attr >> 16
            yield Entry(
                _checked(row.filename, path.name), kind, row.file_size, bool(mode & 0o111), None, "",
                lambda name=row.filename: archive.pieces(name),  # type: ignore[misc]
            )  # fmt: skip


# -- tar -----------------------------------------------------------------------------------------


class _Counted:
    """Bytes of a decompressor, counted, so that a bomb ends here."""

    def __init__(self, source: Readable, most: int, name: str) -> None:
        self.source, self.left, self.name = source, most, name

    def read(self, count: int) -> bytes:
        with reading(self.name):
            block = self.source.read(min(count, PIECE))
        self.left -= len(block)
        if self.left < 0:
            raise UnsafeArchive(f"{self.name} is a bomb: too much comes out of it", ADVICE)
        return block


class _Unxz:
    """An xz stream, with a bound on memory that `lzma.open` has not."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.codec = source, lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_WINDOW)

    def read(self, count: int) -> bytes:
        while not self.codec.eof:
            packed = self.source.read(1 << 16) if self.codec.needs_input else b""
            if self.codec.needs_input and not packed:
                raise EOFError("it ends early")
            if plain := self.codec.decompress(packed, count):
                return plain
        return b""


@contextlib.contextmanager
def _unpacked(stream: BinaryIO, path: Path, magic: bytes) -> Iterator[Readable]:
    """The plain bytes of a tar file. gzip by isal: three times as fast as zlib."""
    if magic[:2] == b"\x1f\x8b":
        from isal import igzip, igzip_threaded

        large = os.fstat(stream.fileno()).st_size > _THREADED
        codec: Any = igzip_threaded if large else igzip
        with codec.open(path if large else stream, "rb") as opened:
            yield opened
    elif magic[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        frames = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
        with frames.stream_reader(stream, read_across_frames=True, closefd=False) as plain:
            yield plain
    elif magic[:6] == b"\xfd7zXZ\0":
        yield _Unxz(stream)
    elif magic[:3] == b"BZh":
        with bz2.open(stream, "rb") as plain:
            yield plain
    else:
        yield stream


def _of_tar(path: Path, stream: BinaryIO, magic: bytes, bounds: Bounds) -> Iterator[Entry]:
    names, total = Names(path.name, bounds), 0
    most = bounds.most(os.fstat(stream.fileno()).st_size)
    with contextlib.ExitStack() as stack:
        with reading(path.name):
            plain = _Counted(stack.enter_context(_unpacked(stream, path, magic)), most, path.name)
            tape = Stream(plain)
            tar = stack.enter_context(opened(tape, str(path)))
        while True:
            with reading(path.name):
                member = tar.next()
                setattr(tar, "members", [])  # noqa: B010 (it would keep every one; the stubs hide it)
            if member is None:
                break
            entry = _entry(tape, member, path.name)
            total += entry.size
            if entry.size > bounds.member or total > most or len(names.kinds) > bounds.members:
                raise UnsafeArchive(f"{path.name} is a bomb: too much comes out of it", ADVICE)
            if entry.name != ".":
                if entry.kind == "link":
                    names.link(entry.path, entry.target)
                else:
                    kind = "folder" if entry.kind == "folder" else "file"
                    names.add(entry.name, kind, again=True)
                yield entry
        while plain.read(PIECE):
            pass  # to the end, where a cut or a wrong checksum shows


def _entry(stream: Stream, member: tarfile.TarInfo, archive: str) -> Entry:
    name = _checked(member.name, archive)
    kind = (
        "folder" if member.isdir() else "link" if member.issym() else "hardlink" if member.islnk()
        else "file" if member.isreg() and not member.issparse() else ""
    )  # fmt: skip
    if not kind or (kind == "file" and name == "."):
        raise UnsafeArchive(f"{archive}: '{one_line(member.name)}' is not a file, folder or link", ADVICE)

    def pieces() -> Iterator[bytes]:
        left = member.size
        with reading(archive):
            stream.seek(member.offset_data)
        while left:
            with reading(archive):
                block = stream.read(min(left, PIECE))
                if not block:
                    raise EOFError("it ends early")
            left -= len(block)
            yield block

    with reading(archive):
        moment = min(max(float(member.mtime), 0.0), 2.0**33)
        mtime = moment if moment == moment else 0.0  # noqa: PLR0124 (no number at all)
    size = member.size if kind == "file" else 0
    return Entry(name, kind, size, bool(member.mode & 0o100), mtime, member.linkname, pieces)


# -- unpacking -----------------------------------------------------------------------------------


def unpack(
    archive: Path,
    into: Path,
    select: Select = lambda name: True,
    *,
    top: bool = False,
    bounds: Bounds = Bounds(),  # noqa: B008 (frozen)
) -> None:
    """Unpack what ``select`` takes into a folder that is there.

    Links are made last, when all of them were followed, so nothing is ever written through one.

    :param top: the archive has one top folder, which is left away.
    :raises UnsafeArchive: and `DamagedArchive`: as `entries`; a link leads outside or in a circle; there is not
        one top folder. What was written before that stays.
    """
    names, tops = Names(archive.name, bounds), set[str]()
    left = bounds.most(archive.stat().st_size) if archive.is_file() else 0
    for entry in entries(archive, bounds):
        path = entry.path
        if top:
            tops.add(path.parts[0])
            inside = PurePosixPath(*path.parts[1:])
            if len(tops) > 1 or (not inside.parts and entry.kind != "folder"):
                raise UnsafeArchive(
                    f"{archive.name} has not one top folder: {one_line(path.as_posix())}", ADVICE
                )
            if not inside.parts:
                continue
            path = inside
        if entry.kind == "link":
            names.link(path, entry.target)
            continue
        names.add(path, "folder" if entry.kind == "folder" else "file", again=True)
        if select(path.as_posix()):
            origin = _origin(entry, into, top, archive.name)
            left -= origin.stat().st_size if origin else 0
            if left < 0:
                raise UnsafeArchive(f"{archive.name} is a bomb: its links are copies of too much", ADVICE)
            with _in_the_way(archive.name, path):
                _write(entry, into, path, origin)
    if top and not tops:
        raise UnsafeArchive(f"{archive.name} has not one top folder: it is empty", ADVICE)
    names.check_links()
    for name, target in names.links.items():
        if select(name):
            with _in_the_way(archive.name, PurePosixPath(name)):
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                (into / name).symlink_to(target)


def unpack_sdist(archive: Path, into: Path) -> Path:
    """Unpack a source distribution into the folder ``into``, without its single top folder.

    The folder is made beside and renamed: it is whole or not there. Errors as `unpack`; nothing is left behind.
    """
    return replaced(into, lambda beside: unpack(archive, beside, top=True))


def _origin(entry: Entry, into: Path, top: bool, archive: str) -> Path | None:
    """The file that a hard link stands for."""
    if entry.kind != "hardlink":
        return None
    path = safe_member(entry.target, archive)
    origin = into / PurePosixPath(*path.parts[1:] if top else path.parts)
    if not origin.is_file():  # no link is on the disk yet: this is one of ours
        raise UnsafeArchive(f"{archive}: '{one_line(entry.path.as_posix())}' is a link to nothing", ADVICE)
    return origin


def _write(entry: Entry, into: Path, path: PurePosixPath, origin: Path | None) -> None:
    target = into / path
    if entry.kind == "folder":
        target.mkdir(parents=True, exist_ok=True)
    if entry.kind == "folder" or target == origin:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    executable = bool(origin.stat().st_mode & 0o100) if origin else entry.executable
    with os.fdopen(os.open(target, flags, 0o755 if executable else 0o644), "wb") as sink:
        for piece in _pieces_of(origin) if origin else entry.pieces():
            sink.write(piece)
    target.chmod(0o755 if executable else 0o644)
    if entry.mtime is not None:
        os.utime(target, (entry.mtime, entry.mtime))


def _pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(PIECE):
            yield block


@contextlib.contextmanager
def _in_the_way(archive: str, path: PurePosixPath) -> Iterator[None]:
    """What another archive wrote into the same folder may stand where this one writes."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnsafeArchive(
            f"{archive}: '{one_line(path.as_posix())}' cannot be written: {error.strerror}", ADVICE
        ) from error
