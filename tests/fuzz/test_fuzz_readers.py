"""Hypothesis: mutations of real files never end in anything but a result or an error in words."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import targets
from wheel_maker import DATA, thor_wheel

SEEDS = {name: (DATA / name).read_bytes() for name in ("thor.so", "old.so", "size.o", "speed.o", "rdc.o")}
with tempfile.TemporaryDirectory() as _folder:
    WHEEL = thor_wheel(Path(_folder)).read_bytes()
BOUNDS = settings(
    max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some bytes, words or ranges changed, cut, or doubled."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["byte", "word", "long", "zero", "cut", "copy"]))
        if kind == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "word":
            data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, b"\0\0\0\x80", b"\x01\0\0\0"]))
        elif kind == "long":
            data[at : at + 8] = draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
        elif kind == "zero":
            size = draw(st.integers(1, 256))
            data[at : at + size] = bytes(min(size, len(data) - at))
        elif kind == "cut":
            del data[at:]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 512))]
    return bytes(data)


@BOUNDS
@given(mutated(list(SEEDS.values())))
def test_elf_and_device_code(data: bytes) -> None:
    targets.read_elf(data)
    targets.read_module(data)


@BOUNDS
@given(st.binary(max_size=512).map(lambda tail: SEEDS["thor.so"][:64] + tail))
def test_an_elf_header_and_noise(data: bytes) -> None:
    targets.read_elf(data)


@BOUNDS
@given(mutated([WHEEL]))
def test_wheels(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        targets.read_wheel(data, Path(folder) / "vllm-0.12.0-cp38-abi3-linux_aarch64.whl")


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_provenance_documents(data: bytes) -> None:
    targets.read_document(data)


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_seeds_themselves_are_taken(name: str) -> None:
    assert targets.read_elf(SEEDS[name])
    assert targets.read_module(SEEDS[name])
