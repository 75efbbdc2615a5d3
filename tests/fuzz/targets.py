"""What fuzzing calls: every reader of hostile bytes, with the errors it may raise.

Whatever the bytes, a reader ends with a result or with `ArmoryError`, within bounds. Shared by the hypothesis
tests and by the atheris run (fuzz_atheris.py).
"""

from __future__ import annotations

import io
from pathlib import Path

from build_recipes.audit import closure, scan
from build_recipes.formats import abi, cubin, fatbin
from build_recipes.formats.elf import Elf
from build_recipes.formats.inflate import Content
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.errors import ArmoryError
from build_recipes.specialise import shrink
from build_recipes.wheelhouse import provenance


def read_elf(data: bytes) -> bool:
    """Read all of an ELF file; whether it was taken."""
    try:
        elf = Elf(data, "fuzzed")
        names = elf.symbols.defined | set(elf.symbols.undefined)
        for name in sorted(names)[:50]:
            elf.exports(name)
            closure.readable(name)
        abi.required([elf])
        closure.close({"fuzzed": elf}, [])
        scan.registered_ops(elf)
        for entry in fatbin.read(elf):
            if entry.size <= 1 << 24:
                payload = entry.decode()
                if entry.kind == "sass":
                    list(cubin.kernels(Elf(payload, "cubin")))
    except ArmoryError:
        return False
    return True


def read_module(data: bytes) -> bool:
    """Scan a module as the audit does: damage is told, never raised."""
    return not scan.read_module("vllm/_C.abi3.so", Content(memoryview(data), b""), len(data)).broken


def read_wheel(data: bytes, place: Path) -> bool:
    """Open and scan a wheel; whether it was taken."""
    place.write_bytes(data)
    try:
        with Wheel(place) as wheel:
            scan.scan(wheel)
            wheel.file_tags()
    except ArmoryError:
        return False
    return True


def read_document(data: bytes) -> bool:
    """Read a provenance document."""
    try:
        provenance.read(data)
    except ValueError:
        return False
    return True


def rewrite_module(data: bytes) -> str:
    """Rewrite a module with the first image of each unit: what became of it.

    Refused, left as it is, or rewritten so that the comparison with the source holds.
    """
    try:
        elf = Elf(data, "fuzzed")
        layout = shrink.layout(elf)
        if layout is None:
            return "no device code"
        entries = [[one.raw for one in row.container.entries[:1]] for row in layout.wrappers]
        stream = io.BytesIO()
        shrink.write(layout, [fatbin.packed(row) for row in entries], stream)
        shrink.check(elf, Elf(stream.getvalue(), "written"), entries)
    except ArmoryError:
        return "refused"
    except shrink.Fixed:
        return "left as it is"
    return "rewritten"
