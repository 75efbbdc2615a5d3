"""The settings that vLLM is started with on a device: environment and options, each with its reason."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from build_recipes.doctor.tables import minor, numbers, tables
from build_recipes.facts.device import Device
from build_recipes.kit.data import Model, load_toml

PTXAS = "/usr/local/cuda/bin/ptxas"
"""Where the CUDA toolkit of JetPack and DGX OS has it."""


class Memory(Model, frozen=True):
    """A table of settings.toml."""

    utilization: float
    """Share of the GPU's memory that vLLM takes."""
    allocator: str
    """PYTORCH_CUDA_ALLOC_CONF; empty where it is left alone."""
    why: str


@functools.cache
def memory_kinds() -> dict[str, Memory]:
    """settings.toml, read once."""
    return load_toml(Path(__file__).with_name("settings.toml"), dict[str, Memory])


@dataclass(frozen=True)
class Settings:
    """Environment and options of ``vllm serve``."""

    environment: dict[str, str]
    options: tuple[str, ...]
    reasons: tuple[str, ...]


def settings(device: Device, triton: str = "", toolkit: str = "") -> Settings:
    """The settings of a device.

    :param triton: its version in the environment, empty where it is not known.
    :param toolkit: folder of a CUDA toolkit in the environment; where it is empty, the device's own is taken.
    """
    kind = memory_kinds()[device.memory_kind]
    environment: dict[str, str] = {}
    reasons = [f"memory: {kind.why}"]
    if kind.allocator:
        environment["PYTORCH_CUDA_ALLOC_CONF"] = kind.allocator
    if toolkit:
        environment["CUDA_HOME"] = toolkit
        reasons.append(
            "FlashInfer compiles kernels at first use, with the nvcc of the environment: torch's CUDA"
        )
    has, first = (
        tables().ptxas_of_triton.get(minor(triton)) if triton else None,
        tables().ptxas_knows.get(device.capability),
    )
    if has and first and numbers(has) < numbers(first):
        path = f"{toolkit}/bin/ptxas" if toolkit else PTXAS
        environment |= {"TRITON_PTXAS_PATH": path, "TRITON_PTXAS_BLACKWELL_PATH": path}
        reasons.append(
            f"Triton {triton} has the ptxas of CUDA {has}; {device.capability} needs {first} or newer"
        )
    return Settings(environment, ("--gpu-memory-utilization", f"{kind.utilization:.2f}"), tuple(reasons))
