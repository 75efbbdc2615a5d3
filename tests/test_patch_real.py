"""The patch stage on vLLM's own 0.12.0."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from build_recipes.build.stages.patch import apply_series
from build_recipes.facts.device import device
from build_recipes.kit.paths import Places
from build_recipes.patching import intents, trees
from build_recipes.patching.intents import cmake

PLACES = Places.from_environment()
pytestmark = pytest.mark.network
ALL = ["P1", "P2", "P3", "P4", "P5", "P7", "P8", "P9", "P10", "P11", "P12"]


@pytest.fixture(scope="module")
def pristine() -> Path:
    return trees.vllm_tree("0.12.0", PLACES)


def content(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_thors_patches_go_on_stay_on_and_come_off(pristine: Path, tmp_path: Path) -> None:
    tree = tmp_path / "vllm"
    shutil.copytree(pristine, tree)
    done = apply_series({"vllm": tree}, "v0.12.0", device("thor"))
    assert [entry.id for entry in done.applied] == ["P1", "P2", "P4", "P5", "P8"]
    assert done.modules_off == ("_vllm_fa3_C",)
    assert set(done.skipped) == {"P5: vllm-flash-attn", "P7: vllm-flash-attn"}
    changed = {name for name, text in content(tree).items() if content(pristine)[name] != text}
    assert changed == {file.removeprefix("vllm/") for entry in done.applied for file in entry.files}
    after = content(tree)
    assert apply_series({"vllm": tree}, "v0.12.0", device("thor")) == done
    assert content(tree) == after
    apply_series({"vllm": tree}, "v0.12.0", device("thor"), without=ALL)
    assert content(tree) == content(pristine)


def test_what_the_unpatched_tree_does_wrong_is_seen(pristine: Path) -> None:
    """The intents on the tree as it is: each finds the fault its patch is for."""
    found = {name: intents.check(name, {"vllm": pristine}) for name in intents.intents()}
    assert found["free-memory"].holds  # upstream since 0.11.1
    assert "jetson container: None" in found["detects-jetson"].why
    assert "Not Supported" in found["total-memory"].why
    assert "AssertionError" in found["profiling-warns"].why
    assert "setup.py insists on _vllm_fa3_C" in found["fa3-only-for-hopper"].why
    assert (
        "for 10.0, torch_api.cpp is compiled to ['sm_100a'], nothing of which 103 runs"
        in found["loads-in-family"].why
    )
    assert found["loads-on-orin"].holds  # the kernel came with 0.28.0
    assert found["older-gcc-configures"].holds  # the check came with 0.32.0
    kernels = found["no-empty-kernels"].why
    assert "on 110, cutlass_scaled_mm_azp calls cutlass_scaled_mm_azp_sm80" in kernels
    assert "enable_sm100_only leaves sm100 kernels empty for __CUDA_ARCH__ 1100" in kernels
    assert "for 11.0, scaled_mm_c2x.cu is compiled to ['compute_89', 'sm_89']" in kernels


def test_cmake_is_evaluated_as_a_build_would(pristine: Path) -> None:
    """Units and architectures for Thor, as a real configure of 0.12.0 for 11.0 gave them."""
    seen = cmake.evaluate(pristine, "11.0")
    assert set(seen.modules) == {"_C", "_moe_C", "cumem_allocator"}
    assert seen.codes("csrc/quantization/w8a8/cutlass/c3x/scaled_mm_sm100_fp8.cu") == {"sm_110f"}
    assert seen.codes("csrc/cache_kernels.cu") == {"sm_110"}
    assert "ENABLE_SCALED_MM_SM100" in seen.definitions and "ENABLE_SCALED_MM_SM90" not in seen.definitions
    assert all(seen.codes(unit) for name in seen.modules for unit in seen.units(name))


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
def test_gcc_12_configures_once_patched(version: str, tmp_path: Path) -> None:
    tree = tmp_path / "vllm"
    shutil.copytree(trees.vllm_tree(version, PLACES), tree)
    assert "GCC >= 13 is required" in intents.check("older-gcc-configures", {"vllm": tree}).why
    apply_series({"vllm": tree}, f"v{version}", device("thor"))
    assert intents.check("older-gcc-configures", {"vllm": tree}).holds
