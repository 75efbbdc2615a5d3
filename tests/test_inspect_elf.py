"""The ELF reader: what it reads, against what the file was made of, and what it refuses."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from wheel_maker import DATA

from build_recipes.audit import closure
from build_recipes.formats import abi
from build_recipes.formats.elf import Elf, Malformed, mapped
from build_recipes.formats.wheel import required_glibc
from build_recipes.kit.errors import NotAWheel

LOGGER = "_ZN3c1013MessageLoggerC1EPKcii"


def read(name: str) -> Elf:
    return Elf((DATA / name).read_bytes(), name)


def test_a_module_shows_what_it_was_linked_with() -> None:
    module = read("thor.so")
    assert module.machine == "aarch64"
    assert module.needed == ("libc10.so", "libcudart.so.13", "libc.so.6")
    assert module.version_needs == {"libcudart.so.13": ("libcudart.so.13",), "libc.so.6": ("GLIBC_2.17",)}
    assert module.symbols.undefined == {
        "memcpy": "libc.so.6",
        LOGGER: "",
        "cudaMalloc": "libcudart.so.13",
        "PyModule_Create2": "",
    }
    assert {"PyInit__C", "schema"} <= module.symbols.defined
    assert read("libc10_new.so").soname == "libc10.so"


@pytest.mark.parametrize("name", ["libc10_new.so", "libcudart.so.13", "thor.so"])
def test_the_hash_table_answers_as_the_symbol_table(name: str) -> None:
    module = read(name)
    assert module._gnu_hash is not None
    for symbol in module.symbols.defined:
        assert module.exports(symbol), symbol
    for symbol in (*module.symbols.undefined, "no_such_symbol", ""):
        assert not module.exports(symbol), symbol


@pytest.mark.skipif(sys.platform != "linux", reason="reads this machine's own libraries")
def test_hash_look_up_in_a_large_real_library() -> None:
    found = [path for path in Path("/usr/lib").glob("*-linux-gnu*/libstdc++.so.6") if path.exists()]
    if not found:
        pytest.skip("no libstdc++ here")
    with mapped(found[0]) as library:
        names = library.symbols.defined
        assert len(names) > 3000
        assert all(library.exports(name) for name in names)
        assert not any(library.exports(f"{name}x") for name in names)


def test_glibc_is_what_the_newest_symbol_asks_for() -> None:
    assert required_glibc([DATA / "thor.so"]) == (2, 17)
    assert required_glibc([DATA / "thor.so", DATA / "old.so"]) == (2, 34)
    assert abi.tag_glibc("manylinux_2_28_aarch64") == (2, 28)
    assert abi.tag_glibc("manylinux2014_aarch64") == (2, 17)
    assert abi.tag_glibc("linux_aarch64") is None


def test_closure_names_exactly_the_symbol_that_moved() -> None:
    given = [DATA / "libcudart.so.13"]
    assert closure.missing_symbols([DATA / "thor.so"], [*given, DATA / "libc10_new.so"]) == {}
    lost = closure.missing_symbols([DATA / "thor.so"], [*given, DATA / "libc10_old.so"])
    assert lost == {str(DATA / "thor.so"): [LOGGER]}
    assert closure.readable(LOGGER) == "c10::MessageLogger::MessageLogger"


def test_a_library_that_is_not_given_is_named_and_its_symbols_are_not_blamed() -> None:
    found = closure.close({"_C": read("thor.so")}, [read("libc10_new.so")])
    assert found.symbols == {}
    assert found.libraries == {"_C": ["libcudart.so.13"]}


def _patched(offset: int, layout: str, value: int) -> bytes:
    data = bytearray((DATA / "thor.so").read_bytes())
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no ELF file"),
        (b"MZ" + bytes(100), "no ELF file"),
        (b"\x7fELF\x01\x01" + bytes(100), "64-bit"),
        (_patched(40, "<Q", 1 << 40), "section header table"),
        (_patched(40, "<Q", (1 << 64) - 64), "section header table"),
        (_patched(58, "<H", 17), "section headers of 17 bytes"),
        (_patched(60, "<H", 0xFEFF), "section header table"),
        (_patched(62, "<H", 900), "name table"),
    ],
)
def test_broken_headers_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why) as caught:
        Elf(data, "broken.so")
    assert isinstance(caught.value, NotAWheel)
    assert "broken.so" in str(caught.value)


def test_a_section_that_leaves_the_file_is_refused_when_it_is_read() -> None:
    whole = read("thor.so")
    number = next(n for n, section in enumerate(whole.sections) if section.name == ".dynsym")
    table = struct.unpack_from("<Q", whole.data, 40)[0]
    with pytest.raises(Malformed, match=r"\.dynsym ends at"):
        _ = Elf(_patched(table + 64 * number + 32, "<Q", 1 << 50), "broken.so").symbols
