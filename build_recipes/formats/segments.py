"""How a loader sees a shared library: program headers, and the relocations that add the load address.

Only what a rewriter of a section needs. Source: System V ABI, gABI 4.1; "ELF for the Arm 64-bit Architecture" and
the x86-64 psABI (relocation numbers); the gABI's proposal for SHT_RELR (packed relative relocations).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from build_recipes.formats.elf import Elf, Malformed

LOAD, NOTE = 1, 4
_RELA, _RELR = 4, 19
_ALLOC = 2
_PROGRAM = struct.Struct("<IIQQQQQQ")
_RELA_ROW = struct.Struct("<QQq")
_RELATIVE = {"aarch64": 1027, "x86_64": 8}
_TABLE = struct.Struct("<Q14xHH")  # at 32: e_phoff; e_phentsize and e_phnum at 54


@dataclass(frozen=True)
class Segment:
    """One row of the program header table; sizes in bytes."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    align: int

    def packed(self) -> bytes:
        """The row as the file holds it."""
        return _PROGRAM.pack(
            self.kind, self.flags, self.offset, self.address, self.physical,
            self.file_size, self.memory_size, self.align,
        )  # fmt: skip


@dataclass(frozen=True)
class Relative:
    """One place that gets the load address plus a constant."""

    address: int
    """Where the loader writes."""
    target: int
    """The constant: an address of this file."""
    row: int | None
    """File offset of the addend; None where it lies at the place itself (RELR)."""


def segment_table(elf: Elf) -> tuple[int, tuple[Segment, ...]]:
    """File offset and rows of the program header table.

    :raises Malformed: the table or a segment lies outside of the file.
    """
    offset, size, count = _TABLE.unpack_from(elf.data, 32)
    if count and size != _PROGRAM.size:
        raise Malformed(elf.name, f"program headers of {size} bytes, {_PROGRAM.size} expected")
    if offset + size * count > len(elf.data):
        raise Malformed(elf.name, "its program headers end past the file")
    rows = tuple(Segment(*row) for row in _PROGRAM.iter_unpack(elf.data[offset : offset + size * count]))
    for row in rows:
        if row.kind == LOAD and (
            row.offset + row.file_size > len(elf.data) or row.file_size > row.memory_size
        ):
            raise Malformed(elf.name, "a segment ends past the file")
    return offset, rows


def place(elf: Elf, address: int, size: int) -> int:
    """File offset of ``size`` bytes at a loaded address.

    :raises Malformed: the file has no content there.
    """
    for row in segment_table(elf)[1]:
        if row.kind == LOAD and row.address <= address and address + size <= row.address + row.file_size:
            return row.offset + address - row.address
    raise Malformed(elf.name, f"nothing of it is loaded at {address:#x}")


def relatives(elf: Elf) -> Iterator[Relative]:
    """Every place that gets the load address plus a constant, of RELA and RELR tables.

    :raises Malformed: a table is cut, or names a place that is not in the file.
    """
    wanted = _RELATIVE.get(elf.machine)
    for section in elf.sections:
        if section.kind == _RELA and section.flags & _ALLOC:
            content = elf.content(section)
            for number, (address, info, addend) in enumerate(
                _RELA_ROW.iter_unpack(content[: len(content) // 24 * 24])
            ):
                if info & 0xFFFFFFFF == wanted:
                    yield Relative(address, addend, section.offset + 24 * number + 16)
        elif section.kind == _RELR:
            for address in _relr(elf, elf.content(section)):
                (target,) = struct.unpack_from("<Q", elf.data, place(elf, address, 8))
                yield Relative(address, target, None)


def _relr(elf: Elf, content: memoryview) -> Iterator[int]:
    """Addresses of a RELR table: an even word is a place, an odd one a map of the 63 words after it."""
    following: int | None = None
    for (word,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8]):
        if not word & 1:
            yield word
            following = word + 8
            continue
        if following is None:
            raise Malformed(elf.name, "its RELR table starts with a bit map")
        for bit in range(63):
            if word >> (bit + 1) & 1:
                yield following + 8 * bit
        following += 63 * 8
