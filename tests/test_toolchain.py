"""Toolchain pieces: unpacking, the driver stub, Python headers for another CPU, the stand-in torch, packages."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from build_recipes.formats.elf import mapped
from build_recipes.kit.errors import MissingPackages, ToolchainMismatch, UnsafeArchive, UsageError
from build_recipes.kit.host import Host
from build_recipes.kit.once import filled
from build_recipes.toolchain import ccache, cross, cuda, distro
from build_recipes.toolchain.unpack import unpack_wheel

CROSS = "aarch64-linux-gnu-gcc"
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="cross-compiling starts on x86_64")


def test_a_wheel_member_that_climbs_out_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    wheel = tmp_path / "bad.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../outside.txt", "x")
    into = tmp_path / "into"
    with pytest.raises(UnsafeArchive, match=r"climbs out.*\.\./outside"):
        unpack_wheel(wheel, into)
    assert not (tmp_path / "outside.txt").exists()
    wheel.write_bytes(wheel.read_bytes()[:40])
    with pytest.raises(UnsafeArchive, match="not a zip file"):
        unpack_wheel(wheel, into)


def test_a_folder_that_exists_is_whole(tmp_path: Path) -> None:
    def fails(into: Path) -> None:
        (into / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "kit", fails)
    assert list(tmp_path.iterdir()) == []
    calls = []

    def works(into: Path) -> None:
        calls.append(into)
        (into / "whole").write_text("x")

    for _ in range(2):
        assert (filled(tmp_path / "kit", works) / "whole").exists()
    assert len(calls) == 1


def test_two_processes_that_need_a_folder_make_it_once_and_sweep_what_a_killed_one_left(
    tmp_path: Path,
) -> None:
    left = tmp_path / ".kit.~abc"
    left.mkdir()
    (left / "gigabytes").write_text("x")
    other = tmp_path / ".kit.2.~abc"  # of another folder, kit.2
    other.mkdir()
    script = (
        "import sys, time; from pathlib import Path; from build_recipes.kit.once import filled\n"
        "def fill(into):\n"
        "    with open(sys.argv[1] + '/calls', 'a') as calls: calls.write('x')\n"
        "    time.sleep(0.5); (into / 'whole').write_text('x')\n"
        "print((filled(Path(sys.argv[1]) / 'kit', fill) / 'whole').read_text())\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [child.communicate()[0] for child in both] == ["x\n", "x\n"]
    assert (tmp_path / "calls").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".kit.2.~abc",
        ".kit.files.json",
        "calls",
        "kit",
    ]


def test_the_driver_stub_exports_what_cuda_h_declares(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libcudart.so.13").write_bytes(b"")
    header = "CUresult CUDAAPI cuInit(unsigned int Flags);\n#define cuMemAlloc cuMemAlloc_v2\n"
    (tmp_path / "include/cuda.h").write_text(header)
    cuda._complete(tmp_path, "g++")
    assert (tmp_path / "lib/libcudart.so").readlink() == Path("libcudart.so.13")
    with mapped(tmp_path / "lib/stubs/libcuda.so") as stub:
        assert stub.soname == "libcuda.so.1"
        assert stub.exports("cuInit")
        assert stub.exports("cuMemAlloc_v2")


@pytest.mark.parametrize(("version", "fits"), [("12.9.86", False), ("13.0.88", True), ("14.0.1", False)])
def test_a_toolkit_outside_the_range_is_refused(version: str, fits: bool) -> None:
    if fits:
        cuda.check_version(version, ">=13.0,<14", Path("/opt/cuda"))
        return
    with pytest.raises(ToolchainMismatch, match=rf"/opt/cuda is {version}.*need >=13.0,<14"):
        cuda.check_version(version, ">=13.0,<14", Path("/opt/cuda"))


def test_a_cuda_home_without_nvcc_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolchainMismatch, match="does not run"):
        cuda.nvcc_version(tmp_path / "bin/nvcc")


@on_x86
def test_python_headers_for_arm_compile_with_the_cross_compiler(tmp_path: Path) -> None:
    assert shutil.which(CROSS), "./inv test --install installs the cross compiler"
    headers = cross.python_headers(tmp_path, Path(sysconfig.get_path("include")), "aarch64")
    source = tmp_path / "m.c"
    source.write_text(
        "#define Py_LIMITED_API 0x03080000\n#include <Python.h>\n"
        "#ifdef HAVE_GCC_ASM_FOR_X64\n#error x86 assembly\n#endif\n"
        "PyObject *f(void) { return PyLong_FromLong(sizeof(wchar_t)); }\n"
    )
    subprocess.run([CROSS, "-c", f"-I{headers}", source, "-o", tmp_path / "m.o"], check=True)
    with mapped(tmp_path / "m.o") as made:
        assert made.machine == "aarch64"


def test_missing_python_headers_name_the_package(tmp_path: Path) -> None:
    with pytest.raises(MissingPackages) as caught:
        cross.python_headers(tmp_path, tmp_path / "nowhere", "aarch64")
    assert "python3-dev" in caught.value.advice


def test_the_standin_answers_from_the_torch_of_the_target(tmp_path: Path) -> None:
    torch = tmp_path / "target/torch"
    (torch / "utils").mkdir(parents=True)
    (torch / "version.py").write_text("__version__ = '2.11.0+cu130'\ncuda = '13.0'\nhip = None\n")
    (torch / "utils/cpp_extension.py").write_text("import gone\nCOMMON_NVCC_FLAGS = ['-DONE', '--two']\n")
    site = tmp_path / "site"
    cross.write_standin(site, torch)
    code = (
        "import torch; print(torch.__version__, torch.version.cuda, torch.version.hip, torch.utils.cmake_prefix_path)\n"
        "from torch.utils.cpp_extension import COMMON_NVCC_FLAGS, CUDA_HOME, ROCM_HOME\n"
        "print(COMMON_NVCC_FLAGS, CUDA_HOME, ROCM_HOME)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(site), "CUDA_HOME": "/kit"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert said == [f"2.11.0+cu130 13.0 None {torch}/share/cmake", "['-DONE', '--two'] /kit None"]


def test_the_python_of_the_device_answers_for_its_extension_modules(tmp_path: Path) -> None:
    """As tools/build_deepgemm_C.py and cmake/external_projects/deepgemm.cmake of 0.26.0 ask."""
    program = cross.device_python(
        tmp_path / "device-python", Path(sys.executable), (3, 12), tmp_path / "headers", "aarch64"
    )

    def ask(code: str) -> str:
        return subprocess.run(
            [program, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert (
        ask("import sysconfig; print(sysconfig.get_config_var('SOABI'))") == "cpython-312-aarch64-linux-gnu"
    )
    words = "{k: sysconfig.get_config_var(k) for k in ('EXT_SUFFIX', 'INCLUDEPY')}"
    code = f"import sysconfig, json; print(json.dumps({words}))"
    assert json.loads(ask(code)) == {
        "EXT_SUFFIX": ".cpython-312-aarch64-linux-gnu.so",
        "INCLUDEPY": str(tmp_path / "headers"),
    }
    assert ask("import sysconfig; print(sysconfig.get_config_var('prefix'))") == sys.base_prefix


def test_missing_packages_are_named_with_the_exact_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    debian = dataclasses.replace(Host.this(), distribution="debian 12", python_include=tmp_path)
    with pytest.raises(MissingPackages, match=r"git .*cross-cxx .*python-headers") as caught:
        distro.ensure(debian, cross=True, install=False)
    assert "apt-get install -y" in caught.value.advice
    assert "g++-aarch64-linux-gnu" in caught.value.advice
    assert "python3-dev" in caught.value.advice
    unknown = dataclasses.replace(debian, distribution="plan9 4")
    with pytest.raises(MissingPackages) as caught:
        distro.ensure(unknown, cross=False, install=False)
    assert "with your package manager" in caught.value.advice


def test_a_compiler_cache_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ccache.launcher("auto") == []
    with pytest.raises(UsageError, match="sccache is not installed"):
        ccache.launcher("sccache")
    with pytest.raises(UsageError, match="is not a compiler cache"):
        ccache.launcher("fastcache")
