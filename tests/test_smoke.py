"""The main job on real input, through the front door: vLLM v0.12.0's real sources, the real nvcc, a real wheel."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import provenance_reader
import pytest
from packaging.utils import parse_wheel_filename
from test_wheelhouse_provenance import valid

from build_recipes.formats.elf import mapped
from build_recipes.kit.paths import PROJECT

INVOKE = Path(sys.executable).with_name("invoke")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


def invoke(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the front door with build trees and wheels of its own, and the user's cache of downloads."""
    places = {"VLLM_ARMORY_BUILD": str(folder / "build"), "VLLM_ARMORY_WHEELS": str(folder / "wheels")}
    environment = {**os.environ, **places}
    environment.pop("TORCH_CUDA_ARCH_LIST", None)
    return subprocess.run(
        [INVOKE, *words], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def smoke(folder: Path) -> dict[str, str]:
    done = invoke(folder, "build", "--tag", "v0.12.0", "--device", "thor", "--smoke", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, str] = json.loads(done.stdout)
    return result


pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="no CUDA 13 for this CPU"),
]


def test_the_wheel_is_for_thor_and_says_so_everywhere(smoke: dict[str, str], folder: Path) -> None:
    wheel = Path(smoke["wheel"])
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert (name, str(version)) == ("vllm", "0.12.0+cu130.thor.smoke")
    (tag,) = tags
    assert (tag.interpreter, tag.abi) == ("cp38", "abi3")
    assert tag.platform.startswith("manylinux_2_")
    assert tag.platform.endswith("_aarch64")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        (info,) = (entry for entry in names if entry.endswith(".dist-info/WHEEL"))
        assert f"Tag: {tag}\n" in archive.read(info).decode()
        metadata = archive.read(info.replace("WHEEL", "METADATA")).decode()
        modules = [entry for entry in names if entry.endswith(".so")]
        archive.extract("vllm/cumem_allocator.abi3.so", folder)
    assert modules == ["vllm/cumem_allocator.abi3.so"]
    assert "Requires-Dist: torch==2.11.0\n" in metadata
    assert "Requires-Dist: torchvision\n" in metadata
    with mapped(folder / "vllm/cumem_allocator.abi3.so") as module:
        assert module.machine == "aarch64"
        assert "libcuda.so.1" in module.needed


def test_a_real_cuda_unit_holds_code_for_thor(smoke: dict[str, str]) -> None:
    manifest = json.loads(Path(smoke["manifest"]).read_text())
    assert manifest["smoke"]["sass"] == ["sm_110"]
    assert manifest["smoke"]["gencode"] == ["arch=compute_110,code=sm_110"]
    assert manifest["smoke"]["unit"] in manifest["units"]
    assert manifest["toolchain"]["torch"] == "2.11.0+cu130"
    assert manifest["toolchain"]["cuda"].startswith("13.0")
    assert {"P1", "P5"} <= {patch["id"] for patch in manifest["patches"]}
    assert manifest["audit"]["closure"]["symbols"] == {}


def test_what_the_wheel_says_of_its_origin_is_true(smoke: dict[str, str]) -> None:
    """SBOM, provenance and manifest against each other; other people's validators take the first two."""
    wheel = Path(smoke["wheel"])
    assert provenance_reader.faults(wheel, datetime.now(timezone.utc) - timedelta(hours=2)) == []
    manifest, said, bom = provenance_reader.documents(wheel)
    valid(json.dumps(bom).encode(), json.dumps(said).encode())
    files = {row["name"] for row in manifest["files"]}
    assert sum(name.startswith("torch-") for name in files) == 1, "one file of torch, not all of the lock"
    assert any(name.startswith("nvidia_cuda_nvcc-") for name in files)
    used = {name for name, tree in manifest["sources"]["trees"].items() if tree["used"]}
    assert used < set(manifest["sources"]["trees"]), "a smoke wheel is made of few of the trees"


def test_the_same_request_again_is_up_to_date(smoke: dict[str, str], folder: Path) -> None:
    before = Path(smoke["wheel"]).stat()
    again = invoke(folder, "build", "--tag", "v0.12.0", "--device", "thor", "--smoke", "--json")
    assert json.loads(again.stdout)["up_to_date"] is True
    assert "up to date" in again.stderr
    assert Path(smoke["wheel"]).stat().st_mtime_ns == before.st_mtime_ns


def test_the_wheels_folder_holds_whole_files_only(smoke: dict[str, str]) -> None:
    wheels = Path(smoke["wheel"]).parent
    assert not [
        path.name for path in wheels.iterdir() if path.name.endswith(".whl") and path.name.startswith(".")
    ]
    assert "smoke" not in (wheels / "simple/index.html").read_text()
    assert not (wheels / "simple/vllm/index.html").exists()  # the index does not offer it


def test_a_smoke_wheel_is_not_called_ready(smoke: dict[str, str], folder: Path) -> None:
    verdict = invoke(folder, "audit", smoke["wheel"], "--device", "thor", "--json")
    thor = json.loads(verdict.stdout)["devices"]["thor"]
    assert thor["verdict"] == "not usable"
    assert any("_C" in reason for reason in thor["reasons"])
    assert verdict.returncode == 60


def test_a_unit_can_be_run_alone(smoke: dict[str, str], folder: Path) -> None:
    unit = "cumem_allocator/csrc/cumem_allocator.cpp.o"
    words = ("repro", "--tag", "v0.12.0", "--device", "thor", "--smoke", "--unit")
    alone = invoke(folder, *words, unit)
    assert alone.returncode == 0, alone.stderr
    assert "aarch64-linux-gnu-g++" in alone.stderr or platform.machine() == "aarch64"
    unknown = invoke(folder, *words, "cumem_allocator/csrc/cumem.cpp.o")
    assert unknown.returncode == 2
    assert unit in unknown.stderr
