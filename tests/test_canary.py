"""The canary, built for real with nvcc: alive, and dead for each reason a big build would die of."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from build_recipes.build.stages.canary import canary_here, check
from build_recipes.canary.trial import CanaryResult, run_canary
from build_recipes.kit import paths
from build_recipes.kit.errors import CanaryFailed
from build_recipes.kit.host import Host
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import load_lock, pick_wheels
from build_recipes.toolchain import cuda

CACHE = paths.Places.from_environment()
NEEDED = {"nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl", "nvidia-nvvm"}
HOST = Host.this()
pytestmark = pytest.mark.network


def wheels(machine: str) -> list[Path]:
    """The compiler's wheels for one CPU, as the lock of v0.12.0 pins them (about 100 MB, cached)."""
    pins = [
        pin
        for pin in pick_wheels(
            load_lock("v0.12.0"), "cuda", machine=machine, python=HOST.python, glibc=(2, 39)
        )
        if pin.project in NEEDED
    ]
    assert {pin.project for pin in pins} == NEEDED
    return list(fetch_files(pins, CACHE.downloads, progress=False).values())


@pytest.fixture(scope="module")
def toolkit() -> cuda.Toolkit:
    mine = wheels(HOST.machine)
    return cuda.assemble(CACHE.toolkits, "canary", mine, [], host=HOST.machine, target=HOST.machine)


def environment(home: Path, **more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{home}/bin:/usr/bin:/bin"
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
    return {
        **kept,
        "PATH": path,
        "CUDA_HOME": str(home),
        "CUDACXX": f"{home}/bin/nvcc",
        "LD_LIBRARY_PATH": f"{home}/lib64",
        **more,
    }


def send(
    work: Path,
    home: Path,
    arch: str,
    *args: str,
    torch: bool = False,
    toolchain: Path | None = None,
    **more: str,
) -> CanaryResult:
    return run_canary(
        environment(home, **more),
        python=Path(sys.executable),
        cmake_args=args,
        work=work,
        arch=arch,
        toolchain_file=toolchain,
        torch=torch,
    )


def test_it_lives_and_holds_code_for_the_one_architecture(tmp_path: Path, toolkit: cuda.Toolkit) -> None:
    before = sorted(path.name for path in (paths.PACKAGE / "canary/project").rglob("*"))
    result = send(tmp_path, toolkit.home, "11.0")
    assert (result.ok, result.loaded, result.code) == (True, True, ("sm_110",)), result
    assert result.ran or result.why in ("there is no driver", "no GPU is visible")
    assert not result.diagnosis.failed, "the log of a living canary shows no failure"
    assert result.log.read_text().count("-gencode arch=compute_110,code=sm_110") >= 1
    assert sorted(path.name for path in (paths.PACKAGE / "canary/project").rglob("*")) == before
    check(result)


@pytest.mark.skipif(HOST.machine != "x86_64", reason="a cross build starts on x86_64")
def test_a_cross_build_is_for_the_other_cpu_and_not_loaded(tmp_path: Path) -> None:
    kit = cuda.assemble(
        CACHE.toolkits, "canary", wheels("x86_64"), wheels("aarch64"), host="x86_64", target="aarch64"
    )
    from build_recipes.toolchain import cross

    headers = cross.python_headers(tmp_path, HOST.python_include, "aarch64")
    toolchain = cross.toolchain_file(tmp_path / "toolchain.cmake", kit, "aarch64", headers)
    result = send(tmp_path / "work", kit.home, "8.7", toolchain=toolchain)
    assert (result.ok, result.loaded, result.ran, result.code) == (True, False, False, ("sm_87",)), result
    assert "aarch64-linux-gnu-g++" in result.log.read_text()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-DCANARY_ARCH=101"], "nvcc-unsupported-arch"),
        (["-DCANARY_TORCH=ON"], "torch-missing-in-build"),
        (["-DCMAKE_CUDA_HOST_COMPILER=/usr/bin/g++-99"], "compiler-path-wrong"),
        (["-DCMAKE_CUDA_COMPILER=/nonexistent/nvcc"], "compiler-path-wrong"),
        (["-DPython_INCLUDE_DIR=/nonexistent"], "python-dev-missing"),
        (["-DCMAKE_CXX_FLAGS=-std=c++99x"], "cxx-standard"),
    ],
)
def test_it_dies_of_what_the_big_build_would_die_of(
    tmp_path: Path, toolkit: cuda.Toolkit, args: list[str], expected: str
) -> None:
    result = send(tmp_path, toolkit.home, "11.0", *args)
    assert not result.ok and not result.loaded
    assert result.diagnosis.primary is not None, result.log.read_text()
    assert result.diagnosis.primary.id == expected, result.log.read_text()
    with pytest.raises(CanaryFailed, match="the canary: it could not be built"):
        check(result)


def test_code_for_another_architecture_is_refused(tmp_path: Path, toolkit: cuda.Toolkit) -> None:
    """An environment that adds its own -gencode would pass a compile and fail on the device."""
    result = send(tmp_path, toolkit.home, "11.0", NVCC_APPEND_FLAGS="-gencode arch=compute_90,code=sm_90")
    assert not result.ok
    assert result.why == "its device code is for sm_110, sm_90; asked for was sm_110"


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CanaryFailed, match="does not run"):
        canary_here(Path("/nonexistent/python"), "11.0", tmp_path)
