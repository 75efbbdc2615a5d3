"""Device code: every form nvcc writes, kernels that only exit, and NVIDIA's cuobjdump as the peer."""

from __future__ import annotations

import re
import struct
from collections import Counter

import pytest
from cuobjdump import cuobjdump, listing
from wheel_maker import DATA

from build_recipes.formats import cubin, fatbin
from build_recipes.formats.elf import Elf, Malformed

ALL = ["sm_110", "sm_90a", "sm_80", "compute_80", "sm_120f", "compute_120f"]
EXPECTED = {
    "none.o": ALL,
    "size.o": ALL,
    "speed.o": ALL,
    "balance.o": ALL,
    "family.o": ["sm_110f", "sm_103a", "compute_103a", "sm_87"],
    "rdc.o": ["sm_110f", "sm_80", "compute_80"],
    "lto.o": ["sm_80"],
    "thor.so": ["sm_110"],
    "old.so": ["sm_80", "compute_80"],
}


def entries(name: str) -> list[fatbin.Entry]:
    return list(fatbin.read(Elf((DATA / name).read_bytes(), name)))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_form_of_target_is_read(name: str) -> None:
    found = entries(name)
    assert [entry.name for entry in found] == EXPECTED[name]
    assert {entry.kind for entry in found} <= ({"lto"} if name == "lto.o" else {"sass", "ptx"})
    assert {entry.version for entry in found if entry.kind == "ptx"} <= {(9, 0)}


def test_compressed_payloads_decode_to_the_plain_ones() -> None:
    plain = [bytes(entry.decode()) for entry in entries("none.o")]
    assert {entry.compression for entry in entries("none.o")} == {""}
    for name, used in (("size.o", {"zstd"}), ("speed.o", {"lz4", ""}), ("balance.o", {"zstd", ""})):
        found = entries(name)
        assert {entry.compression for entry in found} == used, name
        assert [bytes(entry.decode()).rstrip(b"\0") for entry in found] == [p.rstrip(b"\0") for p in plain], (
            name
        )


@pytest.mark.parametrize("name", ["none.o", "family.o", "rdc.o"])
def test_a_kernel_that_only_exits_is_told_from_one_with_code(name: str) -> None:
    for entry in entries(name):
        if entry.kind == "sass":
            kernels = {kernel.name: kernel for kernel in cubin.kernels(Elf(entry.decode(), entry.name))}
            full = kernels["_ZN4vllm15rms_norm_kernelEPfi"]
            guarded = kernels["_ZN4vllm24reshape_and_cache_kernelEPf"]
            assert not full.empty, entry.name
            assert full.code_size > 0
            assert guarded.empty == (entry.arch != 90), entry.name


def test_a_store_after_the_prologue_is_no_empty_kernel() -> None:
    prologue, store, leave = (0x0000DF00FF017B82, 0x0000000502007986, 0x000000000000794D)
    assert not cubin.only_exits(memoryview(b""))
    guarded_exit = 0x000000000000094D  # @P0 EXIT
    code = memoryview(struct.pack("<6Q", prologue, 0, leave, 0, 0, 0))
    assert cubin.only_exits(code)
    assert not cubin.only_exits(memoryview(struct.pack("<6Q", prologue, 0, store, 0, leave, 0)))
    assert not cubin.only_exits(memoryview(struct.pack("<4Q", guarded_exit, 0, leave, 0)))
    assert not cubin.only_exits(memoryview(struct.pack("<2Q", prologue, 0)))


def _broken(patch: dict[int, tuple[str, int]], name: str = "none.o") -> Elf:
    data = bytearray((DATA / name).read_bytes())
    at = data.find(struct.pack("<I", fatbin.MAGIC))
    for offset, (layout, value) in patch.items():
        struct.pack_into(layout, data, at + offset, value)
    return Elf(bytes(data), "broken.o")


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({0: ("<I", 1)}, "no fat binary container"),
        ({8: ("<Q", 1 << 60)}, "container ends at"),
        ({6: ("<H", 4)}, "container ends at"),
        ({24: ("<Q", 1 << 62)}, "entry ends at"),
        ({20: ("<I", 8)}, "entry ends at"),
    ],
)
def test_sizes_past_the_end_are_refused(patch: dict[int, tuple[str, int]], why: str) -> None:
    with pytest.raises(Malformed, match=why):
        list(fatbin.read(_broken(patch)))


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 1 << 40])
def test_a_payload_that_lies_about_its_size_is_refused(size: int) -> None:
    entry = next(fatbin.read(_broken({16 + 56: ("<Q", size)}, "size.o")))
    with pytest.raises(Malformed):
        entry.decode()


@pytest.mark.network
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_cuobjdump_sees_the_same(name: str) -> None:
    theirs = listing(cuobjdump(), DATA / name)
    ours = Counter((entry.kind, entry.name.replace("compute_", "sm_")) for entry in entries(name))
    assert ours == theirs
    assert sum(theirs.values()) == len(EXPECTED[name])


@pytest.mark.network
def test_cuobjdump_counts_the_same_registers() -> None:
    from build_recipes.kit import process

    said = process.capture([cuobjdump(), "-res-usage", DATA / "family.o"])
    theirs = re.findall(r"Function (\w+):\s+REG:(\d+)", said)
    few = Counter(name for name, count in theirs if int(count) <= cubin.FEWEST_REGISTERS)
    ours = Counter(
        kernel.name
        for entry in entries("family.o")
        if entry.kind == "sass"
        for kernel in cubin.kernels(Elf(entry.decode(), ""))
        if kernel.empty
    )
    assert ours == few == Counter({"_ZN4vllm24reshape_and_cache_kernelEPf": 3})
