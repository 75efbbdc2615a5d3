"""A tar's headers, one after the other: strict where `tarfile` is not, and quick where a header is a common one.

An sdist of vLLM has ten thousand members, each behind an extended header that holds its time alone.
`tarfile` takes half a second for them, more than for all that it inflates.
"""

from __future__ import annotations

import re
import tarfile
from typing import Any, Protocol

from build_recipes.formats.bounds import ADVICE
from build_recipes.kit.errors import DamagedArchive

PIECE = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_MOST_HEADER = 1 << 20
"""Bytes of a tar's extended header."""
_MOST_HEADERS = 8
"""Extended headers before one member."""
_COMMON = re.compile(
    rb"([^\0\x80-\xff]{1,100})\0*"  # name
    rb"([0-7]{6,7})[ \0]{1,2}.{16}([0-7]{11})[ \0]([0-7]{11})[ \0]"  # mode, owner, size, time
    rb"([0-7]{6,7})[ \0]{1,2}([05x])\0{100}ustar\x0000.{80}"  # checksum, kind, no target
    rb"([^\0\x80-\xff]{0,155})\0+",  # what stands before the name
    re.DOTALL,
)
"""A file, a folder or an extended header as POSIX has it, with numbers in octal and names in ASCII."""
_TIME = re.compile(rb"(\d+) mtime=(\d+(?:\.\d+)?)\n\0*")


class Readable(Protocol):
    """Gives bytes, at most as many as it is asked for; none at the end."""

    def read(self, count: int, /) -> bytes: ...


class Stream:
    """Bytes that are read once, from the front, for `tarfile`."""

    def __init__(self, source: Readable) -> None:
        self.source, self.piece, self.at, self.before = source, b"", 0, 0

    def tell(self) -> int:
        """Bytes read so far."""
        return self.before + self.at

    def seek(self, position: int) -> int:
        """Go on to a place ahead, or to the end where that comes before.

        :raises tarfile.StreamError: it has gone by.
        """
        while (left := position - self.tell()) > 0 and self._more():
            self.at = min(len(self.piece), self.at + left)
        if left < 0:
            raise tarfile.StreamError("seeking backwards is not allowed")
        return self.tell()

    def read(self, count: int) -> bytes:
        """So many bytes, fewer at the end."""
        end = self.at + count
        if end <= len(self.piece):
            found = self.piece[self.at : end]
            self.at = end
            return found
        parts = []
        while count > 0 and self._more():
            part = self.piece[self.at : self.at + count]
            self.at += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def again(self, count: int) -> None:
        """Let the last bytes of one `read` within a piece be read once more."""
        self.at -= count

    def _more(self) -> bool:
        """Whether there is a byte left; the next piece is read where it is needed."""
        if self.at >= len(self.piece):
            self.before += len(self.piece)
            self.piece, self.at = self.source.read(PIECE), 0
        return bool(self.piece)


class Member(tarfile.TarInfo):
    """A header that is read strictly: what is damaged is told, never taken for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        """Read the next header."""
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the block of zeros
                raise
            raise DamagedArchive(f"{tar.name!s} is damaged or cut short: {error}", ADVICE) from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        """A member of its block: here where it is a common one."""
        found = _COMMON.match(buf)
        if found is None or (found.start(2), found.start(5), found.start(6)) != (100, 148, 156):
            return super().frombuf(buf, encoding, errors)
        if sum(buf) - sum(buf[148:156]) + 8 * 32 != int(found[5], 8):
            return super().frombuf(buf, encoding, errors)
        member = cls((found[7] + b"/" + found[1] if found[7] else found[1]).decode("ascii"))
        member.type, member.mode = found[6], int(found[2], 8)
        member.size, member.mtime, member.chksum = int(found[3], 8), int(found[4], 8), int(found[5], 8)
        if member.type == tarfile.DIRTYPE:
            member.name = member.name.rstrip("/")
        return member

    def _proc_member(self, tar: Any) -> Any:
        extended = self.type in (
            tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )  # fmt: skip
        tar.armory_headers = getattr(tar, "armory_headers", 0) + 1 if extended else 0
        if self.size < 0 or (extended and self.size > _MOST_HEADER) or tar.armory_headers > _MOST_HEADERS:
            raise DamagedArchive(f"{tar.name!s} has an extended header of {self.size} bytes", ADVICE)
        if self.type == tarfile.XHDTYPE and 0 < self.size <= _BLOCK and not tar.pax_headers:
            return self._timed(tar)
        return super()._proc_member(tar)  # type: ignore[misc]

    def _timed(self, tar: Any) -> Any:
        """The member behind an extended header of one block."""
        block = tar.fileobj.read(_BLOCK)
        found = _TIME.fullmatch(block)
        if found is None or int(found[1]) != self.size or found.end(2) + 1 != self.size:
            tar.fileobj.again(len(block))
            return super()._proc_member(tar)  # type: ignore[misc]
        try:
            member = self.fromtarfile(tar)
        except tarfile.HeaderError as error:
            raise DamagedArchive(f"{tar.name!s} is cut short: {error}", ADVICE) from error
        member.mtime, member.offset = float(found[2]), self.offset
        return member


def opened(stream: Stream, name: str) -> tarfile.TarFile:
    """A tar file that is read from the front.

    :raises tarfile.TarError: it is none.
    """
    source: Any = stream
    return tarfile.TarFile(name, "r", source, tarinfo=Member)
