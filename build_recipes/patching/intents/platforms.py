"""Intents about what vLLM decides when it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from build_recipes.kit.errors import ToolFailed
from build_recipes.patching.intents import probe
from build_recipes.patching.intents.answer import Verdict

CUDA = "vllm.platforms.cuda.CudaPlatform"
WANTED = {
    "server": CUDA,
    "server without metadata": CUDA,
    "cpu build on a server": "None",
    "nothing": "None",
    "jetson container": CUDA,
    "jetson, device tree": CUDA,
    "jetson, NVML knows no device": CUDA,
    "cpu build on a jetson": "None",
    "class, NVML absent": "NonNvml",
    "class, NVML knows no device": "NonNvml",
    "class, NVML knows a device": "Nvml",
}


UNIFIED, DISCRETE = ("(8, 7)", "(11, 0)", "(12, 1)"), ("(9, 0)", "(10, 0)")


def detects_jetson(trees: Mapping[str, Path]) -> Verdict:
    """A Jetson is found by its device tree or kernel, a CPU build never claims CUDA, and where
    nothing is found the engine's error says what was tried."""
    if "vllm" not in trees:
        return Verdict(None, "no vllm tree here")
    try:
        said: dict[str, str] = json.loads(probe.run("platform_detection", trees["vllm"]))
    except ToolFailed as error:
        return Verdict(False, f"vllm/platforms does not run: {error.words[-300:]}")
    faults = [
        f"{name}: {said.get(name)}, not {wanted}"
        for name, wanted in WANTED.items()
        if said.get(name) != wanted
    ]
    message = said.get("engine on nothing", "")
    if not all(word in message for word in ("NVML", "-tegra", "Tried")):
        faults.append(f"engine on nothing: {message[:80]}")
    return Verdict.of(*faults)


def total_memory(trees: Mapping[str, Path]) -> Verdict:
    """Total memory is NVML's, and CUDA's where NVML does not know it."""
    return _memory(trees, "total", {"told by NVML": 77, "not": 64})


def free_memory(trees: Mapping[str, Path]) -> Verdict:
    """Free memory is what the host has available where the GPU shares it, and CUDA's elsewhere."""
    return _memory(trees, "free", {**dict.fromkeys(UNIFIED, 42), **dict.fromkeys(DISCRETE, 1)})


def profiling_warns(trees: Mapping[str, Path]) -> Verdict:
    """Free memory that grew during profiling is a warning where the GPU shares it, an error elsewhere."""
    wanted = {"(11, 0) grew": "warned", "(11, 0) shrank": "quiet", "(9, 0) shrank": "quiet"}
    return _memory(trees, "profiling", wanted, {"(9, 0) grew": "error: AssertionError"})


def _memory(
    trees: Mapping[str, Path],
    part: str,
    wanted: Mapping[str, object],
    begins: Mapping[str, str] | None = None,
) -> Verdict:
    if "vllm" not in trees:
        return Verdict(None, "no vllm tree here")
    try:
        said: dict[str, object] = json.loads(probe.run("memory", trees["vllm"], part))
    except ToolFailed as error:
        return Verdict(False, f"the memory accounting cannot be run: {error.words[-300:]}")
    faults = [
        f"{name}: {str(said.get(name))[:80]}" for name, value in wanted.items() if said.get(name) != value
    ]
    faults += [
        f"{name}: {said.get(name)}"
        for name, text in (begins or {}).items()
        if not str(said.get(name)).startswith(text)
    ]
    return Verdict.of(*faults)
