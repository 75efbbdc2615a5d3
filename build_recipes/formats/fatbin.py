"""Device code in shared libraries and objects: NVIDIA's fat binary containers.

nvcc puts one container per translation unit into the section ``.nv_fatbin`` (``__nv_relfatbin`` for
relocatable device code). A container is a 16-byte header and a row of entries; an entry is one architecture's
SASS (an ELF file, the cubin) or PTX, stored plain, LZ4 or Zstandard compressed. Payloads are decoded only
where they are asked for.

The layout is not documented by NVIDIA. It was read from what nvcc 12.9 and 13.0 write for known inputs and is
checked against ``cuobjdump`` (tests, and benchmarks/audit_cuobjdump.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from build_recipes.formats.elf import Buffer, Elf, Malformed

SECTIONS = (".nv_fatbin", "__nv_relfatbin")
MAGIC = 0xBA55ED50
MOST_DECODED = 1 << 28
"""No single payload of real code comes near 256 MiB; one that says it does is refused."""

_CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of the entries
_ENTRY = struct.Struct("<HHIQIIHHI")  # kind, version, header, padded payload, packed, -, minor, major, arch
_KINDS = {1: "ptx", 2: "sass", 8: "lto"}
_ARCH_SPECIFIC, _FAMILY = 0x100000, 0x200000
_LZ4, _ZSTD = 0x2000, 0x8000


@dataclass(frozen=True)
class Entry:
    """One piece of device code."""

    kind: str
    """``sass``, ``ptx``, ``lto``, or ``kind N`` for one we do not know."""
    arch: int
    """Architecture number: 110 for sm_110 or compute_110."""
    suffix: str
    """``f`` family specific, ``a`` architecture specific, empty for neither."""
    version: tuple[int, int]
    """PTX: the PTX ISA version, which sets the least driver. SASS: the cubin format's version."""
    compression: str
    """``""``, ``lz4`` or ``zstd``."""
    stored: memoryview
    """The payload as the file holds it."""
    size: int
    """Bytes of the payload once decoded."""
    unit: int
    """Number of its container in the file: entries of one translation unit share it."""
    raw: memoryview
    """The whole entry as the file holds it: header, payload, padding."""
    options: str
    """ptxas options that a driver would use for PTX, as nvcc recorded them; mostly empty."""

    @property
    def name(self) -> str:
        """``sm_110f`` or ``compute_80``."""
        return f"{'compute' if self.kind == 'ptx' else 'sm'}_{self.arch}{self.suffix}"

    def decode(self) -> bytes | memoryview:
        """The payload: a cubin (ELF) or PTX text.

        :raises Malformed: it does not decode to the size it names.
        """
        if not self.compression:
            return self.stored
        if self.size > MOST_DECODED:
            raise Malformed("", f"a fat binary entry says that it decodes to {self.size} bytes")
        decoded = (
            _zstd(self.stored, self.size) if self.compression == "zstd" else _lz4(self.stored, self.size)
        )
        if len(decoded) != self.size:
            raise Malformed("", f"a fat binary entry decodes to {len(decoded)} bytes, not {self.size}")
        return decoded


@dataclass(frozen=True)
class Container:
    """The device code of one translation unit."""

    offset: int
    """Bytes from the start of its section."""
    unit: int
    """Its number in the file."""
    entries: tuple[Entry, ...]


def read(elf: Elf) -> Iterator[Entry]:
    """Every entry of a file, in file order; nothing where the file has no device code.

    :raises Malformed: a size points past the end of its container or section.
    """
    unit = 0
    for section in elf.sections:
        if section.name in SECTIONS:
            for container in containers(elf.content(section), elf.name, unit):
                unit = container.unit + 1
                yield from container.entries


def packed(entries: Iterable[Buffer]) -> bytes:
    """A container of whole entries (`Entry.raw`)."""
    body = b"".join(entries)
    return _CONTAINER.pack(MAGIC, 1, _CONTAINER.size, len(body)) + body


def containers(data: memoryview, name: str, unit: int = 0) -> Iterator[Container]:
    """The containers of a section, or of a ``.fatbin`` file.

    :param unit: number of the first.
    :raises Malformed: a size points past the end.
    """
    position = 0
    while position + _CONTAINER.size <= len(data):
        magic, _, header, size = _CONTAINER.unpack_from(data, position)
        if magic != MAGIC:
            if any(data[position : position + 8]):
                raise Malformed(name, f"no fat binary container at {position} of its device code")
            position += 8  # padding between the containers of two objects
            continue
        start, end = position + header, position + header + size
        if header < _CONTAINER.size or end > len(data):
            raise Malformed(name, f"a fat binary container ends at {end}, its section at {len(data)}")
        yield Container(position, unit, tuple(_entries(data[start:end], name, unit)))
        unit += 1
        position = end + -end % 8


def _entries(data: memoryview, name: str, unit: int) -> Iterator[Entry]:
    position = 0
    while position + 64 <= len(data):
        kind, _, header, padded, stored, notes, minor, major, arch = _ENTRY.unpack_from(data, position)
        flags, _, unpacked = struct.unpack_from("<QQQ", data, position + 40)
        start, end = position + header, position + header + padded
        if header < 64 or end > len(data):
            raise Malformed(name, f"a fat binary entry ends at {end}, its container at {len(data)}")
        compression = "zstd" if flags & _ZSTD else "lz4" if flags & _LZ4 else ""
        if kind not in (1, 2):
            compression = ""  # LTO code is scrambled: nobody but nvJitLink reads it
        if compression and stored > padded:
            raise Malformed(name, "a compressed fat binary entry is longer than its place")
        yield Entry(
            kind=_KINDS.get(kind, f"kind {kind}"),
            arch=arch,
            suffix="f" if flags & _FAMILY else "a" if flags & _ARCH_SPECIFIC else "",
            version=(major, minor),
            compression=compression,
            stored=data[start : start + stored] if compression else data[start:end],
            size=unpacked if compression else padded,
            unit=unit,
            raw=data[position:end],
            options=_options(data[position:start], notes) if kind == 1 else "",
        )
        position = end


def _options(header: memoryview, offset: int) -> str:
    """The text behind an offset of a PTX entry's header (where it leads, 8 bytes of lengths come first)."""
    if not 64 <= offset <= len(header) - 8:
        return ""
    return bytes(header[offset + 8 :]).split(b"\0")[0].decode("utf-8", "replace").strip()


def _zstd(stored: memoryview, size: int) -> bytes:
    import zstandard

    try:
        told = zstandard.frame_content_size(stored)
        if told not in (-1, size):
            raise Malformed("", f"a Zstandard stream says {told} bytes, its fat binary entry {size}")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise Malformed("", f"a fat binary entry is no Zstandard stream: {error}") from error


def _lz4(stored: memoryview, size: int) -> bytes:
    import lz4.block

    try:
        if size > 255 * len(stored) + 64:  # the format cannot do better
            raise Malformed("", f"an LZ4 block of {len(stored)} bytes says that it decodes to {size}")
        decoded: bytes = lz4.block.decompress(stored, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise Malformed("", f"a fat binary entry is no LZ4 block: {error}") from error
    return decoded
