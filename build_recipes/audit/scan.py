"""One pass over a wheel: every member's digest, every module's linkage and device code.

A module is in memory only while it is read; what is kept of it is small.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from build_recipes.audit.families import classify
from build_recipes.formats import cubin, fatbin
from build_recipes.formats.elf import Elf, Malformed, Symbols
from build_recipes.formats.inflate import Content
from build_recipes.formats.wheel import ELF, Distribution, Recorded, is_module


class Target(NamedTuple):
    """What a piece of device code was made for."""

    kind: str
    """``sass`` or ``ptx``."""
    arch: int
    suffix: str
    isa: str
    """PTX ISA version of PTX (``9.0``), empty for SASS."""

    @property
    def name(self) -> str:
        """``sm_110f`` or ``compute_80``."""
        return f"{'compute' if self.kind == 'ptx' else 'sm'}_{self.arch}{self.suffix}"


@dataclass
class Unit:
    """Device code of one translation unit."""

    targets: dict[Target, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """Target to family to kernels with code and without. PTX compiles to the kernels of its unit."""
    size: int = 0
    """Decoded bytes."""
    sizes: dict[Target, tuple[int, int]] = field(default_factory=dict)
    """Target to decoded bytes, and bytes in the file."""

    @property
    def families(self) -> dict[str, int]:
        """Family to the number of its kernels in this unit."""
        most: dict[str, int] = {}
        for counted in self.targets.values():
            for family, (real, empty) in counted.items():
                most[family] = max(most.get(family, 0), real + empty)
        return most


@dataclass
class Module:
    """One ELF file of a wheel: a shared library, or a program."""

    path: str
    size: int
    packed: int
    """Bytes in the archive; `size` where it is not packed."""
    machine: str = ""
    needed: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    soname: str = ""
    version_needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    symbols: Symbols = field(default_factory=lambda: Symbols(frozenset(), {}))
    units: list[Unit] = field(default_factory=list)
    code: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Target name to number of entries and decoded bytes."""
    ops: tuple[str, ...] = ()
    """Names of the torch ops it registers, sorted."""
    registers: bool = True
    """Whether Python or torch finds an entry: ``PyInit_NAME`` of the module's own name, or a registration of torch ops.
    A library that is no extension module needs none."""
    broken: str = ""
    """Why it cannot be read, empty where it can."""

    def exports(self, name: str) -> bool:
        """Whether it defines the dynamic symbol."""
        return name in self.symbols.defined

    @property
    def torch_abi(self) -> str:
        """How it binds to torch: ``C++`` (one torch version only), ``stable``, or empty for not at all."""
        undefined = self.symbols.undefined
        if any(re.match(r"_ZN?K?(St\d+)?[0-9A-Za-z]*?(3c10|2at|5torch)[A-Z0-9]", name) for name in undefined):
            return "C++"
        return "stable" if any(name.startswith(("aoti_torch_", "torch_")) for name in undefined) else ""

    @property
    def cuda(self) -> tuple[int, ...]:
        """CUDA majors of the CUDA libraries it needs."""
        found = (
            re.fullmatch(r"lib(?:cudart|nvrtc|cublas|cublasLt)\.so\.(\d{1,4})", name) for name in self.needed
        )
        return tuple(sorted({int(one[1]) for one in found if one}))


@dataclass(frozen=True)
class Scan:
    """What one pass over a wheel found."""

    modules: tuple[Module, ...]
    unrecorded: tuple[str, ...]
    """Members that RECORD does not have."""
    wrong: tuple[str, ...]
    """Members whose digest or size is not RECORD's."""
    absent: tuple[str, ...]
    """Rows of RECORD without a member."""


def scan(wheel: Distribution, targets: Iterable[int] | None = None) -> Scan:
    """Read every member once.

    :param targets: architectures whose kernels are wanted (others are only listed); None for every one.
    :raises NotAWheel: a member does not inflate to what the archive says, or RECORD is damaged.
    """
    wanted = None if targets is None else frozenset(targets)
    record = wheel.record()
    modules, unrecorded, wrong = [], [], []
    for name, member in wheel.members.items():
        if is_module(name) or wheel.head(name) == ELF:
            content = wheel.content(name)
            modules.append(read_module(name, content, member.compress_size, wanted))
            digest = content.sha256
        else:
            digest = wheel.digest(name)
        row = record.pop(name, None)
        if name.startswith(f"{wheel.dist_info}/RECORD"):
            continue
        if row is None:
            unrecorded.append(name)
        elif _differs(row, digest, member.file_size):
            wrong.append(name)
    return Scan(tuple(modules), tuple(unrecorded), tuple(wrong), tuple(record))


def _differs(row: Recorded, digest: bytes, size: int) -> bool:
    return row.sha256 != digest or row.size not in (None, size)


def read_module(path: str, content: Content, packed: int, wanted: frozenset[int] | None = None) -> Module:
    """What is to be known of one shared library; a damaged one is told, not raised."""
    module = Module(path, len(content.data), packed)
    try:
        elf = Elf(content.data, path)
        module.machine, module.needed, module.runpath = elf.machine, elf.needed, elf.runpath
        module.soname, module.version_needs, module.symbols = elf.soname, elf.version_needs, elf.symbols
        module.ops = registered_ops(elf)
        module.registers = registers(path, elf.symbols)
        _device_code(module, elf, wanted)
    except Malformed as error:
        module.broken = str(error.args[0])
    return module


_EXTENSION = re.compile(r"[^/]+?\.(?:abi3|cpython-[\w-]+)\.so")
_REGISTERS = re.compile(r"_ZN5torch7LibraryC[12]E|aoti_torch_library_init|torch_library_(?:init|impl)")
"""What TORCH_LIBRARY and STABLE_TORCH_LIBRARY call when the library is loaded (torch/library.h, torch/csrc/stable)."""


def registers(path: str, symbols: Symbols) -> bool:
    """Whether an extension module has an entry; True for a library whose name is not an extension module's.

    Python calls ``PyInit_`` and the file's name up to its first dot (docs.python.org/3/extending/building.html).
    """
    name = path.rpartition("/")[2]
    if not _EXTENSION.fullmatch(name) or f"PyInit_{name.partition('.')[0]}" in symbols.defined:
        return True
    return any(_REGISTERS.match(symbol) for symbol in symbols.undefined)


_SCHEMA = re.compile(rb"([A-Za-z_]\w*(?:::\w+)?(?:\.\w+)?)\(")
MOST_DECODED = 8 << 30
"""Bytes of device code that one module may decode to; the largest of vLLM has 1 GB."""


def registered_ops(elf: Elf) -> tuple[str, ...]:
    """Names of the torch ops a module registers, sorted: the schemas among its constants.

    An op that is registered by a function's type alone leaves no schema and is not seen.
    """
    constants = bytes(elf.section(".rodata") or b"")
    texts, end = [], 0
    while (at := constants.find(b"->", end)) >= 0:  # split() would make a million texts of 20 MB
        stop = constants.find(b"\0", at)
        end = stop if stop >= 0 else len(constants)
        texts.append(constants[constants.rfind(b"\0", 0, at) + 1 : end])
    calls = (text for text in texts if text.rpartition(b"->")[0].rstrip().endswith(b")"))
    return tuple(sorted({found[1].decode() for text in calls if (found := _SCHEMA.match(text))}))


def _device_code(module: Module, elf: Elf, wanted: frozenset[int] | None) -> None:
    units: dict[int, Unit] = defaultdict(Unit)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    ptx_only: dict[int, fatbin.Entry] = {}
    decoded = 0
    for entry in fatbin.read(elf):
        decoded += entry.size
        if decoded > MOST_DECODED:
            raise Malformed(module.path, f"its device code decodes to more than {MOST_DECODED} bytes")
        isa = ".".join(map(str, entry.version)) if entry.kind == "ptx" else ""
        target = Target(entry.kind, entry.arch, entry.suffix, isa)
        unit = units[entry.unit]
        unit.size += entry.size
        before = unit.sizes.get(target, (0, 0))
        unit.sizes[target] = (before[0] + entry.size, before[1] + len(entry.stored))
        counts[target.name][0] += 1
        counts[target.name][1] += entry.size
        found = unit.targets.setdefault(target, {})
        if entry.kind == "sass":
            if wanted is None or entry.arch in wanted or not any(unit.targets.values()):
                _kernels(module.path, entry, found)
        elif entry.kind == "ptx":
            ptx_only[entry.unit] = entry
    for number, entry in ptx_only.items():
        if not units[number].families:
            for symbol in re.findall(rb"\.entry\s+([\w$]+)", entry.decode()):
                family = classify(module.path, symbol.decode())
                if family:
                    target = Target("ptx", entry.arch, entry.suffix, ".".join(map(str, entry.version)))
                    found = units[number].targets[target]
                    found[family] = (found.get(family, (0, 0))[0] + 1, 0)
    module.units = [units[number] for number in sorted(units)]
    module.code = {name: (count, size) for name, (count, size) in sorted(counts.items())}


def _kernels(path: str, entry: fatbin.Entry, found: dict[str, tuple[int, int]]) -> None:
    for kernel in cubin.kernels(Elf(entry.decode(), f"a cubin of {path}")):
        family = classify(path, kernel.name)
        if family:
            real, empty = found.get(family, (0, 0))
            found[family] = (real, empty + 1) if kernel.empty else (real + 1, empty)
