"""A shared library with other device code: the file gets smaller, and nothing else of it moves.

nvcc puts all containers into ``.nv_fatbin``, in the middle of a read-only segment, and one wrapper for each
into ``.nvFatBinSegment``, whose pointer the loader relocates. New containers go to the start of the old
section. What is left of it is cut out of the file in whole pages, and the segment is split in two around the
hole: the row for it in the program header table is the one of a PT_NOTE (the build-id stays as a section). All
addresses outside of the section stay, so no code has to be understood.

`check` compares the result with the source, byte by byte, and knows nothing of how it was written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from build_recipes.formats import fatbin
from build_recipes.formats.elf import Buffer, Elf, Section
from build_recipes.formats.segments import LOAD, NOTE, Relative, Segment, place, relatives, segment_table
from build_recipes.kit.errors import PackageFailed

CODE, WRAPPERS = ".nv_fatbin", ".nvFatBinSegment"
WRAPPER = struct.Struct("<IIQQ")
WRAPPER_MAGIC = 0x466243B1
_MOST_ALIGN = 256
"""Bytes; what nvcc 13 asks for at most (read from vLLM's wheels: 256; without compression: 8)."""
_PIECE = 1 << 16
_ALLOC = 2


class Fixed(Exception):
    """A module whose device code cannot be changed with certainty; the text says why. It is kept as it is."""


@dataclass(frozen=True)
class Wrapper:
    """One registration of a container with the CUDA runtime."""

    pointer: int
    """Address of its pointer."""
    row: int | None
    """File offset of the relocation's addend; None where there is only the pointer itself."""
    container: fatbin.Container


@dataclass(frozen=True)
class Layout:
    """Where the device code of a module lies, and what points to it."""

    elf: Elf
    code: Section
    wrappers: tuple[Wrapper, ...]
    """In the order of their containers."""
    table: int
    """File offset of the program headers."""
    segments: tuple[Segment, ...]

    @property
    def align(self) -> int:
        """Bytes that all its containers are aligned to, and the new ones will be."""
        places = _MOST_ALIGN
        for one in self.wrappers:
            places |= self.code.address + one.container.offset
        return places & -places

    @property
    def cut(self) -> int:
        """File offset of the first byte behind the device code."""
        return self.code.offset + self.code.size


def layout(elf: Elf) -> Layout | None:
    """What has to be known to change a module's device code; None where it has none.

    :raises Fixed: there is something that this does not understand.
    :raises Malformed: a table lies outside of the file.
    """
    named = {name: [one for one in elf.sections if one.name == name] for name in (CODE, WRAPPERS)}
    if any(one.size for one in elf.sections if one.name == "__nv_relfatbin"):
        raise Fixed("it has relocatable device code (__nv_relfatbin), which its own linker reads")
    if not named[CODE]:
        return None
    if len(named[CODE]) != 1 or len(named[WRAPPERS]) != 1:
        raise Fixed(f"it has {len(named[CODE])} {CODE} and {len(named[WRAPPERS])} {WRAPPERS} sections")
    code, wrapped = named[CODE][0], named[WRAPPERS][0]
    table, segments = segment_table(elf)
    if place(elf, code.address, code.size) != code.offset:
        raise Fixed(f"{CODE} is not loaded as one piece")
    if _symbols_in(elf, code):
        raise Fixed(f"it exports a symbol of {CODE}")
    return Layout(elf, code, tuple(_wrappers(elf, code, wrapped)), table, segments)


def _wrappers(elf: Elf, code: Section, wrapped: Section) -> Iterator[Wrapper]:
    containers = {one.offset: one for one in fatbin.containers(elf.content(code), elf.name)}
    inside = {}
    for one in relatives(elf):
        at = one.address - wrapped.address
        if 0 <= at < wrapped.size and at % WRAPPER.size == 8:
            inside[at - 8] = one
        elif code.address <= one.target < code.address + code.size:
            raise Fixed(f"something else than {WRAPPERS} points into {CODE}")
    content, found = elf.content(wrapped), {}
    for at in range(0, len(content) - len(content) % WRAPPER.size, WRAPPER.size):
        magic, version, _, _ = WRAPPER.unpack_from(content, at)
        pointer: Relative | None = inside.get(at)
        if magic != WRAPPER_MAGIC or version != 1 or pointer is None:
            raise Fixed(f"the wrapper at {at} of {WRAPPERS} is of an unknown kind")
        offset = pointer.target - code.address
        if offset not in containers or offset in found:
            raise Fixed(f"the wrapper at {at} of {WRAPPERS} points to no container of its own")
        found[offset] = Wrapper(pointer.address, pointer.row, containers[offset])
    if set(found) != set(containers):
        raise Fixed(f"{len(containers) - len(found)} containers of {CODE} have no wrapper")
    yield from (found[offset] for offset in sorted(found))


def _symbols_in(elf: Elf, code: Section) -> bool:
    number = elf.sections.index(code)
    table = next((one for one in elf.sections if one.name == ".dynsym"), None)
    rows = struct.iter_unpack("<IBBHQQ", elf.content(table)[: table.size // 24 * 24]) if table else ()
    return any(row[3] == number for row in rows)


@dataclass(frozen=True)
class Written:
    """What became of a module."""

    size: int
    """Bytes of the file."""
    shrunk: bool
    """Whether the hole left the file (there was a program header to spare)."""


def write(old: Layout, containers: Sequence[Buffer], stream: BinaryIO) -> Written:
    """Write a module with other containers, one for each wrapper, in their order.

    :raises PackageFailed: they need more room than the old ones had.
    """
    code, align = old.code, old.align
    offsets, end = [], 0
    for one in containers:
        end += -(code.address + end) % align
        offsets.append(end)
        end += len(one)
    if end > code.size:
        raise PackageFailed(
            f"{old.elf.name}: {end} bytes of device code do not fit into the {code.size} that were there",
            "leave --keep-ptx out",
        )
    removed, segments = _without(old, end)
    head = bytearray(old.elf.data[: code.offset])
    tail = bytearray(old.elf.data[old.cut :])

    def patch(offset: int, content: bytes) -> None:
        """Change bytes by their place in the old file."""
        part, start = (head, offset) if offset < code.offset else (tail, offset - old.cut)
        part[start : start + len(content)] = content

    patch(old.table, b"".join(one.packed() for one in segments))
    _patch_headers(old, end, removed, patch)
    for wrapper, offset in zip(old.wrappers, offsets, strict=True):
        address = struct.pack("<Q", code.address + offset)
        at = place(old.elf, wrapper.pointer, 8)
        if wrapper.row is not None:
            patch(wrapper.row, address)
        if wrapper.row is None or any(old.elf.data[at : at + 8]):
            patch(at, address)
    stream.write(head)
    at = 0
    for one, offset in zip(containers, offsets, strict=True):
        stream.write(bytes(offset - at))
        stream.write(one)
        at = offset + len(one)
    left = code.size - end - removed
    for size in [_PIECE] * (left // _PIECE) + [left % _PIECE]:
        stream.write(bytes(size))
    stream.write(tail)
    return Written(len(old.elf.data) - removed, bool(removed))


def _without(old: Layout, end: int) -> tuple[int, list[Segment]]:
    """Bytes to leave out of the file, and the program headers then."""
    code, segments = old.code, list(old.segments)
    number = next(
        index
        for index, one in enumerate(segments)
        if one.kind == LOAD and one.offset <= code.offset and old.cut <= one.offset + one.file_size
    )
    home = segments[number]
    page = max(one.align for one in segments if one.kind == LOAD) or 1
    removed = (code.size - end) // page * page
    spare = _spare(old)
    if spare is None or not removed or home.file_size != home.memory_size:
        return 0, segments
    before, behind = code.offset + end - home.offset, old.cut - home.offset
    moved = [replace(one, offset=one.offset - removed) if one.offset >= old.cut else one for one in segments]
    moved[number : number + 1] = [
        replace(home, file_size=before, memory_size=before),
        replace(
            home,
            offset=old.cut - removed,
            address=home.address + behind,
            physical=home.physical + behind,
            file_size=home.file_size - behind,
            memory_size=home.memory_size - behind,
        ),
    ]
    del moved[spare if spare < number else spare + 1]
    return removed, moved


def _spare(old: Layout) -> int | None:
    """Index of a PT_NOTE that no loader reads: the one that holds the build-id."""
    note = next((one for one in old.elf.sections if one.name == ".note.gnu.build-id"), None)
    for index, one in enumerate(old.segments):
        alone = note and one.offset == note.offset and one.file_size == note.size
        if one.kind == NOTE and alone:
            return index
    return None


def _patch_headers(old: Layout, end: int, removed: int, patch: Callable[[int, bytes], None]) -> None:
    """Section offsets and the size of the device code; the place of the section header table."""
    (start,), size = struct.unpack_from("<Q", old.elf.data, 40), 64
    patch(40, struct.pack("<Q", start - removed if start >= old.cut else start))
    for number, one in enumerate(old.elf.sections):
        if one is old.code:
            patch(start + number * size + 32, struct.pack("<Q", end))
        elif one.offset >= old.cut:
            patch(start + number * size + 24, struct.pack("<Q", one.offset - removed))


class Differs(PackageFailed):
    """A rewritten module is not what it should be: nothing of it is published."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} was not rewritten as it should be: {what}", "report this")


def check(old: Elf, new: Elf, containers: Sequence[Sequence[Buffer]]) -> None:
    """Compare a rewritten module with its source, byte by byte.

    Equal must be: all sections' names, kinds, flags and addresses, and their content but for the three
    that may change; every loaded byte, and how it is protected, but for those three, the ELF header and the
    program headers. In the three only the pointers differ, and each wrapper leads to the entries it should.

    :param containers: the entries that each wrapper, in the order of the section, should lead to.
    :raises Differs: with the first difference.
    """
    _compare_headers(old, new)
    if len(old.sections) != len(new.sections):
        raise Differs(new.name, "another number of sections")
    may: list[tuple[int, int]] = []  # loaded addresses that may differ
    rows = _rows(old)
    for before, after in zip(old.sections, new.sections, strict=True):
        same = replace(before, offset=0, size=0) == replace(after, offset=0, size=0)
        if not same or (before.size != after.size and before.name != CODE):
            raise Differs(new.name, f"the header of section {before.name}")
        if before.name == CODE:
            may.append((before.address, before.address + before.size))
        else:
            loose = [
                row - before.offset for row in rows if before.offset <= row < before.offset + before.size
            ]
            if before.name == WRAPPERS:
                loose = list(range(8, before.size, WRAPPER.size))
            if before.flags & _ALLOC:  # compared as memory
                there = place(new, after.address, after.size) if len(old.content(before)) else 0
                if there and there != after.offset:
                    raise Differs(new.name, f"the place of section {before.name}")
                may += [(before.address + at, before.address + at + 8) for at in loose]
            else:
                _compare(new.name, f"section {before.name}", old.content(before), new.content(after))
    _compare_memory(old, new, [*may, _headers(old)])
    _compare_code(old, new, containers)


def _rows(elf: Elf) -> list[int]:
    """File offsets of the addends that give wrappers their pointers."""
    wrapped = next((one for one in elf.sections if one.name == WRAPPERS), None)
    return [
        one.row
        for one in (relatives(elf) if wrapped else ())
        if one.row is not None
        and wrapped
        and 0 <= one.address - wrapped.address < wrapped.size
        and (one.address - wrapped.address) % WRAPPER.size == 8
    ]


def _headers(elf: Elf) -> tuple[int, int]:
    """Addresses of the ELF header and the program headers, which are loaded with the first segment."""
    offset, rows = segment_table(elf)
    first = next((one for one in rows if one.kind == LOAD and one.offset == 0), None)
    return (first.address, first.address + offset + 56 * len(rows)) if first else (0, 0)


def _compare_headers(old: Elf, new: Elf) -> None:
    """The ELF header but for the place of the sections; the program headers but for a PT_NOTE and the loads."""
    if bytes(old.data[:40]) != bytes(new.data[:40]) or bytes(old.data[48:64]) != bytes(new.data[48:64]):
        raise Differs(new.name, "the ELF header")
    before, after = ([one for one in segment_table(elf)[1] if one.kind != LOAD] for elf in (old, new))
    for one in before:
        two = after[0] if after else None
        if two is None or replace(one, offset=0) != replace(two, offset=0):
            if one.kind != NOTE:
                raise Differs(new.name, f"the program header of kind {one.kind:#x}")
            continue
        if two.file_size:
            right = two.offset == place(new, two.address, two.file_size)
        else:  # .tbss alone, or no address at all: nothing is read there, but offset and address stay congruent
            right = (two.offset - one.offset) % max(one.align, 1) == 0
        if not right:
            raise Differs(new.name, f"the place of the segment of kind {one.kind:#x}")
        del after[0]
    if after:
        raise Differs(new.name, "a program header that was not there")
    loads = [[one for one in segment_table(elf)[1] if one.kind == LOAD] for elf in (old, new)]
    shift = {one.physical - one.address for one in loads[0]} | {one.align for one in loads[0]}
    if not {one.physical - one.address for one in loads[1]} | {one.align for one in loads[1]} <= shift:
        raise Differs(new.name, "the alignment of a segment")


def _compare(name: str, what: str, old: memoryview, new: memoryview) -> None:
    for start in range(0, len(old), _PIECE):
        if bytes(old[start : start + _PIECE]) != bytes(new[start : start + _PIECE]):
            raise Differs(name, f"{what} differs between {start} and {start + _PIECE}")


def _compare_memory(old: Elf, new: Elf, may: list[tuple[int, int]]) -> None:
    """Every loaded byte of the old file outside of ``may`` is there in the new one, protected alike."""
    others = [one for one in segment_table(new)[1] if one.kind == LOAD]
    if [one.address for one in others] != sorted(one.address for one in others):
        raise Differs(new.name, "segments out of order")
    for one in segment_table(old)[1]:
        if one.kind != LOAD:
            continue
        at, stop = one.address, one.address + one.memory_size
        for start, end in sorted([*may, (stop, stop)]):
            if at < min(start, stop):
                _compare_span(old, new, one, others, (at, min(start, stop)))
            at = max(at, end) if start < stop else at


def _compare_span(
    old: Elf, new: Elf, home: Segment, others: Sequence[Segment], span: tuple[int, int]
) -> None:
    start, end = span
    here = next(
        (two for two in others if two.address <= start and end <= two.address + two.memory_size), None
    )
    if here is None or here.flags != home.flags:
        raise Differs(new.name, f"{start:#x} to {end:#x} is not loaded as it was")
    filled = min(end, home.address + home.file_size)
    if min(end, here.address + here.file_size) != filled:
        raise Differs(new.name, f"{start:#x} to {end:#x} is not filled as it was")
    size = max(0, filled - start)
    first, second = (one.offset + start - one.address for one in (home, here))
    before, after = old.data[first : first + size], new.data[second : second + size]
    _compare(new.name, f"memory at {start:#x}", before, after)


def _compare_code(old: Elf, new: Elf, containers: Sequence[Sequence[Buffer]]) -> None:
    before, after = layout(old), layout(new)
    if before is None or after is None or len(after.wrappers) != len(containers):
        raise Differs(new.name, "another number of containers")
    for one, two, wanted in zip(before.wrappers, after.wrappers, containers, strict=True):
        if one.pointer != two.pointer:
            raise Differs(new.name, "a wrapper leads to another unit's container")
        found = [entry.raw for entry in two.container.entries]
        if len(found) != len(wanted) or any(
            bytes(there) != bytes(entry) for there, entry in zip(found, wanted, strict=True)
        ):
            raise Differs(new.name, f"unit {one.container.unit} does not hold the images that were chosen")
