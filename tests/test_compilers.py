"""The C++ compiler is chosen before anything is fetched; what is advised exists on the distribution."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.preview import preview, show
from build_recipes.build.request import Request
from build_recipes.build.stages.given import check_given, host_compiler, newer_library
from build_recipes.build.units import surveyed
from build_recipes.facts import versions
from build_recipes.facts.device import device
from build_recipes.kit.errors import ToolchainMismatch
from build_recipes.kit.paths import Places
from build_recipes.toolchain import compilers, cross, cuda
from build_recipes.toolchain.compilers import Compiler, Wanted, advice, choose, newest_symbols, there

CROSS = "aarch64-linux-gnu-"


Machine = Callable[..., None]
"""Gives a machine these compilers: name to version."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that has only the compilers it is given: name to version."""

    def give(**programs: str) -> None:
        folder = tmp_path / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, version in programs.items():
            path = folder / name.replace("X", "++").replace("_", "-")
            path.write_text(f"#!/bin/sh\necho {version}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/lib/none")
        monkeypatch.delenv("CXX", raising=False)

    return give


def wanted(oldest: str, *, cross: bool = True) -> Wanted:
    return Wanted("aarch64", cross, oldest, "somebody", 15)


def test_a_compiler_with_a_version_in_its_name_is_found_where_the_default_does_not_fit(machine) -> None:  # type: ignore[no-untyped-def]
    machine(**{f"{CROSS}gX": "11.4.0", f"{CROSS}gX_13": "13.2.0", f"{CROSS}gX_16": "16.1.0", "gX": "12.2.0"})
    assert choose(wanted("11.3")) == Compiler(f"{CROSS}g++", "11.4.0"), "the default, where it fits"
    assert choose(wanted("13")) == Compiler(f"{CROSS}g++-13", "13.2.0"), "not 16: nvcc takes up to 15"
    assert Compiler(f"{CROSS}g++-13", "").cc == f"{CROSS}gcc-13"
    assert choose(wanted("11.3", cross=False)) == Compiler("g++", "12.2.0")
    with pytest.raises(ToolchainMismatch, match=r"needs GCC 13 to 15; this machine has g\+\+ 12\.2\.0"):
        choose(wanted("13", cross=False))
    machine()
    assert choose(wanted("13")) is None, "the packages that a build needs are said elsewhere"


@pytest.mark.skipif(shutil.which("apt-cache") is None, reason="no apt here")
@pytest.mark.parametrize("is_cross", [True, False])
def test_what_is_advised_is_in_the_lists_of_this_distribution(is_cross: bool) -> None:
    names = set(
        subprocess.run(
            ["apt-cache", "pkgnames", "g++-"], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    said = advice(wanted("13", cross=is_cross))
    offered = [f"g++-{major}{'-aarch64-linux-gnu' if is_cross else ''}" for major in (13, 14, 15)]
    if match := re.match(r"sudo apt-get install -y (\S+)", said):
        assert match.group(1) in names
    else:
        assert "this distribution has no package of it" in said
        assert not names & set(offered)


def test_a_package_whose_name_is_in_another_s_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian 12 answers: apt takes a name that it does not have for a regular expression."""
    (tmp_path / "apt-cache").write_text(
        "#!/bin/sh\n"
        "printf 'clang-14-doc:\\n  Installed: (none)\\n  Candidate: 1:14.0.6-12\\n  Version table:\\n'\n"
        "[ $2 = g++-15 ] && printf 'g++-15:\\n  Installed: (none)\\n  Candidate: 15.2.0-4\\n  Version table:\\n'\n"
        "printf 'libg++-14:\\n  Installed: (none)\\n  Candidate: 2\\n'\n"
    )
    (tmp_path / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert advice(wanted("13", cross=False)).startswith("sudo apt-get install -y g++-15 ")
    assert "no package of it" in advice(wanted("13"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_symbols_that_the_device_lacks_are_said_by_the_plan(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = newest_symbols(Compiler("g++", ""))
    assert real[:2] == (3, 4) and real[2] >= 29
    assert newest_symbols(Compiler("no-such-compiler", "")) == ()
    old = dataclasses.replace(plan, device=device("gh200"), device_name="gh200")
    for newest, told in (((3, 4, 30), False), ((3, 4, 31), True), ((), False)):
        monkeypatch.setattr(compilers, "newest_symbols", lambda one, newest=newest: newest)
        said = newer_library(old, Compiler("g++", "13.3.0"))
        assert bool(said) is told
    monkeypatch.setattr(compilers, "newest_symbols", lambda one: (3, 4, 31))
    assert "up to GLIBCXX_3.4.31, gh200's system up to 3.4.30" in newer_library(
        old, Compiler("g++", "13.3.0")
    )
    assert newer_library(plan, Compiler("g++", "13.3.0")) == "", "Thor's system has it"
    show(preview(dataclasses.replace(old, request=dataclasses.replace(old.request, allow=("gcc",)))))
    assert "gh200's system up to 3.4.30" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    for name in ("CACHE", "BUILD", "WHEELS"):
        monkeypatch.setenv(f"VLLM_ARMORY_{name}", str(tmp_path / name.lower()))
    host = dataclasses.replace(
        make_plan(Request(tag="v0.31.0", device="thor"), Places.from_environment()).host, machine="x86_64"
    )
    return make_plan(Request(tag="v0.31.0", device="thor"), Places.from_environment(), host)


def test_only_what_the_device_compiles_asks_for_its_compiler(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    machine(**{f"{CROSS}gX": "12.2.0"})
    units = {"_deep_gemm_C": [], "_deepselect_C": [], "_C": ["a.cu.o"]}
    monkeypatch.setattr(surveyed, "table", lambda: {"v0.31.0": {"11.0": units}})
    found = host_compiler(plan)
    assert found == Compiler(f"{CROSS}g++", "12.2.0"), "Thor compiles neither of the two that need <format>"
    units["_deep_gemm_C"] = None  # type: ignore[assignment]
    with pytest.raises(ToolchainMismatch, match=r"_deep_gemm_C of v0\.31\.0 needs GCC 13") as caught:
        check_given(plan)
    assert "put a GCC 13" in caught.value.advice or "apt-get" in caught.value.advice
    assert caught.value.advice.endswith("--without _deep_gemm_C")
    assert "needs GCC 13" in preview(plan)["compiler"]["problem"]
    without = dataclasses.replace(plan, request=dataclasses.replace(plan.request, without=("_deep_gemm_C",)))
    assert host_compiler(without) == found
    allowed = dataclasses.replace(plan, request=dataclasses.replace(plan.request, allow=("gcc",)))
    assert host_compiler(allowed) == found


def test_the_toolchain_file_names_the_compiler_that_was_chosen(tmp_path: Path) -> None:
    toolkit = cuda.Toolkit(tmp_path, "13.0.88", "wheels", "sbsa-linux")
    text = cross.toolchain_file(
        tmp_path / "t.cmake", toolkit, "aarch64", tmp_path, Compiler(f"{CROSS}g++-13", "13.2.0")
    ).read_text()
    for language, name in (("C", "gcc-13"), ("CXX", "g++-13"), ("CUDA_HOST", "g++-13")):
        assert f"set(CMAKE_{language}_COMPILER {CROSS}{name})" in text


def test_this_machine_has_what_it_says() -> None:
    for one in there(""):
        assert shutil.which(one.cxx)
        assert one.version.split(".")[0].isdigit()
    assert versions.for_version("0.12.0").oldest_gcc([]) == ("9", "C++17")
    assert versions.for_version("0.33.0").oldest_gcc([])[0] == "11.3"
    assert versions.for_version("0.33.0").oldest_gcc()[0] == "13"
    assert os.environ.get("CXX") is None or shutil.which(os.environ["CXX"])
