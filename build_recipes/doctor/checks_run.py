"""Checks on what a run needs: the board, its driver, NVML, glibc, Triton's assembler."""

from __future__ import annotations

from build_recipes.doctor.case import Case, Finding
from build_recipes.doctor.tables import minor, numbers, tables


def board(case: Case) -> Finding | None:
    """What the machine is, and whether it is the device that was asked for."""
    machine = case.machine
    parts = [machine.board, ", ".join(machine.gpus), machine.machine, machine.distribution]
    seen = ", ".join(part for part in parts if part) or "nothing could be read"
    if machine.device is None and machine.tegra:
        return Finding(
            "machine", "warning", f"{seen}: a Jetson that devices.toml does not have", "", "./inv devices"
        )
    if case.name is None:
        return Finding("machine", "unknown", seen, "it is none of our devices", "./inv doctor --device thor")
    if case.here:
        return Finding("machine", "ok", f"{case.name}: {seen}")
    return Finding(
        "machine",
        "ok",
        seen,
        f"it is not {case.name}: wheels can be built here, not run; checks of a run are left out",
    )


def jetson(case: Case) -> Finding | None:
    """The Jetson's software release."""
    machine = case.machine
    if not machine.tegra:
        return None
    if machine.l4t is None:
        return Finding(
            "JetPack",
            "unknown",
            "the L4T release cannot be read (a container shows none)",
            "",
            "on the board itself: cat /etc/nv_tegra_release",
        )
    seen = f"JetPack {machine.jetpack or 'unknown'}, L4T R{machine.l4t}"
    if case.here and numbers(machine.l4t)[0] < 38:
        return Finding(
            "JetPack",
            "blocker",
            seen,
            "JetPack 6 and older are CUDA 12: a CUDA 13 wheel does not run",
            "move to JetPack 7, or take a CUDA 12 build of vLLM",
        )
    return Finding("JetPack", "ok", seen)


def driver(case: Case) -> Finding | None:
    """A driver that runs the device's CUDA."""
    machine = case.machine
    if case.name is not None and not case.here:
        return None
    if machine.driver is None:
        if case.name is None:
            return Finding("driver", "ok", "none", "wheels can be built here, not run")
        return Finding(
            "driver",
            "unknown",
            "its version cannot be read",
            "",
            "nvidia-smi, or cat /proc/driver/nvidia/version",
        )
    seen = f"{machine.driver}, CUDA {machine.driver_cuda or 'unknown'}"
    if case.device is not None and numbers(machine.driver) < numbers(case.device.driver):
        return Finding(
            "driver", "blocker", seen, f"CUDA 13 needs driver {case.device.driver} or newer",
            "move to JetPack 7" if machine.tegra else "apt-get install nvidia-driver-580-open, then reboot",
        )  # fmt: skip
    return Finding("driver", "ok", seen)


def ptx(case: Case) -> Finding | None:
    """nvcc not newer than the driver, or kernels that exist only as PTX do not start."""
    nvcc = case.toolkit.nvcc if case.toolkit else None
    runs = case.machine.driver_cuda
    if nvcc is None or runs is None or (case.name is not None and not case.here):
        return None
    seen = f"nvcc {nvcc}, the driver runs CUDA {runs}"
    if numbers(minor(nvcc)) > numbers(runs):
        return Finding(
            "PTX", "blocker", seen,
            "kernels that are only PTX (FlashAttention 2, Marlin) fail: 'unsupported toolchain'",
            f"use a CUDA {runs} toolkit (unset CUDA_HOME), or update the driver",
        )  # fmt: skip
    return Finding("PTX", "ok", seen)


def nvml(case: Case) -> Finding | None:
    """What vLLM's platform detection will meet."""
    machine = case.machine
    if not case.here and not (case.name is None and machine.gpus):
        return None
    state = machine.nvml
    if state is None:
        return Finding("NVML", "unknown", "it was not asked")
    counted = state[:1].isdigit()
    if state == "absent" or not counted or state.startswith("0 "):
        if machine.tegra and machine.marks and state == "absent":
            return Finding(
                "NVML",
                "warning",
                f"{state}; {', '.join(machine.marks)}",
                "vLLM falls back to the Jetson marks",
            )
        return Finding(
            "NVML", "blocker", state,
            "unpatched vLLM finds no platform ('Device string must not be empty')",
            "docker run --runtime nvidia (Jetson: mount /etc/nv_tegra_release too), or a wheel with patch P1",
        )  # fmt: skip
    if "memory not supported" in state:
        return Finding(
            "NVML",
            "warning",
            state,
            "vLLM up to 0.32.0 takes batch defaults that are four times too small",
            "use 0.33.0, a wheel with patch P2, or give --max-num-batched-tokens",
        )
    return Finding("NVML", "ok", state)


def unified(case: Case) -> Finding | None:
    """Unified memory: what --gpu-memory-utilization means there."""
    if not case.here or case.device is None:
        return None
    if case.device.memory_kind != "unified":
        return Finding("GPU memory", "ok", case.device.memory_kind)
    return Finding(
        "GPU memory",
        "ok",
        "unified with the host's",
        "the page cache counts against it: sysctl vm.drop_caches=3 before a start; --kv-cache-memory-bytes bounds it",
    )


def glibc(case: Case) -> Finding | None:
    """A glibc as new as the one the device's wheels are for."""
    version = case.machine.glibc
    if version is None:
        return Finding("glibc", "unknown", "it could not be told")
    if case.here and case.device is not None and numbers(version) < numbers(case.device.glibc):
        return Finding(
            "glibc",
            "blocker",
            version,
            f"wheels for {case.name} are {case.device.platform_tag}",
            "move to the distribution of JetPack 7 (Ubuntu 24.04), or build here with this glibc",
        )
    return Finding("glibc", "ok", version)


def triton(case: Case) -> Finding | None:
    """Triton's ptxas must know the GPU: the installed one, or the one the tag's torch will bring."""
    if case.device is None:
        return None
    capability = case.device.capability
    first = tables().ptxas_knows.get(capability)
    found = case.machine.triton
    if found is not None:
        name, ptxas = f"Triton {found.version}", found.ptxas
    elif case.version is not None and case.version.torch in tables().triton_of_torch:
        version = tables().triton_of_torch[case.version.torch]
        name = f"Triton {version} (with torch {case.version.torch}, which vLLM {case.tag} pins)"
        ptxas = tables().ptxas_of_triton.get(minor(version))
    else:
        return None
    if ptxas is None or first is None:
        return Finding("Triton", "unknown", name, "the CUDA of its ptxas is not known")
    seen = f"{name}, ptxas of CUDA {ptxas}"
    if numbers(ptxas) < numbers(first):
        architecture = f"sm_{capability.replace('.', '')}a"
        return Finding(
            "Triton", "blocker" if case.here and found is not None else "warning", seen,
            f"it does not know {architecture} (CUDA {first} does): torch.compile and Triton kernels fail",
            "export TRITON_PTXAS_PATH and TRITON_PTXAS_BLACKWELL_PATH=/usr/local/cuda/bin/ptxas (CUDA 13)",
        )  # fmt: skip
    return Finding("Triton", "ok", seen)


CHECKS = (board, jetson, driver, ptx, nvml, unified, glibc, triton)
