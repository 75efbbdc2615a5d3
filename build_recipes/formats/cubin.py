"""Kernels in a cubin: names, code size, registers, and whether there is any code at all.

A kernel can be in the file and do nothing: CUTLASS guards a body with ``#if __CUDA_ARCH__ == 1000``, and for
any other architecture what is left is a stack pointer load and EXIT. Such a kernel launches without an error
and writes nothing. It is told from the bytes: in SASS since Volta an instruction has 16 bytes, its opcode the
low 12 bits, and the predicate that always holds is 7.

Source: layout of cubins as nvcc 12.9 and 13.0 write them, checked with ``cuobjdump -sass -res-usage``.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from build_recipes.formats.elf import Elf, text

_ENTRY_POINT = 0x10  # STO_CUDA_ENTRY in st_other
_EXIT, _ALWAYS = 0x94D, 7
_IDLE = {0x918, 0xB82, 0xA02, 0x882, 0xC0C, 0x956, 0xF55}
"""Opcodes that have no effect outside of the thread: NOP, LDC and MOV (the stack pointer's load), UMOV, and
the three of the block that ptxas puts before every kernel for sm_87."""
_BRANCH, _TEGRA_BLOCK = 0x947, 0x956
_REGISTER_COUNT = 0x2F  # EIATTR_REGCOUNT in .nv.info
EMPTY_AT_MOST = 512
"""Bytes of code of the largest kernel looked at for emptiness; an empty one has 128 or 256."""
FEWEST_REGISTERS = 4
"""What ptxas gives a kernel that needs none."""


@dataclass(frozen=True)
class Kernel:
    """One entry function of a cubin."""

    name: str
    """Mangled name."""
    code_size: int
    """Bytes of SASS."""
    empty: bool
    """It only exits."""


def kernels(cubin: Elf) -> Iterator[Kernel]:
    """The entry functions of a cubin.

    :raises Malformed: a table lies outside of the file.
    """
    table = cubin.symbol_table()
    if table is None:
        return
    symbols, strings = table
    few: dict[int, int] | None = None
    for number, (name, _, other, section, value, size) in enumerate(
        struct.iter_unpack("<IBBHQQ", symbols[: len(symbols) // 24 * 24])
    ):
        if not other & _ENTRY_POINT or not section:
            continue
        empty = False
        if size <= EMPTY_AT_MOST:
            few = _registers(cubin) if few is None else few
            code = cubin.section_at(section)[value : value + size]
            empty = few.get(number, 0) <= FEWEST_REGISTERS and only_exits(code)
        yield Kernel(text(strings, name), size, empty)


def only_exits(code: memoryview) -> bool:
    """Whether SASS reaches an unconditional EXIT before it does anything another thread could see."""
    words = [low for low, _ in struct.iter_unpack("<QQ", code[: len(code) // 16 * 16])]
    for low, following in itertools.zip_longest(words, words[1:], fillvalue=0):
        opcode, predicate = low & 0xFFF, low >> 12 & 0xF
        if opcode == _EXIT and predicate == _ALWAYS:
            return True
        around = opcode == _BRANCH and following & 0xFFF == _TEGRA_BLOCK  # jumps over sm_87's block
        if opcode not in _IDLE and not around:
            return False
    return False


def _registers(cubin: Elf) -> dict[int, int]:
    """Symbol number to registers a thread, from the attribute records of .nv.info."""
    found: dict[int, int] = {}
    content, position = cubin.section(".nv.info"), 0
    if content is None:
        return found
    while position + 4 <= len(content):
        form, attribute, size = struct.unpack_from("<BBH", content, position)
        position += 4
        if form == 4:  # followed by `size` bytes; in the other forms `size` is the value
            if attribute == _REGISTER_COUNT and size == 8 and position + 8 <= len(content):
                symbol, count = struct.unpack_from("<II", content, position)
                found[symbol] = count
            position += size
    return found
