"""One unit of each module: the cheapest, each source for each target once, and a failure told."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from build_recipes.build.survey import sampling
from build_recipes.build.units.graph import Command, plain


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
    assert plain(f"/env/bin/python -I -S unit.py ccache {name} -c x -o y")[0] == name
    assert plain(f"cd /a && {name} -c x")[0] == name
    with pytest.raises(ValueError, match="no compiler"):
        plain("cmake -E true")


def bench_of(tree: Path, pair: str, **words: Any) -> sampling.Bench:
    (tree / "cmake").mkdir(parents=True, exist_ok=True)
    given = {
        "compilers": "g++ 12, torch 2.11.0",
        "kept": tree.parent / "kept",
        "env": dict(os.environ),
        **words,
    }
    return sampling.Bench(pair=pair, folder=tree / "cmake", **given)


def tried(one: Command, bench: sampling.Bench) -> sampling.Sample:
    made = sampling.try_one(one, bench)
    assert made is not None
    return made


def test_a_unit_is_compiled_once_and_a_failure_is_kept(tmp_path: Path) -> None:
    thor, orin = bench_of(tmp_path / "t", "v0.12.0 thor"), bench_of(tmp_path / "t", "v0.12.0 orin")
    good = command(thor.folder, "good", "#include <iostream>\nint f() { return 1; }\n")
    ballast = b"x" * (400 << 20)  # what this process holds is none of the compiler's
    first = tried(good, thor)
    assert (first.ok, first.error, first.unit) == (True, "", "m/good.cc.o")
    assert 0 < first.seconds < 20 and 0 < first.gib < len(ballast) / 2**30
    assert not list(thor.folder.rglob("*.o")), "nothing is left in the tree"
    assert tried(good, orin) == first, "the same source for the same targets"
    newer = bench_of(tmp_path / "t", "v0.26.0 orin", compilers="g++ 12, torch 2.13.0")
    assert tried(good, newer).pair == "v0.26.0 orin", "torch's headers are another source"
    bad = tried(command(thor.folder, "bad", "int f() { return nothing_here; }\n"), thor)
    assert not bad.ok
    assert "nothing_here" in bad.error
    assert str(tmp_path) not in bad.error
    assert len(list(thor.kept.glob("*.json"))) == 3
    next(thor.kept.glob("*.json")).write_text("{torn")
    assert tried(good, thor).ok


def test_two_units_are_the_same_by_command_and_files_wherever_their_tree_is(tmp_path: Path) -> None:
    one, two = bench_of(tmp_path / "one", "a"), bench_of(tmp_path / "two", "b")
    text = '#include "sub/a.h"\n  #  include <b.h>\n#include <vector>\n'

    def seal(bench: sampling.Bench, *options: str) -> str:
        tree = bench.folder.parent
        for name, content in {
            "src/x.cc": text,
            "src/sub/a.h": '#include "c.h"\n',
            "inc/b.h": "",
            "src/sub/c.h": "",
        }.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            if not (tree / name).exists():
                (tree / name).write_text(content)
        words = [
            "g++",
            *options,
            f"-I{tree}/inc",
            "-c",
            f"{tree}/src/x.cc",
            "-MF",
            f"{bench.pair}.d",
            "-o",
            bench.pair,
        ]
        return sampling.digest(words, bench)

    before = seal(one)
    assert seal(two) == before, "outputs and the place of the tree do not count"
    assert seal(two, "-DX") != before
    for name in ("src/sub/c.h", "inc/b.h", "src/x.cc"):
        path = tmp_path / "two" / name
        kept = path.read_text()
        path.write_text("int another;\n")
        assert seal(two) != before, f"{name} is included"
        path.write_text(kept)
        assert seal(two) == before
    (tmp_path / "two/inc/unused.h").write_text("int x;\n")
    assert seal(two) == before


def test_each_module_is_tried_and_one_that_would_not_end_in_time_is_left(tmp_path: Path) -> None:
    bench = bench_of(tmp_path / "t", "v0.12.0 thor", jobs=2)
    modules = {name: [command(bench.folder, name, f"int {name};\n")] for name in ("a", "b")}
    over = dataclasses.replace(bench, deadline=time.monotonic())
    assert sampling.try_all({**modules, "empty": []}, over) == {}
    done = sampling.try_all({**modules, "empty": []}, bench)
    assert {target: one.unit for target, one in done.items()} == {"a": "m/a.cc.o", "b": "m/b.cc.o"}
    assert sampling.try_all(modules, over) == done, "what was compiled before is found"


def test_nvccs_cheapest_unit_stands_for_a_module(tmp_path: Path) -> None:
    (tmp_path / "cmake").mkdir()
    bindings = command(tmp_path / "cmake", "torch_bindings", "")
    heavy = Command("_C/csrc/c3x/scaled_mm_sm100_fp8.cu.o", "", "", True)
    light = Command("_C_stable_libtorch/csrc/x.cu.o", "", "", True)
    assert sampling.choose([bindings, heavy, light]) == light
    assert sampling.choose([bindings]) == bindings
    assert sampling.choose([]) is None
