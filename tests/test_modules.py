"""What vLLM's modules are, derived from every source distribution from 0.11.1 to 0.33.0.

The data are setup.py, tools/build_rust.py and all CMake files of each, byte for byte (62 kB packed).
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from sdists import VERSIONS

from build_recipes.build.modules import parts
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.kit.errors import BadData, HashMismatch, NotAWheel
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.sources import official
from build_recipes.sources.cmake.trees import Scan, reader
from build_recipes.sources.lockfile import load_lock, lock_path
from build_recipes.sources.modules import Kind, Makeup, Module, extensions, makeup


@pytest.mark.parametrize("version", VERSIONS)
def test_each_module_has_a_kind_and_each_tree_its_users(sdists: Path, version: str) -> None:
    found = makeup(sdists / version)
    # counted another way: every CMakeExtension of the text, less what is for other platforms only
    text = (sdists / version / "setup.py").read_text()
    named = set(re.findall(r'CMakeExtension\(\s*name="([\w.]+)"', text))
    others = named - {name for name, _ in extensions(reader(sdists / version))}
    assert {module.name for module in found.modules if module.kind is not Kind.RUST} == named - others
    assert others <= {"vllm._rocm_C", "vllm._C", "vllm._C_AVX512", "vllm._C_AVX2"}
    assert found.trees and all(found.users(tree.name) for tree in found.trees)
    # every custom target that something is installed for is a module, and no module is without a place
    cmake = "\n".join(path.read_text() for path in (sdists / version / "cmake").rglob("*.cmake"))
    custom = set(re.findall(r"^ *add_custom_target\(\s*(\w+)", cmake, re.MULTILINE)) - {"hipify_all"}
    custom = {name for name in custom if not name.startswith(("hipify", "$"))}
    assert custom <= {module.target for module in found.modules}, custom
    assert all(module.where for module in found.modules)


@pytest.mark.parametrize("version", [one for one in VERSIONS if lock_path(f"v{one}").is_file()])
def test_each_tree_of_cmake_is_in_the_lock(sdists: Path, version: str) -> None:
    pins = {tree.name: tree.revision for tree in load_lock(f"v{version}").trees}
    for tree in makeup(sdists / version).trees:
        assert pins[tree.name] == tree.revision


def test_kinds_where_they_are_known_by_hand(sdists: Path) -> None:
    old, new = makeup(sdists / "0.12.0"), makeup(sdists / "0.33.0")
    kinds = {module.target: module.kind for module in new.modules}
    assert kinds["_moe_C_stable_libtorch"] is Kind.KERNEL
    assert kinds["spinloop"] is kinds["fs_io_C"] is kinds["cumem_allocator"] is Kind.HOST
    assert kinds["_vllm_fa4_cutedsl_C"] is kinds["fmha_sm100"] is kinds["triton_kernels"] is Kind.COPIED
    assert kinds["_deep_gemm_C"] is Kind.CUSTOM
    assert kinds["vllm-rs"] is Kind.RUST
    assert "_moe_C" in {module.target for module in old.modules}
    assert old.users("qutlass") == ("_C",)  # an extension of its own from 0.22 on
    assert new.users("qutlass") == ("_qutlass_C",)
    assert old.users("cutlass") == ("_moe_C", "_C")
    assert new.read["flashmla"][0] == "flash_mla/flash_mla_interface.py", (
        "read, so configure fails without it"
    )
    assert "csrc/pybind.cpp" in old.read["flashmla"], "a source: CMake's add_library fails without it"


def test_the_build_of_0_12_0_for_thor_stays_what_it_is(sdists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the plan and the manifest of the whole build that is kept as evidence."""
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    kept = PROJECT / "docs/evidence/thor-v0.12.0"
    before = json.loads((kept / "plan.json").read_text())
    built = json.loads((kept / "manifest.json").read_text())
    now = make_plan(Request(tag="v0.12.0", device="thor"), Places.from_environment()).as_dict()
    for key in (
        "wheel_version",
        "patches",
        "torch",
        "arch_list",
        "platform_tag",
        "build_type",
        "only",
        "without",
    ):
        assert now[key] == before[key], key
    modules = {module.name: module for module in makeup(sdists / "0.12.0").modules}
    assert set(modules) == {*built["modules"], *built["left_out"]}
    linked = {
        name.rsplit("/", 1)[-1].split(".")[0]
        for name in (entry["path"] for entry in built["audit"]["modules"])
    }
    assert linked == {modules[name].target for name in built["modules"] if modules[name].compiled}


def test_a_module_that_cmake_does_not_know_is_refused(sdists: Path, tmp_path: Path) -> None:
    for name in ("setup.py", "CMakeLists.txt"):
        (tmp_path / name).write_text(
            (sdists / "0.33.0" / name).read_text().replace("spinloop", "spin_" + name[0])
        )
    (tmp_path / "cmake").symlink_to(sdists / "0.33.0/cmake")
    with pytest.raises(BadData, match=r"vllm\.spin_s, and no CMake file defines or installs spin_s"):
        makeup(tmp_path)


def test_foreach_over_literals_is_followed(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "foreach(_PART one two)\n  install(FILES ${_PART}.py COMPONENT ${_PART})\nendforeach()\n"
    )
    scan = Scan()
    scan.project(reader(tmp_path))
    assert [call.values[-1] for call in scan.calls] == ["one", "two"]


SMALL = """
cmake_minimum_required(VERSION 3.26)
project(small LANGUAGES C)
add_library(host MODULE host.c)
set_target_properties(host PROPERTIES PREFIX "")
install(TARGETS host LIBRARY DESTINATION vllm COMPONENT host)
add_custom_command(OUTPUT made.py COMMAND ${CMAKE_COMMAND} -E touch made.py)
add_custom_target(custom DEPENDS made.py)
add_custom_target(copied)
install(FILES host.c DESTINATION vllm/third_party/copied COMPONENT copied)
add_custom_target(empty)
add_custom_target(files_only)
install(CODE "file(WRITE \\"${CMAKE_INSTALL_PREFIX}/x.py\\" text)" COMPONENT files_only)
"""


def test_a_configured_tree_says_what_is_made_for_the_device(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(SMALL)
    (tmp_path / "host.c").write_text("int one(void) { return 1; }\n")
    folder, tools = tmp_path / "build", Path(sys.executable).parent
    subprocess.run(
        [
            tools / "cmake",
            "-S",
            tmp_path,
            "-B",
            folder,
            "-G",
            "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
        ],
        check=True,
        capture_output=True,
    )
    hosts = ("host", "custom", "empty", "files_only", "other")
    modules = [Module(f"vllm.{name}", Kind.KERNEL, (), "", False) for name in hosts]
    modules.append(Module("vllm.copied", Kind.COPIED, (), "", True))
    modules.append(Module("vllm.gone", Kind.COPIED, ("tree",), "", True))
    (folder / "build.ninja").open("a").write("build gone: phony custom\n")
    found = parts(
        Makeup(tuple(modules), (), {}),
        folder,
        tools / "ninja",
        asked=["host", "custom", "files_only", "empty", "gone"],
        missing=["tree"],
        capability="11.0",
    )
    told = {part.module.target: (part.made, part.left_out) for part in found}
    assert told["host"] == (Kind.HOST, "")
    assert told["custom"] == (Kind.CUSTOM, "")
    assert told["copied"] == (None, "not asked for")
    assert told["files_only"] == (Kind.COPIED, "has no code for 11.0: only its Python files are there")
    assert told["empty"] == told["other"] == (None, "has no code for 11.0: CMake makes nothing of it")
    assert told["gone"] == (None, "its source tree could not be fetched")
    assert [part.module.target for part in found if not part.whole] == ["copied", "gone"]


@pytest.mark.network
def test_the_official_wheel_is_pinned_by_one_hash_and_its_members_have_owners(
    sdists: Path, tmp_path: Path
) -> None:
    """v0.26.0's wheel for aarch64 on the package index: 0.8 MB of 298 are read."""
    pin = official.pin("0.26.0", "aarch64")
    assert pin is not None
    assert pin.wheel.filename.endswith("_aarch64.whl")
    rows = official.record(pin, tmp_path)
    found = makeup(sdists / "0.26.0")
    owners = {name: owner.target for name in rows if (owner := found.owner(name))}
    assert owners["vllm/_moe_C_stable_libtorch.abi3.so"] == "_moe_C_stable_libtorch"
    assert owners["vllm/third_party/deep_gemm/_C.cpython-312-aarch64-linux-gnu.so"] == "_deep_gemm_C"
    assert owners["vllm/vllm_flash_attn/cute/interface.py"] == "_vllm_fa4_cutedsl_C"
    assert owners["vllm/vllm-rs"] == "vllm-rs"
    unowned = [name for name in rows if name not in owners and name.endswith(".so")]
    assert not unowned
    taken = official.take(pin, ["vllm/third_party/flashmla/flash_mla_interface.py"], tmp_path)
    assert b"torch.ops._flashmla_C" in taken["vllm/third_party/flashmla/flash_mla_interface.py"].read_bytes()
    assert official.take(pin, taken, tmp_path, offline=True) == taken
    with pytest.raises(NotAWheel, match=r"has no vllm/nothing\.py"):
        official.take(pin, ["vllm/nothing.py"], tmp_path)
    with pytest.raises(HashMismatch, match="not what the lock says"):
        official.record(msgspec.structs.replace(pin, record="0" * 64), tmp_path)
