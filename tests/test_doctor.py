"""The doctor on snapshots of machines, on machines made up of one fault each, and on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_recipes.build import disk
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.units import estimate
from build_recipes.doctor.asking import ask_machine
from build_recipes.doctor.consult import Report, check, consult, doctor
from build_recipes.doctor.machine import Machine, Toolkit, Torch, Triton, read_machine
from build_recipes.doctor.tables import cuda_of_driver, driver_is_newer, jetpack_of
from build_recipes.facts.device import device
from build_recipes.kit.console import size
from build_recipes.kit.errors import CouldNotCheck, DoctorBlocker, NotEnoughDisk, UnknownDevice, UnknownTag
from build_recipes.kit.paths import Places

PROJECT = Path(__file__).parent.parent
SNAPSHOTS = Path(__file__).parent / "snapshots"


def snapshot(name: str) -> Machine:
    return read_machine(SNAPSHOTS / name)


def statuses(report: Report, *wanted: str) -> dict[str, str]:
    """Check to status, of those with a wanted status."""
    return {found.check: found.status for found in report.findings if found.status in wanted}


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "thor",
            {
                "device": "thor",
                "machine": "aarch64",
                "l4t": "38.2.0",
                "jetpack": "7.0",
                "driver_cuda": "13.0",
            },
        ),
        (
            "thor-container",
            {"device": "thor", "l4t": None, "jetpack": None, "driver": None, "nvml": "absent"},
        ),
        (
            "orin-nx",
            {"device": "orin", "l4t": "36.4.3", "jetpack": "6.2", "driver": "540.4.0", "driver_cuda": "12.6"},
        ),
        ("orin-r39", {"device": "orin", "l4t": "39.2.0", "jetpack": "7.2", "driver": None, "nvml": None}),
        (
            "spark",
            {"device": "spark", "driver": "580.142", "driver_cuda": "13.0", "gcc": "13.3.0", "cores": 20},
        ),
        ("spark-gcc10", {"device": "spark", "driver": None, "gcc": "10.5.0", "memory_gib": None}),
        ("gh200", {"device": "gh200", "driver": "560.35.05", "driver_cuda": "12.6", "glibc": "2.35"}),
        ("h200", {"device": "h200", "driver": "580.159.04", "driver_cuda": "13.0", "glibc": "2.39"}),
        ("arm-server", {"device": None, "machine": "aarch64", "driver": None, "cores": 64}),
        ("x86-host", {"device": None, "machine": "x86_64", "driver": None, "memory_gib": 23.5}),
    ],
)
def test_what_a_snapshot_shows(name: str, facts: dict[str, object]) -> None:
    seen = dataclasses.asdict(snapshot(name))
    assert {key: seen[key] for key in facts} == facts


@pytest.mark.parametrize(
    ("name", "tag", "blockers", "warnings"),
    [
        ("thor", "v0.12.0", [], ["Triton"]),
        ("thor", "v0.28.0", [], []),
        ("thor", "v0.11.0", ["tag and device"], ["Triton"]),
        ("thor-container", "v0.28.0", ["NVML"], []),
        ("orin-nx", "v0.12.0", ["JetPack", "driver", "glibc"], ["CUDA toolkit", "memory"]),
        ("orin-nx", "v0.32.0", ["JetPack", "Python", "driver", "glibc"], ["CUDA toolkit", "memory"]),
        ("orin-r39", "v0.12.0", [], []),
        ("spark", "v0.20.0", [], []),
        ("spark-gcc10", "v0.24.0", ["GCC", "torch"], []),
        ("gh200", "v0.12.0", ["driver"], ["CUDA toolkit"]),
        ("gh200", "v0.32.0", ["GCC", "driver"], ["CUDA toolkit"]),
        ("h200", "v0.12.0", [], []),
        ("arm-server", "v0.12.0", [], []),
        ("x86-host", "v0.12.0", [], []),
        ("x86-host", "v0.32.0", ["GCC"], []),
    ],
)
def test_what_the_doctor_says_of_a_snapshot(
    name: str, tag: str, blockers: list[str], warnings: list[str]
) -> None:
    report = consult(snapshot(name), tag=tag)
    assert sorted(statuses(report, "blocker")) == blockers
    assert sorted(statuses(report, "warning")) == warnings
    for found in report.findings:
        if found.status == "blocker":
            assert found.follows and found.fix, found


FIT = dataclasses.replace(
    read_machine(SNAPSHOTS / "thor"),
    nvml="1 device",
    toolkits=(Toolkit("/usr/local/cuda-13.0", "13.0.88"),),
)
"""A Thor that nothing is wrong with."""


def test_a_sound_machine_has_no_complaint() -> None:
    report = consult(FIT, tag="v0.28.0")
    assert statuses(report, "warning", "blocker", "unknown") == {"disk": "unknown"}, (
        "files tell nothing of it"
    )
    check(report)


@pytest.mark.parametrize(
    ("fault", "name", "says"),
    [
        ({"torch": Torch("/x/torch", "2.10.0", None)}, "torch", "Unknown runtime environment"),
        ({"torch": Torch("/x/torch", "2.9.0+cu129", "12.9")}, "torch", "another major"),
        ({"torch": Torch("/x/torch", "2.11.0", "13.0", ("sm_80", "sm_90"))}, "torch", "no code that loads"),
        ({"toolkits": (Toolkit("/usr/local/cuda-13.2", "13.2.20"),)}, "PTX", "unsupported toolchain"),
        ({"triton": Triton("3.6.0", "12.9")}, "Triton", "sm_110a"),
        ({"triton": Triton("3.5.0", "12.8")}, "Triton", "sm_110a"),
        ({"driver": "540.4.0", "driver_cuda": None}, "driver", "needs driver 580"),
        ({"gcc": "11.2.0"}, "GCC", "needs GCC 11.3"),
        ({"gcc": "16.1.0"}, "GCC", "takes GCC up to 15"),
        (
            {"environment": {"TORCH_CUDA_ARCH_LIST": "9.0"}},
            "architecture list",
            "no code for it loads on Jetson AGX Thor",
        ),
        ({"environment": {"TORCH_CUDA_ARCH_LIST": "9.0+PTX"}}, "architecture list", "only PTX"),
        ({"environment": {"TORCH_CUDA_ARCH_LIST": "11.0 11.0a"}}, "architecture list", "drops the plain one"),
        ({"environment": {"VLLM_TARGET_DEVICE": "cpu"}}, "target", "CPU wheel"),
        ({"environment": {"CUDA_HOME": "/nowhere"}}, "CUDA toolkit", "would use it and stop"),
        ({"nvml": "absent", "marks": ()}, "NVML", "Device string must not be empty"),
        ({"nvml": "0 devices"}, "NVML", "Device string must not be empty"),
        ({"nvml": "Driver/library version mismatch"}, "NVML", "Device string must not be empty"),
        ({"glibc": "2.35"}, "glibc", "manylinux_2_39_aarch64"),
        ({"python": "3.9.18"}, "Python", "supports 3.10 to 3.14"),
    ],
)
def test_each_fault_is_a_blocker_and_alone(fault: dict[str, object], name: str, says: str) -> None:
    report = consult(dataclasses.replace(FIT, **fault), tag="v0.24.0" if name != "Triton" else "v0.12.0")  # type: ignore[arg-type]
    blockers = report.blockers
    assert [found.check for found in blockers] == [name]
    assert says in blockers[0].follows
    with pytest.raises(DoctorBlocker) as caught:
        check(report)
    assert caught.value.exit_code == 64
    assert caught.value.advice == blockers[0].fix


@pytest.mark.parametrize(
    ("wanted", "status"), [("10.0 10.0a", "blocker"), ("12.1f", "warning"), ("11.0", "unknown"), ("9.0+PTX", "warning")]
)  # fmt: skip
def test_forms_that_are_dropped_are_told_without_a_device(wanted: str, status: str) -> None:
    machine = dataclasses.replace(snapshot("arm-server"), environment={"TORCH_CUDA_ARCH_LIST": wanted})
    assert {f.check: f.status for f in consult(machine).findings}["architecture list"] == status


@pytest.mark.parametrize(
    ("name", "wanted", "status"),
    [("spark", "12.1", "ok"), ("spark", "12.0", "ok"), ("spark", "12.1a", "ok"), ("spark", "12.0f", "warning"),
     ("spark", "12.0a", "blocker"), ("spark", "12.1;8.7", "warning"), ("spark", "9.0+PTX", "blocker"),
     ("thor", "11.0f", "warning"),
     ("orin-nx", "8.0", "blocker"), ("gh200", "9.0a", "ok"), ("thor", "blackwell", "blocker")],
)  # fmt: skip
def test_an_architecture_list_is_judged_by_cudas_rules(name: str, wanted: str, status: str) -> None:
    machine = dataclasses.replace(snapshot(name), environment={"TORCH_CUDA_ARCH_LIST": wanted})
    assert {f.check: f.status for f in consult(machine).findings}["architecture list"] == status


@pytest.mark.parametrize(
    ("driver", "runs", "newer"),
    [
        ("595.71.05", "13.2", False),
        ("610.43.02", "13.3", False),
        ("640.10", "13.3", True),
        ("572.1", "12.8", False),
    ],
)
def test_a_driver_that_is_not_known_is_told_by_its_neighbours(driver: str, runs: str, newer: bool) -> None:
    assert (cuda_of_driver(driver), driver_is_newer(driver)) == (runs, newer)
    machine = dataclasses.replace(snapshot("spark"), driver=driver, driver_cuda=cuda_of_driver(driver))
    told = {found.check: found for found in consult(machine, tag="v0.28.0").findings}
    assert "driver" in told and "PTX" in told, "no check vanishes"
    assert ("newer" in told["driver"].seen) is newer


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("39.2.0", "7.2"), ("39.2.1", "7.2.1"), ("38.2.7", "7.0"), ("40.1.0", "newer than 7.2.1"), ("20.1", None)],
)  # fmt: skip
def test_a_jetpack_that_is_not_known_is_told_by_its_neighbours(l4t: str, jetpack: str | None) -> None:
    assert jetpack_of(l4t) == jetpack


def faults() -> Iterator[Machine]:
    """Machines with a fault each, and every snapshot."""
    for change in (
        {"torch": Torch("/x/torch", "2.10.0", None)}, {"triton": Triton("3.5.0", "12.8")}, {"gcc": "11.2.0"},
        {"gcc": None}, {"driver": "540.4.0", "driver_cuda": "12.6"},
        {"environment": {"TORCH_CUDA_ARCH_LIST": "9.0", "MAX_JOBS": "many"}},
        {"environment": {"CUDA_HOME": "/nowhere", "NVCC_THREADS": "4"}}, {"memory_gib": 3.8, "swap_gib": 16.0},
        {"memory_gib": 3.8, "swap_gib": 0.0}, {"memory_gib": 14.0}, {"nvml": "absent", "marks": ()},
        {"glibc": "2.35"}, {"glibc": "2.43"}, {"python": "3.9.18"}, {"nvml": "1 device, memory not supported"},
        {"toolkits": (), "triton": Triton("3.6.0", "12.9")},
        {"toolkits": (Toolkit("/usr/local/cuda-13.2", "13.2.20"),)},
    ):  # fmt: skip
        yield dataclasses.replace(FIT, **change)
    for folder in sorted(SNAPSHOTS.iterdir()):
        if folder.is_dir():
            yield read_machine(folder)


def test_every_fix_is_a_line_that_a_shell_takes() -> None:
    seen = 0
    for machine in faults():
        for tag in ("", "v0.12.0", "v0.32.0"):
            for found in consult(machine, tag=tag).findings:
                if found.fix and found.status != "ok":
                    seen += 1
                    parsed = subprocess.run(["bash", "-n", "-c", found.fix], capture_output=True, check=False)
                    assert parsed.returncode == 0, (found, parsed.stderr)
                    first = found.fix.split()[0].split("=")[0]
                    assert shutil.which(first) or first in SHELL, found.fix
    assert seen > 60


SHELL = {
    "export",
    "unset",
    "./inv",
    "uv",
    "pip",
    "docker",
    "sudo",
    "nvidia-smi",
    "vllm",
    "sdkmanager",
    "VLLM_ARMORY_BUILD",
}
"""Beginnings of fixes that need not be on this machine."""


def test_no_toolkit_and_its_ptxas_never_stand_in_one_page() -> None:
    bare = dataclasses.replace(FIT, toolkits=(), triton=Triton("3.6.0", "12.9"))
    told = {found.check: found for found in consult(bare, tag="v0.24.0").findings}
    assert told["CUDA toolkit"].seen == "none found"
    assert "/usr/local/cuda" not in told["Triton"].fix and "nvidia-cuda-nvcc" in told["Triton"].fix
    fitted = dataclasses.replace(FIT, triton=Triton("3.6.0", "12.9"))
    told = {found.check: found for found in consult(fitted, tag="v0.24.0").findings}
    assert "/usr/local/cuda-13.0/bin/ptxas" in told["Triton"].fix


def test_disk_is_judged_by_the_plans_own_count(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(Request(tag="v0.28.0", device="thor"), places)
    needed, least = (sum(need.octets for need in disk.needs(plan, drop=drop)) for drop in (False, True))
    assert least < needed
    for free, status in ((needed, "ok"), (needed - 1, "warning"), (least - 1, "blocker")):
        monkeypatch.setattr(disk, "free_disk", lambda folder, free=free: free)
        told = {one.check: one for one in consult(FIT, tag="v0.28.0", places=places).findings}["disk"]
        assert told.status == status and f"{size(needed)} are needed: downloads" in told.seen
        if status != "blocker":
            assert bool(disk.check_disk(plan)) is (status == "warning")
            continue
        with pytest.raises(NotEnoughDisk) as refused:
            disk.check_disk(plan)
        assert (str(refused.value.args[0]), refused.value.advice) == (told.seen, told.fix)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    told = {one.check: one for one in consult(FIT, tag="v0.28.0", places=places).findings}["disk"]
    assert told.status == "unknown" and told.fix == "./inv plan --tag v0.28.0 --device thor"


def test_little_memory_stops_nobody_because_the_build_runs_the_unit_alone(places: Places) -> None:
    for memory in (3.8, 8.0):
        small = dataclasses.replace(FIT, memory_gib=memory, swap_gib=0.0)
        report = consult(small, tag="v0.28.0")
        told = {found.check: found for found in report.findings}["memory"]
        assert told.status == "warning" and "it runs alone" in told.follows and "swapon" in told.fix
        assert not report.blockers
    enough = {found.check: found for found in consult(FIT, tag="v0.28.0").findings}["memory"]
    hoped = estimate.before("v0.28.0", "0.28.0", device("thor").arch_list)
    assert f"{hoped.gib:.1f} GiB" in enough.follows and "costs.toml" in enough.follows


def test_memory_that_no_number_of_jobs_cures_is_not_cured_by_jobs() -> None:
    for swap in (0.0, 16.0):
        small = dataclasses.replace(FIT, memory_gib=3.8, swap_gib=swap)
        told = {found.check: found for found in consult(small, tag="v0.28.0").findings}["memory"]
        assert told.status == "warning" and "--jobs" not in told.fix


def test_a_glibc_that_the_toolkits_headers_do_not_know_is_named() -> None:
    told = {one.check: one for one in consult(dataclasses.replace(FIT, glibc="2.43"), tag="v0.28.0").findings}
    assert told["CUDA headers"].status == "blocker" and "13.2" in told["CUDA headers"].follows


def test_what_was_never_asked_is_told_so() -> None:
    report = consult(snapshot("spark"))
    told = {found.check: found.seen for found in report.findings}
    assert ("not asked" in told["disk"] and "not asked" in told["NVML"]) or told["NVML"] == "absent"
    assert "tag and device" in report.left_out
    assert report.as_dict()["left_out"] == list(report.left_out)


def test_memory_that_nvml_does_not_report_is_a_warning() -> None:
    report = consult(dataclasses.replace(FIT, nvml="1 device, memory not supported"), tag="v0.28.0")
    assert statuses(report, "warning", "blocker") == {"NVML": "warning"}


def test_a_build_for_another_device_asks_nothing_of_the_run() -> None:
    report = consult(snapshot("x86-host"), "thor", "v0.28.0")
    assert not report.blockers
    assert not {"driver", "NVML", "PTX", "JetPack"} & {found.check for found in report.findings}


def test_a_root_without_proc_is_unknown_and_no_error(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    told = {
        key: value for key, value in dataclasses.asdict(machine).items() if value not in (None, (), {}, False)
    }
    assert told == {"root": str(tmp_path)}
    assert set(statuses(consult(machine), "unknown")) >= {
        "machine",
        "glibc",
        "GCC",
        "Python",
        "memory",
        "disk",
    }
    with pytest.raises(CouldNotCheck, match="is not a folder"):
        doctor("", "", str(tmp_path / "none"), "")


def test_garbage_in_every_file_is_unknown_and_no_error(tmp_path: Path) -> None:
    shutil.copytree(SNAPSHOTS / "gh200", tmp_path / "root")
    for path in (tmp_path / "root").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff\x00 rubbish\n" * 3)
    machine = read_machine(tmp_path / "root")
    assert (machine.driver, machine.gpus, machine.memory_gib, machine.gcc) == (None, (), None, None)
    assert machine.toolkits == (Toolkit("/usr/local/cuda-12.4", None),)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UnknownDevice):
        consult(FIT, "tohr")
    with pytest.raises(UnknownTag):
        consult(FIT, "thor", "v0.12.9")


def test_this_machine_is_asked(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real compiler, a torch that is only a version file, and an nvcc that is a script: as the doctor asks."""
    site = tmp_path / "env/lib/python3/site-packages"
    (site / "torch").mkdir(parents=True)
    (site / "torch/version.py").write_text("__version__ = '2.10.0+cpu'\ncuda: Optional[str] = None\n")
    nvcc = tmp_path / "cuda/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.1, V13.1.80'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    machine = ask_machine(Path(sys.executable))
    expected = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=True)
    assert machine.gcc == expected.stdout.strip()
    assert machine.cores and machine.cores <= len(os.sched_getaffinity(0))
    assert machine.memory_gib and machine.glibc and machine.python
    assert machine.nvml is not None
    assert machine.torch == Torch(str(site / "torch"), "2.10.0+cpu", None)
    report = consult(machine, "thor", "v0.12.0")
    found = {one.check: one for one in report.findings}
    assert found["torch"].status == found["architecture list"].status == "blocker"
    assert found["CUDA toolkit"].seen == f"{tmp_path / 'cuda'}, nvcc 13.1.80"


def test_the_task_prints_json_and_exits_64() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "invoke", "doctor", "--root", str(SNAPSHOTS / "orin-nx"), "--json"],
        capture_output=True,
        cwd=PROJECT,
        check=False,
    )
    document = json.loads(answer.stdout)
    assert answer.returncode == 64
    assert document["blockers"] == 3 and document["device"] == "orin"
    assert {one["check"]: one["status"] for one in document["findings"]}["disk"] == "unknown"
    assert b"Traceback" not in answer.stderr and b"next" in answer.stderr


def test_only_what_the_device_compiles_asks_for_its_gcc() -> None:
    """v0.33.0's DeepGEMM and DeepSelect need GCC 13; Thor compiles neither, Grace-Hopper does."""
    told = [
        finding
        for machine in (FIT, snapshot("gh200"))
        for finding in consult(dataclasses.replace(machine, gcc="12.2.0"), tag="v0.33.0").findings
        if finding.check == "GCC"
    ]
    assert [finding.status for finding in told] == ["ok", "blocker"]
    assert "_deep_gemm_C of vLLM v0.33.0 needs GCC 13" in str(told[1])
