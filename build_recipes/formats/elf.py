"""ELF64 files of aarch64 and x86_64, read with no toolchain: shared libraries and objects.

Only what a verdict needs: machine, sections, the dynamic section, dynamic symbols with their versions, and
symbol look-up through the GNU hash table as the loader does it. Every offset of the file is checked against
the file's end before it is used, so a broken table is an error with a text, never a crash or a runaway.

Source: System V ABI, gABI 4.1 (layout); "GNU Hash ELF Sections" and glibc's elf.h (hash and version tables).
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.errors import NotAWheel

Buffer = bytes | bytearray | memoryview

MACHINES = {62: "x86_64", 183: "aarch64", 190: "cuda"}
"""e_machine to the name `uname -m` has for it; ``cuda`` is a cubin."""
MOST_SECTIONS = 1 << 20
_SYMTAB = 2
_NOBITS = 8
_WEAK = 2

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")


class Malformed(NotAWheel):
    """A binary is not what its headers say; the message names the file and the table."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"{name or 'a binary'} is damaged: {what}",
            "fetch or build the file again; if it stays, report it",
        )


@dataclass(frozen=True)
class Section:
    """One row of the section header table; offsets and sizes in bytes."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    entry_size: int


@dataclass(frozen=True)
class Symbols:
    """Dynamic symbols of one file."""

    defined: frozenset[str]
    """Names other files can bind to."""
    undefined: dict[str, str]
    """Name to the library its version comes from (``libc.so.6``), empty where it has none. No weak ones."""


class Elf:
    """One ELF64 little-endian file in memory.

    :param data: the whole file; an `mmap` wrapped in a memoryview does, nothing is copied.
    :param name: what errors call it.
    :raises Malformed: no ELF64, or a table lies outside of the file.
    """

    def __init__(self, data: Buffer, name: str = "") -> None:
        self.data = memoryview(data)
        self.name = name
        if len(self.data) < _HEADER.size or bytes(self.data[:4]) != b"\x7fELF":
            raise Malformed(name, f"no ELF file ({len(self.data)} bytes)")
        if self.data[4] != 2 or self.data[5] != 1:
            raise Malformed(name, "no 64-bit little-endian ELF file")
        (_, self.kind, machine, _, _, _, table, self.flags, _, _, _, size, count, names) = (
            _HEADER.unpack_from(self.data)
        )
        self.machine = MACHINES.get(machine, f"machine {machine}")
        self._table(table, size, count, names)

    def _table(self, table: int, size: int, count: int, names: int) -> None:
        """Read the section header table (with the gABI's escape for more than 0xff00 sections)."""
        self._rows: list[tuple[int, ...]] = []
        if not table:
            self._names = memoryview(b"")
            return
        if size != _SECTION.size:
            raise Malformed(self.name, f"section headers of {size} bytes, {_SECTION.size} expected")
        first = _SECTION.unpack(self._bytes(table, size, "the section header table"))
        count = count or first[5]
        names = first[6] if names == 0xFFFF else names
        if count > MOST_SECTIONS:
            raise Malformed(self.name, f"{count} sections")
        self._rows = list(_SECTION.iter_unpack(self._bytes(table, size * count, "the section header table")))
        if names >= len(self._rows):
            raise Malformed(self.name, "the section name table does not exist")
        self._names = self._content(self._rows[names], "the section name table")

    def _bytes(self, offset: int, size: int, what: str) -> memoryview:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise Malformed(self.name, f"{what} ends at {offset + size}, the file at {len(self.data)}")
        return self.data[offset : offset + size]

    def _content(self, row: tuple[int, ...], what: str) -> memoryview:
        return memoryview(b"") if row[1] == _NOBITS else self._bytes(row[4], row[5], what)

    @functools.cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections in file order."""
        names = bytes(self._names)
        return tuple(
            Section(text(names, row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[9])
            for row in self._rows
        )

    def section(self, name: str) -> memoryview | None:
        """Content of the first section called ``name``; None where there is none."""
        return next((self.content(entry) for entry in self.sections if entry.name == name), None)

    def content(self, section: Section) -> memoryview:
        """Bytes of a section, empty for NOBITS.

        :raises Malformed: it lies outside of the file.
        """
        if section.kind == _NOBITS:
            return memoryview(b"")
        return self._bytes(section.offset, section.size, f"section {section.name}")

    def symbol_table(self) -> tuple[memoryview, bytes] | None:
        """The first SHT_SYMTAB section and its names; None where there is none (section names are not read)."""
        row = next((row for row in self._rows if row[1] == _SYMTAB), None)
        if row is None:
            return None
        if row[6] >= len(self._rows):
            raise Malformed(self.name, "its symbol table has no names")
        return self._content(row, "the symbol table"), bytes(self._content(self._rows[row[6]], "the names"))

    def section_at(self, number: int) -> memoryview:
        """Content of a section by its number.

        :raises Malformed: there is none, or it lies outside of the file.
        """
        if number >= len(self._rows):
            raise Malformed(self.name, f"there is no section {number}")
        return self._content(self._rows[number], f"section {number}")

    def _linked(self, name: str) -> tuple[memoryview, bytes] | None:
        """A section's content and its string table."""
        entry = next((entry for entry in self.sections if entry.name == name), None)
        if entry is None:
            return None
        if entry.link >= len(self._rows):
            raise Malformed(self.name, f"section {name} has no string table")
        return self.content(entry), bytes(self._content(self._rows[entry.link], f"the names of {name}"))

    @functools.cached_property
    def dynamic(self) -> dict[str, tuple[str, ...]]:
        """The string entries of the dynamic section: ``needed``, ``soname``, ``rpath``, ``runpath``."""
        found: dict[str, list[str]] = {"needed": [], "soname": [], "rpath": [], "runpath": []}
        tags = {1: "needed", 14: "soname", 15: "rpath", 29: "runpath"}
        linked = self._linked(".dynamic")
        if linked:
            content, strings = linked
            for tag, value in _DYNAMIC.iter_unpack(content[: len(content) // 16 * 16]):
                if tag == 0:
                    break
                if tag in tags:
                    found[tags[tag]].append(text(strings, value))
        return {key: tuple(values) for key, values in found.items()}

    @property
    def needed(self) -> tuple[str, ...]:
        """Libraries the loader must find (DT_NEEDED), in order."""
        return self.dynamic["needed"]

    @property
    def soname(self) -> str:
        """DT_SONAME, empty where there is none."""
        return next(iter(self.dynamic["soname"]), "")

    @property
    def runpath(self) -> tuple[str, ...]:
        """Folders of DT_RUNPATH and DT_RPATH, in order."""
        return tuple(
            folder for entry in self.dynamic["runpath"] + self.dynamic["rpath"] for folder in entry.split(":")
        )

    @functools.cached_property
    def version_needs(self) -> dict[str, tuple[str, ...]]:
        """Library to the symbol versions asked of it: ``{"libc.so.6": ("GLIBC_2.17",)}``."""
        needs: dict[str, list[str]] = {}
        for library, version, _ in self._version_rows():
            needs.setdefault(library, []).append(version)
        return {library: tuple(versions) for library, versions in needs.items()}

    def _version_rows(self) -> Iterator[tuple[str, str, int]]:
        """Library, version and version index of every row of .gnu.version_r."""
        linked = self._linked(".gnu.version_r")
        if not linked:
            return
        content, strings = linked
        offset, left = 0, len(content) // 16
        while left > 0:
            _, count, file, aux, following = self._unpack("<HHIII", content, offset)
            at = offset + aux
            for _ in range(min(count, left)):
                _, _, index, name, onward = self._unpack("<IHHII", content, at)
                left -= 1
                yield text(strings, file), text(strings, name), index & 0x7FFF
                if not onward:
                    break
                at += onward
            left -= 1
            if not following:
                return
            offset += following

    def _unpack(self, layout: str, content: memoryview, offset: int) -> tuple[int, ...]:
        if offset < 0 or offset + struct.calcsize(layout) > len(content):
            raise Malformed(self.name, "a version table points past its end")
        return struct.unpack_from(layout, content, offset)

    @functools.cached_property
    def symbols(self) -> Symbols:
        """The dynamic symbols.

        :raises Malformed: the table or its names lie outside of the file.
        """
        linked = self._linked(".dynsym")
        if not linked:
            return Symbols(frozenset(), {})
        content, strings = linked
        content = content[: len(content) // _SYMBOL.size * _SYMBOL.size]
        versions = self.section(".gnu.version")
        count = len(content) // _SYMBOL.size
        indices: tuple[int, ...] = ()
        if versions is not None and len(versions) >= 2 * count:
            indices = struct.unpack_from(f"<{count}H", versions)
        owners = {index: library for library, _, index in self._version_rows()} if indices else {}
        defined: list[str] = []
        undefined: dict[str, str] = {}
        for number, (name, info, other, section, _, _) in enumerate(_SYMBOL.iter_unpack(content)):
            if section:
                if info >> 4 and other & 3 in (0, 3):  # not local; default or protected visibility
                    defined.append(text(strings, name))
            elif name and info >> 4 != _WEAK:
                owner = owners.get(indices[number] & 0x7FFF, "") if indices else ""
                undefined[text(strings, name)] = owner
        return Symbols(frozenset(defined), undefined)

    def exports(self, name: str) -> bool:
        """Whether the file defines the dynamic symbol ``name``: one look in the GNU hash table.

        Files without a GNU hash table are answered from the symbol table.
        """
        table = self._gnu_hash
        return name in self.symbols.defined if table is None else table.find(name.encode())

    @functools.cached_property
    def _gnu_hash(self) -> _GnuHash | None:
        content, linked = self.section(".gnu.hash"), self._linked(".dynsym")
        if content is None or linked is None or len(content) < 16:
            return None
        return _GnuHash(content, linked[0], linked[1], self.name)


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Elf]:
    """An ELF file, mapped while the block runs.

    :raises Malformed: it is none.
    """
    with path.open("rb") as stream:
        if not path.stat().st_size:
            yield Elf(b"", str(path))
            return
        yield Elf(memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)), str(path))


class _GnuHash:
    """Look-up in a .gnu.hash section."""

    def __init__(self, content: memoryview, symbols: memoryview, strings: bytes, name: str) -> None:
        buckets, self.base, bloom, self.shift = struct.unpack_from("<IIII", content)
        if 16 + 8 * bloom + 4 * buckets > len(content) or not bloom:
            raise Malformed(name, "its symbol hash table is longer than its section")
        self.bloom = content[16 : 16 + 8 * bloom].cast("Q")
        self.buckets = content[16 + 8 * bloom : 16 + 8 * bloom + 4 * buckets].cast("I")
        rest = content[16 + 8 * bloom + 4 * buckets :]
        self.chain = rest[: len(rest) // 4 * 4].cast("I")
        self.symbols, self.strings = symbols, strings

    def find(self, name: bytes) -> bool:
        value = gnu_hash(name)
        word = self.bloom[(value // 64) % len(self.bloom)]
        if not (word >> (value % 64)) & (word >> ((value >> self.shift) % 64)) & 1 or not len(self.buckets):
            return False
        index = self.buckets[value % len(self.buckets)]
        while self.base <= index < self.base + len(self.chain):
            seen = self.chain[index - self.base]
            if seen | 1 == value | 1 and (index + 1) * _SYMBOL.size <= len(self.symbols):
                offset, _, _, section, _, _ = _SYMBOL.unpack_from(self.symbols, index * _SYMBOL.size)
                if section and self.strings[offset : offset + len(name) + 1] == name + b"\0":
                    return True
            if seen & 1:
                break
            index += 1
        return False


@functools.lru_cache(maxsize=1 << 16)
def gnu_hash(name: bytes) -> int:
    """The 32-bit hash of a symbol name in .gnu.hash (Bernstein's, times 33)."""
    value = 5381
    for letter in name:
        value = (value * 33 + letter) & 0xFFFFFFFF
    return value


def text(strings: bytes, offset: int) -> str:
    """The NUL-terminated string at ``offset`` of a string table; what is past its end is empty."""
    end = strings.find(b"\0", offset)
    return strings[offset : end if end >= 0 else len(strings)].decode("utf-8", "replace")
