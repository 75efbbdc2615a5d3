"""The same source in another folder, by way of a link, with a compiler cache or without one, is the same bytes."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_canary import toolkit  # noqa: F401  a fixture

from build_recipes.kit.paths import PACKAGE
from build_recipes.toolchain import ccache, cuda

LAUNCHER = PACKAGE / "build/units/unit.py"

CUDA = """#include <cassert>
namespace { __device__ int hidden; __global__ void kernel(int* a) { assert(a[0]); hidden = a[1]; } }
static struct Early { Early(); ~Early(); } early;
const char* file() { return __FILE__; }
void run(int* a) { kernel<<<1, 1>>>(a); }
"""
CXX = """#include "own.h"
#include <cassert>
static struct Early { Early(); ~Early(); } early;
const char* file() { return __FILE__; }
int checked(int a) { assert(a); return a + *in_header(); }
"""


def tree(place: Path) -> Path:
    """A build tree with the launcher, two sources and a header."""
    (place / "cmake").mkdir(parents=True)
    (place / "src").mkdir()
    shutil.copy(LAUNCHER, place / "unit.py")
    (place / "src/own.h").write_text("static inline const char* in_header() { return __FILE__; }\n")
    (place / "src/x.cpp").write_text(CXX)
    (place / "src/x.cu").write_text(CUDA)
    return place


def compiled(tree: Path, compiler: list[str], *words: str, suffix: str = "cpp", **variables: str) -> bytes:
    """The library that a tree's source gives, built as CMake and ninja build it: absolute paths, in ``cmake``."""
    launcher = [sys.executable, "-I", "-S", str(tree / "unit.py")]
    own = ["-I", f"{tree}/src", f"-I{tree}/src", "-c", f"{tree}/src/x.{suffix}", "-o", "x.o"]
    environment = {**os.environ, **variables}
    environment.pop("ARMORY_BROKER", None)
    subprocess.run([*launcher, *compiler, *words, *own], cwd=tree / "cmake", env=environment, check=True)
    link = [
        "g++",
        "-shared",
        "-Wl,--build-id,--discard-all,--unresolved-symbols=ignore-all",
        "x.o",
        "-o",
        "x.so",
    ]
    subprocess.run(link, cwd=tree / "cmake", check=True)
    return (tree / "cmake/x.so").read_bytes()


def test_a_compiler_sees_no_path_of_its_tree(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "one"), tree(tmp_path / "some/where/else")
    (tmp_path / "link").symlink_to(second)
    for words in (["-fPIC", "-O2"], ["-fPIC", "-g"]):
        made = [compiled(place, ["g++"], *words) for place in (first, second, tmp_path / "link")]
        assert made[0] == made[1] == made[2]
        assert str(tmp_path).encode() not in made[0] and b"../src/x.cpp" in made[0]


@pytest.mark.skipif(not shutil.which("ccache"), reason="ccache is not installed")
def test_what_the_compiler_cache_gives_is_what_the_compiler_gives(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "one"), tree(tmp_path / "some/where/else")
    plain = compiled(first, ["g++"], "-fPIC", "-g")
    cache = ccache.environment(tmp_path / "cache", "ccache")
    for place in (first, second):
        assert compiled(place, ["ccache", "g++"], "-fPIC", "-g", **cache) == plain
    environment = {**os.environ, **cache}
    said = subprocess.run(
        ["ccache", "--print-stats"], env=environment, capture_output=True, text=True, check=True
    )
    assert "direct_cache_hit\t1\n" in said.stdout, said.stdout


@pytest.mark.network
def test_names_that_nvcc_makes_up_do_not_depend_on_the_folder(tmp_path: Path, toolkit: cuda.Toolkit) -> None:  # noqa: F811
    """Anonymous entities get a hash of the source's real path, and temporary files name themselves."""
    made, plain = [], []
    for name in ("one", "some/where/else"):
        place = tree(tmp_path / name)
        shutil.copytree(toolkit.home, place / "cuda", symlinks=True, copy_function=os.link)
        words = ["-Xcompiler=-fPIC", "-gencode", "arch=compute_110,code=sm_110", "-lineinfo"]
        os.utime(place / "src/x.cu", (0, 0))  # line information holds the source's time
        made.append(compiled(place, [f"{place}/cuda/bin/nvcc"], *words, suffix="cu"))
        (place / "unit.py").write_text("import os, sys\nos.execvp(sys.argv[1], sys.argv[1:])\n")
        plain.append(compiled(place, [f"{place}/cuda/bin/nvcc"], *words, suffix="cu"))
    assert plain[0] != plain[1], "without the launcher they do"
    assert made[0] == made[1] and str(tmp_path).encode() not in made[0]


def test_only_words_that_are_paths_of_the_tree_change(tmp_path: Path) -> None:
    place = tree(tmp_path / "t")
    portable = runpy.run_path(str(LAUNCHER))["portable"]
    words = {
        f"-I{place}/a": "-I../a", f"{place}": "..", f"{place}-other/x": f"{place}-other/x",
        f"/x{place}/y": f"/x{place}/y",
        f"--sysroot={place}/s": "--sysroot=../s", f"{place}/a:{place}/b": "../a:../b", "-DX=1": "-DX=1",
        f"-Wl,-rpath,{place}/l": "-Wl,-rpath,../l",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "cmake")
        assert portable(list(words), str(place)) == list(words.values())
        nvcc = ["ccache", f"{place}/cuda/bin/nvcc", "-x", "cu", "-c", f"{place}/src/x.cu", "-o", "x.o"]
        assert portable(nvcc, str(place))[-2:] == ["-Xcudafe", "--orig_src_path_name=../src/x.cu"]
        patch.chdir(tmp_path)
        assert portable(nvcc, str(place)) == nvcc, "another folder, where relative paths would be others"
