"""One unit of each module: the cheapest, each source for each target once, and a failure told."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from build_recipes.build import sampling
from build_recipes.build.units.graph import Command


def command(folder: Path, name: str, text: str, *, cuda: bool = False) -> Command:
    source, output = folder.parent / f"{name}.cc", f"CMakeFiles/m.dir/{name}.cc.o"
    source.write_text(text)
    words = [
        "/tree/env/bin/python",
        "-I",
        "-S",
        "/tree/unit.py",
        "ccache",
        "g++",
        "-O0",
        "-c",
        str(source),
        "-o",
        output,
    ]
    return Command(f"m/{name}.cc.o", output, shlex.join(words), cuda)


@pytest.mark.parametrize(
    "name", ["nvcc", "g++", "aarch64-linux-gnu-g++-13", "/t/sysroot/aarch64-linux-gnu-g++", "g++-14"]
)
def test_a_compiler_is_found_behind_its_launchers(name: str) -> None:
    assert sampling.plain(f"/env/bin/python -I -S unit.py ccache {name} -c x -o y")[0] == name
    assert sampling.plain(f"cd /a && {name} -c x")[0] == name
    with pytest.raises(ValueError, match="no compiler"):
        sampling.plain("cmake -E true")


def test_a_unit_is_compiled_once_and_a_failure_is_kept(tmp_path: Path) -> None:
    folder, kept = tmp_path / "cmake", tmp_path / "kept"
    folder.mkdir()
    good = command(folder, "good", "int f() { return 1; }\n")

    def tried(one: Command, pair: str, torch: str = "2.11.0") -> sampling.Sample:
        made = sampling.try_one([one], pair=pair, torch=torch, folder=folder, env=dict(os.environ), kept=kept)
        assert made is not None
        return made

    first = tried(good, "v0.12.0 thor")
    assert (first.ok, first.error, first.unit) == (True, "", "m/good.cc.o")
    assert not list(folder.rglob("*.o")), "nothing is left in the tree"
    assert tried(good, "v0.12.0 orin") == first, "the same source for the same targets"
    assert tried(good, "v0.26.0 orin", torch="2.13.0").pair == "v0.26.0 orin", (
        "torch's headers are another source"
    )
    bad = tried(command(folder, "bad", "int f() { return nothing_here; }\n"), "v0.12.0 thor")
    assert not bad.ok
    assert "nothing_here" in bad.error
    assert str(tmp_path) not in bad.error
    assert len(list(kept.glob("*.json"))) == 3
    next(kept.glob("*.json")).write_text("{torn")
    assert tried(good, "v0.12.0 spark").ok


def test_nvccs_cheapest_unit_stands_for_a_module(tmp_path: Path) -> None:
    (tmp_path / "cmake").mkdir()
    bindings = command(tmp_path / "cmake", "torch_bindings", "")
    heavy = Command("_C/csrc/c3x/scaled_mm_sm100_fp8.cu.o", "", "", True)
    light = Command("_C_stable_libtorch/csrc/x.cu.o", "", "", True)
    assert sampling.choose([bindings, heavy, light]) == light
    assert sampling.choose([bindings]) == bindings
    assert sampling.choose([]) is None
