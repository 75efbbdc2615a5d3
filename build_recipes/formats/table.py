"""The table of contents of a zip file, read within bounds (PKWARE's APPNOTE, sections 4.3.12 to 4.3.16).

The standard library's reader makes an object of each row before anybody can count them, and takes files that
begin or end with something else. Here the table has to end where the file ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from build_recipes.kit.console import counted

ReadAt = Callable[[int, int], bytes]
"""Offset and count to the bytes there; fewer at the end of the file."""

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ROW = struct.Struct("<4s6H3L5H2L")
_UTF8 = 0x800
_STRANGE = 0x2061
"""Flags of encrypted and patched members, and of a masked table."""
MOST_TABLE = 64 << 20
"""Bytes."""


@dataclass(frozen=True)
class Row:
    """One member, as the table tells it."""

    filename: str
    raw: bytes
    """The name's bytes."""
    file_size: int
    """Bytes of the content."""
    compress_size: int
    """Bytes in the file."""
    CRC: int
    compress_type: int
    """0 stored, 8 deflated."""
    flag_bits: int
    header_offset: int
    external_attr: int
    date: tuple[int, int]
    """Time and date as DOS packs them."""

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.filename.endswith("/")

    @property
    def date_time(self) -> tuple[int, int, int, int, int, int]:
        """Year, month, day, hour, minute, second."""
        time, date = self.date
        return (date >> 9) + 1980, date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2

    @property
    def readable(self) -> bool:
        """Whether it is stored or deflated, and nothing else was done to it."""
        return self.compress_type in (0, 8) and not self.flag_bits & _STRANGE


def rows(read_at: ReadAt, size: int, most: int) -> Iterator[Row]:
    """The rows of a zip file's table.

    :param size: of the file, in bytes.
    :param most: rows that are read.
    :raises ValueError: there is no table, or it is damaged, or larger than that.
    """
    count, start, length = _place(read_at, size)
    if count > most or length > MOST_TABLE:
        raise ValueError(f"a table of {counted(count, 'member')}, {length} bytes")
    table, at = read_at(start, length), 0
    if len(table) != length:
        raise ValueError("it ends inside of its table")
    for _ in range(count):
        if at + _ROW.size > length or table[at : at + 4] != b"PK\1\2":
            raise ValueError("its table is damaged")
        (
            _, _, needs, flags, method, time, date, crc, packed, plain,
            name_length, extra_length, comment_length, disk, _, attributes, offset,
        ) = _ROW.unpack_from(table, at)  # fmt: skip
        at += _ROW.size
        raw, extra = table[at : at + name_length], table[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        if at > length or disk or needs & 0xFF > 63:
            raise ValueError(
                "its table is damaged"
                if at > length
                else f"version {(needs & 0xFF) / 10} is needed to read it"
            )
        plain, packed, offset = _long(extra, plain, packed, offset)
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
        yield Row(name, raw, plain, packed, crc, method, flags, offset, attributes, (time, date))
    if at != length:
        raise ValueError("its table holds more than it says")


def _place(read_at: ReadAt, size: int) -> tuple[int, int, int]:
    """Rows, offset and bytes of the table."""
    first = max(0, size - _END.size - 0xFFFF)
    tail = read_at(first, size - first)
    at = len(tail)
    while (at := tail.rfind(b"PK\5\6", 0, at)) >= 0:
        if at + _END.size <= len(tail):
            _, disk, other, here, count, length, start, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == len(tail):
                break
    else:
        raise ValueError("it has no table of contents at its end")
    end = first + at
    locator = read_at(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if locator[:4] == b"PK\6\7":
        end = _LOCATOR.unpack(locator)[2]
        large = read_at(end, _END64.size)
        if len(large) != _END64.size or large[:4] != b"PK\6\6":
            raise ValueError("its large table of contents is damaged")
        _, _, _, _, disk, other, here, count, length, start = _END64.unpack(large)
    if disk or other or here != count or start + length != end:
        raise ValueError("its table of contents is not where it should be")
    return count, start, length


def _long(extra: bytes, plain: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset of more than 32 bits, from the extra field 1."""
    values = [plain, packed, offset]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 1:
            for index, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    values[index], field = int.from_bytes(field[:8], "little"), field[8:]
    return values[0], values[1], values[2]
