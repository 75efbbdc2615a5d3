"""Plans: pure, refusing what cannot be, and with a fingerprint that names the result."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from build_recipes.build.pipeline import build
from build_recipes.build.plan import Plan, make_plan, memory_note
from build_recipes.build.preview import exports, preview, show
from build_recipes.build.request import Request, parse_duration
from build_recipes.build.stages import record
from build_recipes.kit.errors import (
    ArchitectureMismatch,
    GlibcTooNew,
    ToolchainMismatch,
    TreeBusy,
    UnsupportedPair,
    UsageError,
)
from build_recipes.kit.host import Host
from build_recipes.kit.paths import Places

X86 = Host("x86_64", (3, 12), (2, 39), 2, 23.5, 0.0, "ubuntu 24.04", Path("/usr/include/python3.12"))
ARM = dataclasses.replace(X86, machine="aarch64", cores=14, memory_gib=122.0)


OLD = dataclasses.replace(ARM, glibc=(2, 35), distribution="ubuntu 22.04")


@pytest.fixture(autouse=True)
def no_arch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)


def plan_of(places: Places, host: Host = X86, **words: object) -> Plan:
    return make_plan(Request(**{"tag": "v0.12.0", "device": "thor", **words}), places, host)  # type: ignore[arg-type]


def test_a_plan_for_thor_on_x86_is_cross_and_native_on_arm(places: Places) -> None:
    cross, native = plan_of(places), plan_of(places, ARM)
    assert (cross.cross, native.cross) == (True, False)
    assert cross.wheel_version == "0.12.0+cu130.thor"
    assert plan_of(places, smoke=True).wheel_version == "0.12.0+cu130.thor.smoke"
    assert cross.torch.version == "2.11.0"


def test_planning_writes_nothing(places: Places) -> None:
    preview(plan_of(places))
    assert [list(folder.iterdir()) for folder in (places.cache, places.build, places.wheels)] == [[], [], []]


def test_the_fingerprint_names_what_is_built_and_not_how(places: Places) -> None:
    base = plan_of(places)
    assert plan_of(places, jobs=7, time_box=60.0, offline=True).fingerprint == base.fingerprint
    others = [
        plan_of(places, device="spark"),
        plan_of(places, without=("_moe_C",)),
        plan_of(places, smoke=True),
        plan_of(places, build_type="Debug"),
        plan_of(places, tag="v0.14.0"),
    ]
    assert len({plan.fingerprint for plan in [base, *others]}) == 6


def test_the_environment_is_the_documented_one(places: Places) -> None:
    names = preview(plan_of(places))["environment"]
    assert names["TORCH_CUDA_ARCH_LIST"] == "11.0"
    assert names["VLLM_TARGET_DEVICE"] == "cuda"
    assert names["NVCC_THREADS"] == "1"
    assert names["CUDACXX"] == names["CUDA_HOME"] + "/bin/nvcc"
    assert names["VLLM_CUTLASS_SRC_DIR"].endswith("/src/cutlass")
    shell = subprocess.run(
        ["sh", "-c", exports({"A": "it's", "B": "x y"}) + 'printf "%s|%s" "$A" "$B"'],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shell.stdout == "it's|x y"


def test_an_architecture_that_is_not_the_devices_is_refused(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    with pytest.raises(ArchitectureMismatch, match=r"TORCH_CUDA_ARCH_LIST=9.0 contradicts"):
        plan_of(places)


def test_what_cannot_be_is_refused(places: Places) -> None:
    with pytest.raises(UnsupportedPair, match="cannot be built on aarch64"):
        plan_of(places, ARM, device="h200")
    with pytest.raises(UsageError, match="build-type Fast"):
        plan_of(places, build_type="Fast")
    with pytest.raises(UsageError, match="cache gcc is not a compiler cache"):
        plan_of(places, cache="gcc")
    with pytest.raises(UsageError, match="jobs -1: no unit would ever start"):
        plan_of(places, jobs=-1)
    with pytest.raises(UsageError, match=r"no torch 1\.0"):
        plan_of(places, torch="1.0")
    with pytest.raises(UsageError, match="not pinned by hash"):
        plan_of(places, torch="2.9.0")


def test_a_glibc_that_the_device_has_not_is_refused_before_the_compile(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GlibcTooNew, match=r"needs glibc 2\.38; the system of gh200 has 2\.35") as caught:
        plan_of(places, ARM, device="gh200")
    assert "Ubuntu 22.04" in caught.value.advice
    with pytest.raises(GlibcTooNew) as caught:
        plan_of(places, ARM, tag="v0.33.0", device="gh200")
    assert "an older glibc and a GCC 13 or newer" in caught.value.advice, "which neither of the two has"
    assert plan_of(places, OLD, device="gh200").promised_glibc == (2, 35)
    assert plan_of(places, ARM, device="gh200", allow=("glibc",)).promised_glibc == (2, 35)
    assert plan_of(places, ARM).promised_glibc == (2, 39)  # Thor has the same system
    monkeypatch.setattr(
        "build_recipes.facts.device.detect", lambda: "gh200"
    )  # a Grace-Hopper with Ubuntu 24.04
    assert plan_of(places, ARM, device="gh200").promised_glibc == (2, 39)


def test_a_python_that_vllm_refuses_is_said_before_the_fetch(places: Places) -> None:
    plan = plan_of(places, dataclasses.replace(X86, python=(3, 14)))
    with pytest.raises(
        ToolchainMismatch, match=r"v0\.12\.0 is built with Python 3\.10 to 3\.13; this is 3\.14"
    ):
        build(plan)
    assert list(places.build.iterdir()) == []


def test_too_little_memory_is_said_by_the_plan_and_before_the_compile(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert memory_note(X86, "_C/x.cu.o", 12.6) == ""
    small = dataclasses.replace(X86, memory_gib=7.5, swap_gib=0.0)
    said = memory_note(small, "_C/x.cu.o", 12.6)
    assert (
        "expected to take 12.6 GiB, 5.1 GiB more than the memory and swap of this machine: it runs alone"
        in said
    )
    assert "fallocate -l 8G" in said
    made = preview(plan_of(places, small))
    assert made["estimate"]["short_of_memory"] == memory_note(
        small, made["estimate"]["heaviest"], made["estimate"]["gib"]
    )
    show(made)
    assert "it runs alone" in " ".join(capsys.readouterr().err.split())


def test_max_jobs_is_honoured_and_more_jobs_than_cores_make_nothing_faster(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_JOBS", "1")
    assert plan_of(places).jobs == 1
    assert plan_of(places, jobs=2).jobs == 2, "--jobs is asked for, MAX_JOBS lies about"
    monkeypatch.setenv("MAX_JOBS", "a few")
    with pytest.raises(UsageError, match="MAX_JOBS=a few"):
        plan_of(places)
    monkeypatch.delenv("MAX_JOBS")
    walls = {jobs: preview(plan_of(places, jobs=jobs))["wall_seconds"] for jobs in (1, 2, 64)}
    assert walls[1] > walls[2] == walls[64]


def test_a_toolkit_that_is_not_there_is_refused_before_anything_is_fetched(places: Places) -> None:
    with pytest.raises(ToolchainMismatch, match="there is no /no/such/bin/nvcc"):
        plan_of(places, cuda="/no/such")


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("9m", 540), ("5h30m", 19800), ("45s", 45), ("90", 90)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "m", "-5m", "1w"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


def test_a_stage_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[int] = []
    made = tmp_path / "made"

    def work() -> dict[str, str]:
        calls.append(1)
        made.write_text("x")
        return {"made": str(made)}

    record.once(tmp_path, "stage", {"a": 1}, work)
    record.once(tmp_path, "stage", {"a": 1}, work)
    assert len(calls) == 1
    record.once(tmp_path, "stage", {"a": 2}, work)
    assert len(calls) == 2
    made.unlink()
    record.once(tmp_path, "stage", {"a": 2}, work)
    assert len(calls) == 3, "an output that is gone is made again"


def test_a_stage_that_is_stopped_is_not_taken_as_done(tmp_path: Path) -> None:
    record.once(tmp_path, "stage", 1, dict)

    def stopped() -> dict[str, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record.once(tmp_path, "stage", 2, stopped)
    assert record.read(tmp_path, "stage") is None


def test_two_builds_of_one_tree_do_not_meet(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from build_recipes.build.stages.record import tree_lock\n"
        "with tree_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    tree = tmp_path / "tree"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tree)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TreeBusy, match=f"process {other.pid}"), record.tree_lock(tree):
            pass
        other.communicate("")
    with record.tree_lock(tree):
        assert (tree / ".lock").read_text() == str(os.getpid())
