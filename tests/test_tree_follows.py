"""The build tree follows its sources: no unit goes in silence, none is compiled again for nothing.

Real CMake, ninja and cc.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages import configure as configuring
from build_recipes.build.stages.provision import Provisioned
from build_recipes.build.units import graph as graphs
from build_recipes.kit.errors import ConfigureFailed
from build_recipes.kit.paths import Places
from build_recipes.sources.fetch import Fetched, fetch

TOOLS = Path(sys.executable).parent
CMAKE = """
cmake_minimum_required(VERSION 3.26)
project(small LANGUAGES C)
file(MD5 ${CMAKE_SOURCE_DIR}/generate.py hash)  # as vLLM does for Marlin: the generator's hash stays in the cache
if(NOT "$CACHE{GENERATOR_HASH}" STREQUAL "${hash}")
  execute_process(COMMAND ${VLLM_PYTHON_EXECUTABLE} ${CMAKE_SOURCE_DIR}/generate.py COMMAND_ERROR_IS_FATAL ANY)
  set(GENERATOR_HASH ${hash} CACHE STRING "" FORCE)
endif()
file(GLOB kernels ${CMAKE_SOURCE_DIR}/csrc/kernel_*.c)
add_library(mod MODULE csrc/main.c ${kernels})
"""
GENERATE = """
import pathlib
for number in range(%d):
    kernel = pathlib.Path(__file__).parent / f"csrc/kernel_{number}.c"
    kernel.write_text(f"int k{number}(void) {{ return {number}; }}")
"""


@dataclasses.dataclass
class Tree:
    """A source folder of somebody's own, and the build of it."""

    plan: Plan
    source: Path
    made: Provisioned

    def fetched(self) -> Fetched:
        lock = msgspec.structs.replace(self.plan.lock, trees=[])
        return fetch(lock, source=self.source, places=self.plan.places, into=self.plan.tree / "src")

    def graph(self, fetched: Fetched) -> graphs.Graph:
        search = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"  # one ninja: another would begin its log again
        folder = configuring.configure(self.plan, fetched, self.made, {**os.environ, "PATH": search})
        return graphs.read_graph(folder, TOOLS / "ninja", ["mod"])


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    for name in ("CACHE", "BUILD", "WHEELS"):
        monkeypatch.setenv(f"VLLM_ARMORY_{name}", str(tmp_path / name.lower()))
    source = tmp_path / "own"
    for path, text in {
        "CMakeLists.txt": CMAKE, "generate.py": GENERATE % 28, "setup.py": "", "vllm/__init__.py": "",
        "csrc/main.c": "int main_of(void) { return 1; }",
    }.items():  # fmt: skip
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    request = Request(tag="v0.12.0", device="thor", cache="off")
    plan = make_plan(request, Places.from_environment())
    plan.tree.mkdir(parents=True)
    made = Provisioned(Path(sys.executable), tmp_path, "13.0", "", tmp_path, "2.11.0", "13.0", None, 0.0)
    return Tree(plan, source, made)


def build(graph: graphs.Graph) -> None:
    """Compile without the broker: its launchers find none and just run the compiler."""
    subprocess.run([TOOLS / "ninja", "mod"], cwd=graph.folder, capture_output=True, check=True)


def count(folder: Path) -> int:
    text = subprocess.run(
        [TOOLS / "ninja", "-t", "commands", "mod"], cwd=folder, capture_output=True, text=True, check=True
    )
    return len(re.findall(r" -o \S+\.o\b.* -c ", text.stdout))


def test_an_edited_source_compiles_itself_again_and_no_generated_unit_is_lost(tree: Tree) -> None:
    first = tree.graph(tree.fetched())
    assert len(first.commands) == 29
    build(first)
    (tree.source / "csrc/main.c").write_text("int main_of(void) { return 2; }")
    fetched = tree.fetched()
    assert not list((fetched.vllm / "csrc").glob("kernel_*")), (
        "the folder was replaced, with all that was generated"
    )
    second = tree.graph(fetched)
    assert [command.unit for command in second.commands] == [command.unit for command in first.commands]
    assert graphs.pending(second) == ["mod/csrc/main.c.o"], (
        "the other 28 are what they were, and so are their times"
    )
    again = tree.graph(tree.fetched())
    assert graphs.pending(again) == ["mod/csrc/main.c.o"]
    (tree.source / "csrc/main.c").write_text("int main_of(void) { return 3; }")
    tree.fetched()
    # the danger was real: CMake alone keeps the generator's hash, and says nothing of 28 units that are gone
    alone = tree.plan.tree / "cmake"
    subprocess.run([TOOLS / "cmake", alone], check=True, capture_output=True)
    assert count(alone) == 1


def test_units_that_a_source_no_longer_has_are_named(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    path = tree.plan.tree / "stages/units.json"
    graph = tree.graph(tree.fetched())
    graphs.compare(path, graph.targets, [command.unit for command in graph.commands])
    (tree.source / "generate.py").write_text(GENERATE % 20)
    fewer = tree.graph(tree.fetched())
    assert len(fewer.commands) == 21, "a fresh configure of the new source, not what the old one left"
    capsys.readouterr()
    graphs.compare(path, fewer.targets, [command.unit for command in fewer.commands])
    said = " ".join(capsys.readouterr().err.split())
    assert "21 units now, 29 at the last configure" in said
    assert "mod/csrc/kernel_20.c.o" in said
    graphs.compare(path, fewer.targets, [command.unit for command in fewer.commands])
    assert capsys.readouterr().err == ""


def test_a_source_that_changes_under_the_compile_is_noticed(tree: Tree) -> None:
    fetched = tree.fetched()
    graph = tree.graph(fetched)
    for path in (fetched.vllm / "csrc").glob("kernel_1*.c"):
        path.unlink()
    subprocess.run([TOOLS / "cmake", graph.folder], check=True, capture_output=True)
    with pytest.raises(ConfigureFailed, match="11 of 29 units are gone"):
        compiling.check_unchanged(tree.plan, graph)
    assert len(tree.graph(fetched).commands) == 29, "the same command again configures again"
