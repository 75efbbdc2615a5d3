"""Torn files: every file that a small real build writes is torn in four ways, and the same call builds the same.

Real CMake, ninja and g++ through the stages' own functions. ``ARMORY_CRASH=1`` tears each file alone in each way; else
files are torn by place, each place in two ways. tests/crash/tear.py does the same to a real smoke build.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from crash.tear import WAYS, tear
from test_plan import plan_of

from build_recipes.build.plan import Plan
from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages import configure as configuring
from build_recipes.build.stages import record, sources
from build_recipes.build.stages.provision import Provisioned
from build_recipes.build.units.costs import add_line, read_journal
from build_recipes.build.units.graph import read_graph
from build_recipes.kit import evidence
from build_recipes.kit.data import read_sealed, write_sealed
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.once import filled, replaced, stands
from build_recipes.kit.paths import Places
from build_recipes.sources.fetch import Fetched
from build_recipes.toolchain import ccache

SOURCES = {
    "CMakeLists.txt": """cmake_minimum_required(VERSION 3.26)
project(tiny CXX)
file(WRITE ${CMAKE_SOURCE_DIR}/csrc/generated.cpp "int generated() { return 3; }\\n")
add_library(_C MODULE csrc/a.cpp csrc/b.cpp csrc/generated.cpp)
set_target_properties(_C PROPERTIES PREFIX "" SUFFIX .abi3.so)
""",
    "csrc/a.cpp": '#include "a.h"\nint a() { return A; }\nextern "C" void PyInit__C() {}\n',
    "csrc/b.cpp": '#include "a.h"\nint b() { return A + 1; }\n',
    "csrc/a.h": "#define A 1\n",
}
ALL = bool(os.environ.get("ARMORY_CRASH"))


class Small:
    """A build tree of a project with three units and one module."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.tree = plan, plan.tree
        self.marker = self.tree / "src/.vllm.source"

    def build(self) -> str:
        """Go on where the tree stands; the module's hash."""
        with record.tree_lock(self.tree):
            sources.distrust(self.tree)
            vllm = self.tree / "src/vllm"
            if not (self.marker.is_file() and vllm.is_dir()):
                replaced(vllm, self.unpack)
                self.marker.write_text("sdist 1")
            sources.settle(self.tree)
            made = Provisioned(
                Path(sys.executable), Path("/usr"), "13.0", "given", self.tree, "2.11.0", "13.0", None, 0.0
            )
            environment = {**os.environ, **record.scratch_environment(self.tree)}
            folder = configuring.configure(self.plan, Fetched(vllm, {}, {}), made, environment)
            graph = read_graph(folder, Path(sys.executable).with_name("ninja"), ["_C"])
            outcome = compiling.run_units(self.plan, graph, environment, 0.0)
            assert outcome.ok, "\n".join(outcome.tail)
            return file_sha256(folder / "_C.abi3.so")

    @staticmethod
    def unpack(into: Path) -> None:
        for name, text in SOURCES.items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_text(text)

    def compiled(self) -> list[str]:
        """Units in the order in which they were compiled."""
        return [row["unit"] for row in read_journal(self.tree / "units.jsonl") if row["code"] == 0]

    def files(self) -> list[Path]:
        """Everything that the build wrote."""
        names = [name for name in evidence.names_below(self.tree, "") if name != ".lock"]
        return [self.tree / name for name in names if not (self.tree / name).is_symlink()]


@pytest.fixture
def small(places: Places, monkeypatch: pytest.MonkeyPatch) -> Small:
    plan = plan_of(places)
    monkeypatch.setattr(ccache, "launcher", lambda choice: [])
    return Small(plan)


def place(small: Small, path: Path) -> str:
    """What is torn together: what CMake wrote for itself, and any other file alone."""
    name = path.relative_to(small.tree).as_posix()
    if ALL:
        return name
    return "cmake/CMakeFiles" if "CMakeFiles/" in name and not name.endswith(".o") else name


@pytest.mark.timeout(3000 if ALL else 600)
def test_whatever_a_crash_tears_the_same_call_builds_the_same(small: Small) -> None:
    reference = small.build()
    assert small.build() == reference
    first = small.compiled()
    assert sorted(first) == ["_C/csrc/a.cpp.o", "_C/csrc/b.cpp.o", "_C/csrc/generated.cpp.o"]
    places: dict[str, list[Path]] = {}
    for path in small.files():
        places.setdefault(place(small, path), []).append(path)
    assert {"units.jsonl", "cmake/build.ninja", "stages/configure.json", "src/vllm/csrc/a.h"} <= places.keys()
    states, twice = 0, 0
    for number, (name, paths) in enumerate(sorted(places.items())):
        for way in WAYS if ALL else (WAYS[number % 4], WAYS[(number + 1) % 4]):
            before = len(small.compiled())
            states += sum(tear(path, way) for path in paths if path.exists())
            assert small.build() == reference, f"{name} {way}: another module"
            again = len(small.compiled()) - before if name != "units.jsonl" else 0
            twice += again
            if name.endswith(".o"):
                assert again == 1, f"{name} {way}: {again} units were compiled again"
            elif ".ninja_" not in name and not name.startswith("stages/"):
                assert again == 0, f"{name} {way}: {again} units were compiled again for nothing"
    print(f"{states} torn states, 0 wrong modules, {twice} units compiled again")
    assert states >= 50


def test_a_build_that_nothing_touched_believes_what_it_left(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    small.build()
    capsys.readouterr()
    small.build()
    assert capsys.readouterr().err == ""


def test_a_reconfigure_compiles_nothing_again(small: Small) -> None:
    small.build()
    (small.tree / "cmake/CMakeCache.txt").unlink()
    before = small.compiled()
    small.build()
    small.build()
    assert small.compiled() == before


def test_evidence_survives_a_copy_of_the_tree_and_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_bytes(b"12345")
    kept = tmp_path / "kept.json"
    evidence.keep(tmp_path, kept, ["a/x"])
    assert evidence.damaged(tmp_path, kept) == []
    monkeypatch.setattr(evidence, "boot_id", lambda: "another boot")
    read: list[Path] = []

    def seen(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(evidence, "file_sha256", seen)
    assert evidence.damaged(tmp_path, kept) == [] and len(read) == 1, "after a reboot the content is hashed"
    assert evidence.damaged(tmp_path, kept) == [] and len(read) == 1, "and then not again"
    tear(tmp_path / "a/x", "flipped")
    assert evidence.damaged(tmp_path, kept) == ["a/x"]


@pytest.mark.parametrize("way", WAYS)
def test_a_torn_folder_of_the_cache_is_filled_again(tmp_path: Path, way: str) -> None:
    def fill(into: Path) -> None:
        (into / "nvcc").write_bytes(b"program")

    kit = filled(tmp_path / "kit", fill)
    tear(kit / "nvcc", way)
    assert not stands(kit)
    assert (filled(kit, fill) / "nvcc").read_bytes() == b"program"
    tear(tmp_path / ".kit.files.json", way)
    assert stands(filled(kit, fill))


@pytest.mark.parametrize("way", WAYS)
def test_no_byte_of_a_record_can_change_unseen(tmp_path: Path, way: str) -> None:
    path = tmp_path / "r.json"
    write_sealed(path, {"outputs": None, "n": [1, 2]})
    assert read_sealed(path, dict) == {"outputs": None, "n": [1, 2]}
    whole = path.read_bytes().rstrip()
    for at in range(len(whole) if way == "flipped" else 0):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read_sealed(path, dict) is None, whole[at : at + 1]
    path.write_bytes(whole)
    tear(path, way)
    assert read_sealed(path, dict) is None


def test_a_binary_tail_of_the_journal_hides_no_line_before_or_after_it(tmp_path: Path) -> None:
    journal = tmp_path / "units.jsonl"
    row = {
        "unit": "_C/a.o",
        "code": 0,
        "cpu_s": 1.0,
        "rss_kib": 1,
        "output": "a.o",
        "size": 1,
        "sha256": "00",
    }
    add_line(journal, row)
    with journal.open("ab") as stream:
        stream.write(b'\xff\x00\xfe{"unit": ')
    add_line(journal, {**row, "unit": "_C/b.o"})
    with journal.open("ab") as stream:
        stream.write(b'{"unit": "_C/c.o", "code": 0}\n' + b"\x80" * 300)
    assert [one["unit"] for one in read_journal(journal)] == ["_C/a.o", "_C/b.o"]
    plain = {key: value for key, value in row.items() if key != "seal"}
    journal.write_text(json.dumps(plain) + "\n")
    assert [one["sha256"] for one in read_journal(journal)] == [""], "a line without a seal is no evidence"
