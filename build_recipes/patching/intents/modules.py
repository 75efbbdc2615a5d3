"""Intents about what is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from build_recipes.kit.console import counted
from build_recipes.kit.errors import ToolFailed
from build_recipes.patching.intents import cmake, probe
from build_recipes.patching.intents.answer import Verdict

FA2, FA3 = "_vllm_fa2_C", "_vllm_fa3_C"


def fa3_only_for_hopper(trees: Mapping[str, Path]) -> Verdict:
    """FlashAttention 3 has units where 9.x is asked for, and an empty target elsewhere, which setup.py
    knows as optional, and vllm_flash_attn imports without it."""
    faults = []
    if "vllm" in trees:
        faults += _optional_in_setup(trees["vllm"]) + _imports_without(trees["vllm"], "vllm")
    flash = trees.get("vllm-flash-attn")
    if flash is None:
        return Verdict(False, "; ".join(faults)) if faults else Verdict(None, "no vllm-flash-attn tree here")
    faults += _imports_without(flash, ".")
    for archs in ("11.0", "8.7", "12.0", "10.0"):
        seen = cmake.evaluate(flash, archs, given=True)
        if seen.units(FA3):
            faults.append(f"{counted(len(seen.units(FA3)), 'unit')} of {FA3} are built for {archs}")
        elif FA3 not in seen.empty:
            faults.append(f"for {archs} there is no target {FA3}, which setup.py asks for")
    for archs in ("9.0", "8.7;9.0"):
        seen = cmake.evaluate(flash, archs, given=True)
        if not seen.units(FA3):
            faults.append(f"no unit of {FA3} is built for {archs}")
    return Verdict.of(*faults)


def native_fa2(trees: Mapping[str, Path]) -> Verdict:
    """FlashAttention 2 is compiled to code that 8.7, 11.0 and 12.x load as it is, and to nothing else."""
    wanted = {
        "8.7": {"sm_87"},
        "11.0": {"sm_110"},
        "12.0": {"sm_120"},
        "8.9": {"sm_80", "compute_80"},
        "8.7;8.9": {"sm_87", "sm_80", "compute_80"},
    }
    return _fa2_codes(trees, wanted)


def native_fa2_datacenter(trees: Mapping[str, Path]) -> Verdict:
    """FlashAttention 2 is compiled to code that 9.0 and 10.x load as it is, and to nothing else."""
    wanted = {
        "9.0": {"sm_90"},
        "10.0": {"sm_100"},
        "8.9": {"sm_80", "compute_80"},
        "8.9;9.0": {"sm_90", "sm_80", "compute_80"},
    }
    return _fa2_codes(trees, wanted)


def _fa2_codes(trees: Mapping[str, Path], wanted: Mapping[str, set[str]]) -> Verdict:
    flash = trees.get("vllm-flash-attn")
    if flash is None:
        return Verdict(None, "no vllm-flash-attn tree here")
    faults = []
    for archs, codes in wanted.items():
        seen = cmake.evaluate(flash, archs, given=True)
        units = seen.units(FA2)
        other = {frozenset(seen.codes(unit)) for unit in units} - {frozenset(codes)}
        if not units:
            faults.append(f"for {archs}, {FA2} has no unit")
        elif other:
            faults.append(f"for {archs}, FlashAttention 2 is compiled to {sorted(set().union(*other))}")
    return Verdict.of(*faults)


def _imports_without(tree: Path, folder: str) -> list[str]:
    """Import the tree's vllm_flash_attn, where it has one, without compiled modules."""
    if not (tree / folder / "vllm_flash_attn/flash_attn_interface.py").exists():
        return []
    try:
        said = json.loads(probe.run("flash_import", tree, folder))
    except ToolFailed as error:
        return [f"vllm_flash_attn cannot be imported without {FA3}: {error.words[-200:]}"]
    return [f"vllm_flash_attn takes {FA3} for there"] if said["available"] else []


def _optional_in_setup(tree: Path) -> list[str]:
    """Run the tree's own setup.py up to its call of setup()."""
    try:
        said = probe.run("setup_modules", tree)
    except ToolFailed as error:
        return [f"setup.py stops: {error.words.splitlines()[-1:]}"]
    modules: dict[str, bool] = json.loads(said)
    name = f"vllm.vllm_flash_attn.{FA3}"
    if name in modules and not modules[name]:
        return [f"setup.py insists on {FA3}"]
    return []
