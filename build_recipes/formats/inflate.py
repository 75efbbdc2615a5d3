"""Members of a zip archive, read fast and within bounds.

The standard library reads a 436 MB wheel in nine seconds and holds each module twice. Here a member is
inflated in pieces (by ISA-L where it is installed) straight into place, while its SHA-256 and CRC are taken
from the same pieces.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from build_recipes.kit.errors import NotAWheel, UnsafeArchive

MOST_MEMBERS = 200_000
MOST_MEMBER = 1 << 30
MOST_TOTAL = 8 << 30
LARGE, MOST_RATIO = 32 << 20, 60
"""A member of more bytes than `LARGE` packs at most so well; vLLM's modules do 2 to 5 to 1."""
_PIECE = 1 << 17


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


class Archive:
    """A zip file whose table of contents was checked: no overlaps, no bombs, no way out of the folder.

    :raises NotAWheel: no zip file, or a damaged one.
    :raises UnsafeArchive: a member would be written elsewhere, or is a bomb.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._memory = memoryview(bytearray())
        try:
            self._stream: BinaryIO = path.open("rb")
        except OSError as error:
            raise NotAWheel(
                f"{path} cannot be read: {error.strerror}", "give the path of a .whl file"
            ) from error
        try:
            with zipfile.ZipFile(self._stream) as table:
                rows = table.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error) as error:
            self.close()
            raise NotAWheel(
                f"{path} is no zip file, or was cut: {error}", "fetch it again and compare its SHA-256"
            ) from error
        try:
            self._check(rows)
        except BaseException:
            self.close()
            raise
        self.members = {row.filename: row for row in rows if not row.is_dir()}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @property
    def descriptor(self) -> int:
        """File descriptor of the open file."""
        return self._stream.fileno()

    def _check(self, rows: list[zipfile.ZipInfo]) -> None:
        size = os.fstat(self._stream.fileno()).st_size
        advice = "do not unpack this file; fetch the wheel from its index again"
        names: set[str] = set()
        for row in rows:
            name = row.filename
            if (
                name.startswith("/")
                or "\\" in name
                or "\0" in name
                or ":" in name[:3]
                or ".." in name.split("/")
            ):
                raise UnsafeArchive(f"{self.path.name} has a member that climbs out: {name!r}", advice)
            if not name:  # zipfile's own is_dir() fails on it
                raise NotAWheel(f"{self.path.name} has a member without a name", "fetch it again")
            if name in names:
                raise UnsafeArchive(f"{self.path.name} has two members called {name!r}", advice)
            names.add(name)
            bomb = row.file_size > LARGE and row.file_size > MOST_RATIO * row.compress_size
            if bomb or row.file_size > MOST_MEMBER:
                raise UnsafeArchive(
                    f"{self.path.name} is a zip bomb: {name!r} says {row.file_size} bytes"
                    f" from {row.compress_size}",
                    advice,
                )
            if row.compress_type not in (0, 8) or row.flag_bits & 1:
                raise NotAWheel(
                    f"{name!r} of {self.path.name} is encrypted or packed by method {row.compress_type}",
                    "wheels are deflated or stored; fetch it again",
                )
        if len(rows) > MOST_MEMBERS or sum(row.file_size for row in rows) > MOST_TOTAL:
            raise UnsafeArchive(f"{self.path.name} is a zip bomb: {len(rows)} members", advice)
        end = 0
        for row in sorted(rows, key=lambda row: row.header_offset):
            if row.header_offset < end or row.header_offset + 30 + row.compress_size > size:
                raise UnsafeArchive(
                    f"{self.path.name} has members that overlap or end past the file: {row.filename!r}",
                    advice,
                )
            end = row.header_offset + 30 + row.compress_size

    def span(self, name: str) -> tuple[int, int]:
        """Offset and length in the file of a member's compressed bytes.

        :raises NotAWheel: its local header is damaged.
        """
        row = self.members[name]
        header = os.pread(self._stream.fileno(), 30, row.header_offset)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise NotAWheel(f"{name} of {self.path.name} is damaged", "fetch the wheel again")
        first, second = struct.unpack_from("<HH", header, 26)
        return row.header_offset + 30 + first + second, row.compress_size

    def packed(self, name: str, piece: int = _PIECE) -> Iterator[bytes]:
        """A member's compressed bytes, in pieces."""
        offset, left = self.span(name)
        while left:
            block = os.pread(self._stream.fileno(), min(piece, left), offset)
            if not block:
                raise NotAWheel(f"{self.path.name} ends inside of {name}", "fetch the wheel again")
            yield block
            offset += len(block)
            left -= len(block)

    def pieces(self, name: str) -> Iterator[bytes]:
        """A member's bytes, in pieces, checked against its size and CRC.

        :raises NotAWheel: they do not inflate, or to something else than the table says.
        """
        codec, row = _codec(), self.members[name]
        inflater = codec.decompressobj(-15) if row.compress_type else None
        size = crc = 0
        try:
            for block in self.packed(name):
                plain = inflater.decompress(block) if inflater else block
                size += len(plain)
                if size > row.file_size:
                    break
                crc = codec.crc32(plain, crc)
                yield plain
            if inflater and size <= row.file_size and (rest := inflater.flush()):
                size += len(rest)
                crc = codec.crc32(rest, crc)
                yield rest
        except codec.error as error:
            raise NotAWheel(f"{name} of {self.path.name} is damaged: {error}", "fetch it again") from error
        if size != row.file_size or crc != row.CRC:
            raise NotAWheel(
                f"{name} of {self.path.name} is damaged: its size or CRC is not what the archive says",
                "fetch the wheel again and compare its SHA-256",
            )

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
        """A member's first four bytes."""
        return next(iter(self.pieces(name)), b"")[:4]

    def digest(self, name: str) -> bytes:
        """SHA-256 of a member; memory is a piece's size."""
        digest = hashlib.sha256()
        for piece in self.pieces(name):
            digest.update(piece)
        return digest.digest()
