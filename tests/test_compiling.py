"""Compiling under the broker: real ninja, the real launcher, the real g++; no unit twice, none lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from build_recipes.build.units import costs, drive, graph, outputs
from build_recipes.build.units.broker import Broker, held_by
from build_recipes.build.units.costs import Cost, learned, read_journal
from build_recipes.build.units.progress import Progress
from build_recipes.kit.errors import UngatedUnits, UnloadableUnits
from build_recipes.kit.paths import PACKAGE

NINJA = Path(sys.executable).with_name("ninja")
LAUNCHER = PACKAGE / "build/units/unit.py"
SLOW = '#include <regex>\n#include <map>\nint {name}() {{ std::regex r("a+"); return std::regex_match("aa", r); }}\n'


class Project:
    """A ninja project of C++ units that link into one library."""

    def __init__(self, folder: Path, sources: dict[str, str]) -> None:
        self.folder = folder
        self.journal = folder / "units.jsonl"
        launcher = f"{sys.executable} -I -S {LAUNCHER}"
        lines = [
            f"rule cxx\n  command = {launcher} g++ -fPIC -O2 -MD -MF $out.d -c $in -o $out\n"
            "  depfile = $out.d\n  deps = gcc",
            "rule link\n  command = g++ -shared $in -o $out",
        ]
        objects = []
        for name, text in sources.items():
            (folder / f"{name}.cpp").write_text(text)
            objects.append(f"CMakeFiles/mod.dir/{name}.cpp.o")
            lines.append(f"build {objects[-1]}: cxx {name}.cpp")
        lines.append(f"build mod.so: link {' '.join(objects)}")
        (folder / "build.ninja").write_text("\n\n".join(lines) + "\n")

    def graph(self) -> graph.Graph:
        return graph.read_graph(self.folder, NINJA, ["mod.so"])

    def run(
        self,
        *,
        cores: int = 2,
        history: dict[str, Cost] | None = None,
        free_gib: float = 100,
        deadline: float | None = None,
        grace: float = 0,
    ) -> drive.Outcome:
        broker = Broker(
            address=Path(f"/tmp/armory-test-{os.getpid()}-{time.monotonic_ns()}.sock"),
            cores=cores,
            journal=self.journal,
            history=history or {},
            deadline=deadline,
            grace=grace,
            free_gib=lambda: free_gib,
        )
        return drive.drive(
            self.graph(),
            broker,
            Progress(graph.pending(self.graph()), history or {}),
            env=dict(os.environ),
            log=self.folder / "log",
            deadline=deadline,
        )

    def spans(self) -> dict[str, tuple[float, float]]:
        """Unit to start and end, from the journal."""
        return {r["unit"]: (r["ended"] - r["wall_s"], r["ended"]) for r in read_journal(self.journal)}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    yield Project(tmp_path, {name: SLOW.format(name=name) for name in ("a", "b", "c", "d")})


def test_an_output_that_cmake_names_twice_is_distrusted_once(tmp_path: Path) -> None:
    """DeepGEMM's modules come from a custom command, whose stamp CMake names relative and whole."""
    small = Project(tmp_path, {"a": "int a() { return 1; }"})
    with (tmp_path / "build.ninja").open("a") as build:
        build.write(
            f"rule CUSTOM_COMMAND\n  command = touch .built\nbuild .built | {tmp_path}/.built: CUSTOM_COMMAND\n"
        )
    (tmp_path / ".built").touch()
    assert outputs.distrust(small.graph(), small.journal, tmp_path / "linked.json") == [".built"]
    assert not (tmp_path / ".built").exists()


def test_units_compile_once_and_a_second_run_does_nothing(project: Project) -> None:
    first = project.run()
    assert first.ok
    assert first.finished == 4
    assert (project.folder / "mod.so").exists()
    assert sorted(r["unit"] for r in read_journal(project.journal)) == [f"mod/{n}.cpp.o" for n in "abcd"]
    assert all(r["rss_kib"] > 50_000 and r["cpu_s"] > 0.05 for r in read_journal(project.journal))
    second = project.run()
    assert second.ok
    assert second.finished == 0
    assert graph.pending(project.graph()) == []


def test_two_units_that_do_not_fit_together_never_meet(project: Project) -> None:
    heavy = {"mod/a.cpp.o": Cost(100, 7.0), "mod/b.cpp.o": Cost(90, 7.0)}
    light = {"mod/c.cpp.o": Cost(10, 0.5), "mod/d.cpp.o": Cost(5, 0.5)}
    assert project.run(history={**heavy, **light}, free_gib=10).ok
    spans = project.spans()
    (a0, a1), (b0, b1) = spans["mod/a.cpp.o"], spans["mod/b.cpp.o"]
    assert a1 <= b0 + 0.15 or b1 <= a0 + 0.15, "the two heavy units ran side by side"
    others = [spans["mod/c.cpp.o"], spans["mod/d.cpp.o"]]
    assert any(start < a1 and end > a0 for start, end in others), "no light unit filled the other core"


def test_what_a_launcher_holds_is_what_its_descendants_hold() -> None:
    hold = "import sys; b = bytearray(b'x') * (200 << 20); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["sh", "-c", f'{sys.executable} -c "{hold}"; true'], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdin and shell.stdout
        assert shell.stdout.readline() == b"held\n"
        held = held_by([shell.pid, 2**22 + 1])
        shell.stdin.close()
    assert 0.19 < held[shell.pid] < 0.4
    assert held[2**22 + 1] == 0.0


def test_the_longest_unit_starts_first(project: Project) -> None:
    history = {"mod/d.cpp.o": Cost(300, 0.1), "mod/b.cpp.o": Cost(200, 0.1)}
    before = {command.output: command.command for command in project.graph().commands}
    graph.order_by_cost(project.folder, history)
    assert {command.output: command.command for command in project.graph().commands} == before
    assert project.run(cores=1, history=history).ok
    ended = sorted(project.spans().items(), key=lambda item: item[1][1])
    assert [name for name, _ in ended][:2] == ["mod/d.cpp.o", "mod/b.cpp.o"]


def test_reordering_makes_nothing_out_of_date(project: Project) -> None:
    assert project.run().ok
    graph.order_by_cost(project.folder, {"mod/c.cpp.o": Cost(300, 1)})
    assert graph.pending(project.graph()) == []


def test_a_unit_that_does_not_compile_is_named_with_its_command_and_words(tmp_path: Path) -> None:
    project = Project(tmp_path, {"good": "int good;\n", "bad": "int bad = nonsense;\n"})
    outcome = project.run(cores=1)
    assert not outcome.ok
    assert outcome.failed is not None
    assert outcome.failed.unit == "mod/bad.cpp.o"
    command, said = drive.failing_block(outcome.tail)
    assert "bad.cpp -o CMakeFiles/mod.dir/bad.cpp.o" in command
    assert any("nonsense" in line and "was not declared" in line for line in said)
    (tmp_path / "bad.cpp").write_text("int bad = 1;\n")
    again = project.run(cores=1)
    assert again.ok
    good = [r["code"] for r in read_journal(project.journal) if r["unit"] == "mod/good.cpp.o"]
    assert good == [0], "a finished unit was compiled twice"


def test_a_time_box_leaves_a_tree_from_which_the_next_run_goes_on(project: Project) -> None:
    history = {f"mod/{name}.cpp.o": Cost(0.5, 0.1) for name in "abcd"}
    history["mod/d.cpp.o"] = Cost(3600, 0.1)
    outcome = project.run(history=history, deadline=time.monotonic() + 60)
    assert outcome.timed_out, "a unit that outlasts the box was started"
    assert outcome.finished == 3
    assert graph.pending(project.graph()) == ["mod/d.cpp.o"]
    assert project.run().ok
    counted = [r["unit"] for r in read_journal(project.journal) if r["code"] == 0]
    assert sorted(counted) == sorted(set(counted)), "a unit was compiled twice"


def test_a_compiler_that_is_killed_is_told_apart(tmp_path: Path) -> None:
    big = "#include <regex>\n" + "".join(
        f'template<int N> int f{i}() {{ std::regex r("x"); return N; }} int g{i} = f{i}<{i}>();\n'
        for i in range(400)
    )
    project = Project(tmp_path, {"victim": big})
    killer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                f"""
                import os, psutil, signal, time
                end = time.time() + 30
                while time.time() < end:
                    for p in psutil.process_iter(["name", "cwd"]):
                        if p.info["name"] == "cc1plus" and p.info["cwd"] == {str(tmp_path)!r}:
                            os.kill(p.pid, signal.SIGKILL)
                            raise SystemExit
                    time.sleep(0.02)
                """
            ),
        ]
    )
    outcome = project.run()
    killer.wait()
    assert not outcome.ok
    _, said = drive.failing_block(outcome.tail)
    assert any("Killed signal terminated program cc1plus" in line for line in said)


def compilers_in(folder: Path) -> list[psutil.Process]:
    """What still runs in a build folder."""
    return [p for p in psutil.process_iter(["cwd", "name"]) if p.info["cwd"] == str(folder)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killing_the_build_leaves_no_compiler_and_loses_nothing(tmp_path: Path, number: int) -> None:
    names = [f"u{i}" for i in range(6)]
    project = Project(tmp_path, {name: SLOW.format(name=name) for name in names})
    script = textwrap.dedent(
        f"""
        import sys, os
        sys.path.insert(0, {str(PACKAGE.parent / "tests")!r})
        from pathlib import Path
        import test_compiling as t
        project = object.__new__(t.Project)
        project.folder = Path({str(tmp_path)!r})
        project.journal = project.folder / "units.jsonl"
        project.run(cores=2)
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, stderr=subprocess.DEVNULL, cwd=PACKAGE.parent
    )
    end = time.monotonic() + 60
    while len(list(read_journal(project.journal))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(child.pid, number)
    child.wait()
    end = time.monotonic() + 30  # launchers give their compilers a second, then kill them
    while (left := compilers_in(tmp_path)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left, f"still running: {left}"
    done_before = {r["unit"] for r in read_journal(project.journal) if r["code"] == 0}
    assert 2 <= len(done_before) < len(names)
    assert project.run().ok
    counted = [r["unit"] for r in read_journal(project.journal) if r["code"] == 0]
    assert sorted(counted) == sorted(f"mod/{name}.cpp.o" for name in names), (
        "a unit was lost or compiled twice"
    )


def test_outside_of_a_build_the_launcher_is_the_compiler_and_after_its_end_nothing_is_compiled(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.cpp").write_text("int x;\n")
    environment = {k: v for k, v in os.environ.items() if k != "ARMORY_BROKER"}
    command = [sys.executable, "-I", "-S", str(LAUNCHER), "g++", "-c", "x.cpp", "-o", "x.o"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    gone = {**environment, "ARMORY_BROKER": str(tmp_path / "no.sock")}
    (tmp_path / "x.o").unlink()
    assert subprocess.run(command, cwd=tmp_path, env=gone, check=False).returncode == 75
    assert not (tmp_path / "x.o").exists()


@pytest.mark.skipif(not shutil.which("ccache"), reason="ccache is not installed")
def test_the_compiler_cache_answers_a_clean_tree_and_the_journal_says_so(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        project = Project(folder, {"a": SLOW.format(name="a")})
        text = (folder / "build.ninja").read_text().replace(" g++ -fPIC", " ccache g++ -fPIC")
        (folder / "build.ninja").write_text(text)
        os.environ.update(
            CCACHE_DIR=str(tmp_path / "ccache"), CCACHE_BASEDIR=str(folder), CCACHE_NOHASHDIR="1"
        )
        try:
            runs.append(project.run())
        finally:
            for key in ("CCACHE_DIR", "CCACHE_BASEDIR", "CCACHE_NOHASHDIR"):
                os.environ.pop(key)
        assert not list(folder.rglob("*.ccache"))
    assert [run.cached for run in runs] == [0, 1]


def test_cuda_units_without_an_architecture_are_refused(tmp_path: Path) -> None:
    command = "nvcc -x cu -c a.cu -o CMakeFiles/_vllm_fa3_C.dir/a.cu.o"
    good = command + " -gencode arch=compute_110,code=sm_110"
    units = (
        graph.Command("_vllm_fa3_C/a.cu.o", "CMakeFiles/_vllm_fa3_C.dir/a.cu.o", command, True),
        graph.Command("_C/b.cu.o", "CMakeFiles/_C.dir/b.cu.o", good, True),
    )
    with pytest.raises(UngatedUnits, match=r"1 CUDA units of _vllm_fa3_C have no -gencode") as caught:
        graph.check_gencode(graph.Graph(tmp_path, NINJA, ("_C",), units))
    assert caught.value.advice.endswith("--without _vllm_fa3_C")
    graph.check_gencode(graph.Graph(tmp_path, NINJA, ("_C",), units[1:]))
    assert units[1].gencodes == ("arch=compute_110,code=sm_110",)


def test_units_that_the_device_cannot_use_are_refused(tmp_path: Path) -> None:
    def unit(name: str, *codes: str) -> graph.Command:
        flags = " ".join(f"-gencode arch=compute_90,code={code}" for code in codes)
        return graph.Command(f"_C/{name}.cu.o", f"CMakeFiles/_C.dir/{name}.cu.o", f"nvcc -x cu {flags}", True)

    good = (
        unit("family", "sm_120f"),
        unit("plain", "sm_120"),
        unit("ptx", "sm_80", "compute_80"),
        unit("none"),
    )
    graph.check_targets(graph.Graph(tmp_path, NINJA, ("_C",), good), 121)
    bad = (*good, unit("exact", "sm_120a"), unit("other", "sm_100f"))
    with pytest.raises(
        UnloadableUnits, match=r"2 CUDA units of _C .* sm_100f, sm_120a, .* capability 12\.1"
    ) as caught:
        graph.check_targets(graph.Graph(tmp_path, NINJA, ("_C",), bad), 121)
    assert "--without _C" in caught.value.advice
    assert unit("ptx", "sm_80", "compute_80").usable(121)
    assert not unit("ptx", "sm_80", "compute_80").native(121)


def test_costs_learn_from_the_tree_and_not_from_cache_hits(tmp_path: Path) -> None:
    journal = tmp_path / "units.jsonl"
    unit = "_C/csrc/quantization/w8a8/cutlass/c3x/scaled_mm_sm100_fp8.cu.o"
    assert costs.expected(unit).gib == pytest.approx(12.6)
    rows = [
        {"unit": unit, "code": 0, "cpu_s": 200.0, "rss_kib": 8 * 2**20, "cached": False, "killed": False},
        {"unit": unit, "code": 0, "cpu_s": 0.1, "rss_kib": 1000, "cached": True, "killed": False},
        {
            "unit": "_C/x.cu.o",
            "code": 137,
            "cpu_s": 9.0,
            "rss_kib": 6 * 2**20,
            "cached": False,
            "oom": True,
        },
    ]
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"unit": "cut o')
    known = learned(journal)
    assert known[unit] == Cost(200.0, 8.0)
    assert known["_C/x.cu.o"].gib == pytest.approx(8.0)


def test_the_cost_table_knows_the_units_that_matter() -> None:
    assert costs.unit_name("CMakeFiles/_C.dir/csrc/a.cu.o") == "_C/csrc/a.cu.o"
    assert costs.unit_name("vllm-flash-attn/CMakeFiles/_vllm_fa2_C.dir/x.cu.o") == "_vllm_fa2_C/x.cu.o"
    default = costs.table().default
    assert costs.expected("_C/anything.cu.o") == Cost(default.cpu_s, default.gib)


@pytest.mark.parametrize("build", ["thor-v0.12.0", "h200-v0.12.0", "h200-v0.12.0/2026-11-20"])
def test_no_unit_of_a_real_build_took_more_memory_than_the_table_says(build: str) -> None:
    """More than 5 % would be a unit that is admitted where it does not fit."""
    seen = list(read_journal(PACKAGE.parent / "docs/evidence" / build / "units.jsonl"))
    assert len(seen) >= 150
    over = {
        row["unit"]: (row["rss_kib"] / 2**20, costs.expected(row["unit"]).gib)
        for row in seen
        if row["rss_kib"] / 2**20 > 1.05 * costs.expected(row["unit"]).gib
    }
    assert not over


def test_no_file_is_left_open(project: Project) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    project.run()
    project.run()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
