"""Members of a zip archive, read fast and within bounds.

The standard library reads a 436 MB wheel in nine seconds and holds each module twice. Here a member is
inflated in pieces (by ISA-L where it is installed) straight into place, while its SHA-256 and CRC are taken
from the same pieces.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from build_recipes.formats.bounds import ADVICE, WHEEL, Bounds, Names, is_plain, reading, safe_member
from build_recipes.formats.table import Row, rows
from build_recipes.kit.console import counted, one_line
from build_recipes.kit.data import open_regular
from build_recipes.kit.errors import DamagedArchive, UnsafeArchive

LARGE = 32 << 20
"""A member of more bytes than this packs at most as well as `Bounds.ratio` says."""
_PIECE = 1 << 17
_BLOCK = 4 << 20
"""Bytes that are inflated at once, however well they are packed."""


@functools.cache
def _codec() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:  # no wheel for this platform: the same interface, at half the speed
        import zlib

        return zlib
    return isal_zlib


@dataclass(frozen=True)
class Content:
    """One member in memory."""

    data: memoryview
    """Its bytes; empty where only the digest was asked for."""
    sha256: bytes
    """Digest of all its bytes."""


class Source(Protocol):
    """A file that is read in places: here, or on a server (`sources.wheel_members.RemoteFile`)."""

    size: int
    """Bytes."""

    def read_at(self, offset: int, count: int) -> bytes:
        """The bytes there; fewer at the end."""


class _LocalFile:
    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.size = os.fstat(stream.fileno()).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self.stream.fileno(), count, offset)


class Archive:
    """A zip file whose table of contents was checked: no overlaps, no bombs, no way out of the folder.

    :param source: where its bytes are, when ``path`` is only its name.
    :raises DamagedArchive: no zip file, or a damaged one, or one that is encrypted or packed in a rare way.
    :raises UnsafeArchive: a member would be written elsewhere, or is a bomb.
    """

    damaged: ClassVar[type[DamagedArchive]] = DamagedArchive
    """What is raised for damage."""

    def __init__(self, path: Path, bounds: Bounds = WHEEL, source: Source | None = None) -> None:
        self.path, self.bounds = path, bounds
        self._memory = memoryview(bytearray())
        self._short = "", b""
        self._stream: BinaryIO | None = None
        if source is None:
            try:
                self._stream = open_regular(path)
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                raise self.damaged(f"{path} cannot be read: {why}", "give the path of the file") from error
        self._source = source or _LocalFile(self.stream)
        try:
            self._check(self._rows())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._stream:
            self._stream.close()

    @property
    def stream(self) -> BinaryIO:
        """The open file, where it is on this machine."""
        assert self._stream is not None
        return self._stream

    @property
    def descriptor(self) -> int:
        """File descriptor of the open file."""
        return self.stream.fileno()

    def _rows(self) -> list[Row]:
        try:
            return list(rows(self._source.read_at, self._source.size, self.bounds.members))
        except (ValueError, struct.error, OverflowError) as error:
            raise self.damaged(
                f"{self.path} is not a zip file, or was cut: {one_line(str(error))}",
                "fetch it again and compare its SHA-256",
            ) from error

    def _check(self, found: list[Row]) -> None:
        names, label = Names(self.path.name, self.bounds), self.path.name
        for row in found:
            if not row.filename:
                raise self.damaged(f"{label} has a member without a name", "fetch it again")
            path = row.filename.removesuffix("/")
            if not is_plain(path) and str(safe_member(row.filename, label)) != row.filename.rstrip("/"):
                raise UnsafeArchive(
                    f"{label} has a member with an odd path: '{one_line(row.filename)}'", ADVICE
                )
            names.add(path.rstrip("/"), "folder" if row.is_dir() else "file")
            bomb = row.file_size > LARGE and row.file_size > self.bounds.ratio * row.compress_size
            if bomb or row.file_size > self.bounds.member:
                raise UnsafeArchive(
                    f"{label} is a zip bomb: '{one_line(row.filename)}' says {row.file_size} bytes"
                    f" from {row.compress_size}",
                    ADVICE,
                )
            if not row.readable:
                raise self.damaged(
                    f"'{one_line(row.filename)}' of {label} is encrypted or packed by method {row.compress_type}",
                    "only deflated and stored members are read; fetch it again",
                )
        if sum(row.file_size for row in found) > self.bounds.most(self._source.size):
            raise UnsafeArchive(f"{label} is a zip bomb: {counted(len(found), 'member')}", ADVICE)
        end = 0
        for row in sorted(found, key=lambda row: row.header_offset):
            last = row.header_offset + 30 + row.compress_size
            if row.header_offset < end or last > self._source.size:
                raise UnsafeArchive(
                    f"{label} has members that overlap or end past the file: '{one_line(row.filename)}'",
                    ADVICE,
                )
            end = last
        self.rows = found
        self.members = {row.filename: row for row in found if not row.is_dir()}

    def span(self, name: str) -> tuple[int, int]:
        """Offset and length in the file of a member's compressed bytes.

        :raises DamagedArchive: its local header is damaged, or tells of another member.
        """
        row = self.members[name]
        header = self._source.read_at(row.header_offset, 30 + len(row.raw))
        if len(header) < 30 or header[:4] != b"PK\3\4" or header[30:] != row.raw:
            raise self.damaged(f"{one_line(name)} of {self.path.name} is damaged", "fetch the wheel again")
        first, second = struct.unpack_from("<HH", header, 26)
        return row.header_offset + 30 + first + second, row.compress_size

    def packed(self, name: str, piece: int = _PIECE) -> Iterator[bytes]:
        """A member's compressed bytes, in pieces."""
        offset, left = self.span(name)
        while left:
            block = self._source.read_at(offset, min(piece, left))
            if not block:
                raise self.damaged(
                    f"{self.path.name} ends inside of {one_line(name)}", "fetch the wheel again"
                )
            yield block
            offset += len(block)
            left -= len(block)

    def pieces(self, name: str) -> Iterator[bytes]:
        """A member's bytes, in pieces, checked against its size and CRC.

        :raises DamagedArchive: they do not inflate, or to something else than the table says.
        """
        codec, row, size, crc = _codec(), self.members[name], 0, 0
        for plain in self._plain(name, row):
            size += len(plain)
            if size > row.file_size:
                break
            crc = codec.crc32(plain, crc)
            yield plain
        if size != row.file_size or crc != row.CRC:
            raise self.damaged(
                f"{one_line(name)} of {self.path.name} is damaged: its size or CRC is not what the archive says",
                "fetch the wheel again and compare its SHA-256",
            )

    def _plain(self, name: str, row: Row) -> Iterator[bytes]:
        if not row.compress_type:
            yield from self.packed(name)
            return
        inflater = _codec().decompressobj(-15)
        with reading(f"{one_line(name)} of {self.path.name}", self.damaged):
            for block in self.packed(name):
                while block:
                    yield inflater.decompress(block, _BLOCK)
                    block = inflater.unconsumed_tail
            yield inflater.flush()
            if not inflater.eof or inflater.unused_data:
                raise EOFError("its deflated bytes do not end where it says")

    def read(self, name: str, most: int = 64 << 20) -> bytes:
        """A member whole.

        :raises DamagedArchive: it is not there, damaged, or longer than ``most`` bytes.
        """
        if name not in self.members:
            raise self.damaged(f"{self.path.name} has no {one_line(name)}", "fetch it again")
        if self.members[name].file_size > most:
            raise self.damaged(
                f"{one_line(name)} of {self.path.name} is longer than {most} bytes", "fetch it again"
            )
        return b"".join(self.pieces(name))

    def content(self, name: str) -> Content:
        """A member in memory with its digest, valid until the next call; memory is the largest member's size."""
        digest, position = hashlib.sha256(), 0
        place = self._place(self.members[name].file_size)
        for piece in self.pieces(name):
            digest.update(piece)
            place[position : position + len(piece)] = piece
            position += len(piece)
        return Content(place, digest.digest())

    def _place(self, size: int) -> memoryview:
        """Memory for a member, used again for the next one: fresh pages cost more than the copy.

        It is as large as the largest member, and a page of it is real once it is written.
        """
        if not self._memory:
            largest = max((row.file_size for row in self.members.values()), default=0)
            self._memory = memoryview(mmap.mmap(-1, largest or 1))
        return self._memory[:size]

    def head(self, name: str) -> bytes:
        """A member's first four bytes; a short one is kept for `digest`, which is mostly asked for next."""
        if self.members[name].file_size > _PIECE:
            return next(iter(self.pieces(name)), b"")[:4]
        self._short = name, self.read(name)
        return self._short[1][:4]

    def digest(self, name: str) -> bytes:
        """SHA-256 of a member; memory is a piece's size."""
        digest = hashlib.sha256()
        for piece in (self._short[1],) if self._short[0] == name else self.pieces(name):
            digest.update(piece)
        return digest.digest()
