"""Checks on what a run needs: the board, its driver, NVML, glibc, Triton's assembler."""

from __future__ import annotations

from build_recipes.doctor.case import Case, Finding
from build_recipes.doctor.tables import driver_is_newer, minor, numbers, tables
from build_recipes.facts import versions


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
        return Finding(
            "machine", "unknown", seen, "it is not a supported device", "./inv doctor --device thor"
        )
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
            "cat /etc/nv_tegra_release  # on the board itself, outside of any container",
        )
    seen = f"JetPack {machine.jetpack or 'unknown'}, L4T R{machine.l4t}"
    newer = (
        "it is newer than what is known here, and is taken as such"
        if "newer" in (machine.jetpack or "")
        else ""
    )
    if case.here and numbers(machine.l4t)[0] < 38:
        return Finding(
            "JetPack",
            "blocker",
            seen,
            "JetPack 6 and older are CUDA 12: a CUDA 13 wheel does not run",
            "pip install vllm --index-url https://pypi.jetson-ai-lab.io/jp6/cu126  # CUDA 12; or flash JetPack 7.2",
        )
    return Finding("JetPack", "ok", seen, newer)


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
            "cat /proc/driver/nvidia/version",
        )
    newer = driver_is_newer(machine.driver)
    seen = f"{machine.driver}, CUDA {machine.driver_cuda or 'unknown'}{' or newer' * newer}"
    if case.device is not None and numbers(machine.driver) < numbers(case.device.driver):
        return Finding(
            "driver", "blocker", seen, f"CUDA 13 needs driver {case.device.driver} or newer",
            "sdkmanager  # flash JetPack 7.2 or newer" if machine.tegra
            else f"sudo apt-get install -y nvidia-driver-{case.device.driver}-open && sudo reboot",
        )  # fmt: skip
    return Finding(
        "driver", "ok", seen, "it is newer than what is known here, and is taken as such" if newer else ""
    )


def ptx(case: Case) -> Finding | None:
    """nvcc not newer than the driver, or kernels that exist only as PTX do not start."""
    if case.name is not None and not case.here:
        return None
    nvcc = case.toolkit.nvcc if case.toolkit else None
    runs = case.machine.driver_cuda
    what = f"nvcc {nvcc}" if nvcc else f"the build's nvcc {versions.facts().cuda_toolkit.version}"
    nvcc = nvcc or versions.facts().cuda_toolkit.version
    if runs is None:
        if not case.machine.gpus and not case.machine.tegra:
            return None
        return Finding("PTX", "unknown", f"{what}; what the driver runs cannot be told", "", "nvidia-smi")
    seen = f"{what}, the driver runs CUDA {runs}"
    newer = bool(case.machine.driver) and driver_is_newer(case.machine.driver or "0")
    if numbers(minor(nvcc)) > numbers(runs) and newer:
        seen = f"{what}, the driver ({case.machine.driver}) runs CUDA {runs} or newer"
        return Finding("PTX", "unknown", seen, "the driver is newer than what is known here", "nvidia-smi")
    if numbers(minor(nvcc)) > numbers(runs):
        return Finding(
            "PTX", "blocker", seen,
            "kernels that are only PTX (FlashAttention 2, Marlin) fail: 'unsupported toolchain'",
            "unset CUDA_HOME" if case.machine.environment.get("CUDA_HOME") else case.build("--cuda wheels"),
        )  # fmt: skip
    return Finding("PTX", "ok", seen)


def nvml(case: Case) -> Finding | None:
    """What vLLM's platform detection will meet."""
    machine = case.machine
    if not case.here and not (case.name is None and machine.gpus):
        return None
    state = machine.nvml
    if state is None:
        return Finding("NVML", "unknown", "not asked: only files of this machine were read", "", "nvidia-smi")
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
            "docker run --runtime nvidia -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro IMAGE" if machine.tegra
            else "docker run --gpus all IMAGE  # in a container; on the machine itself: sudo modprobe nvidia",
        )  # fmt: skip
    if "memory not supported" in state:
        return Finding(
            "NVML",
            "warning",
            state,
            "vLLM up to 0.32.0 takes batch defaults that are four times too small",
            "vllm serve MODEL --max-num-batched-tokens 8192 --max-num-seqs 256  # or 0.33.0, or a wheel with patch P2",
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
        seen = "it could not be told" if case.asked else "not asked: only files of this machine were read"
        return Finding("glibc", "unknown", seen, "", "ldd --version")
    if case.here and case.device is not None and numbers(version) < numbers(case.device.glibc):
        return Finding(
            "glibc",
            "blocker",
            version,
            f"wheels for {case.name} are {case.device.platform_tag}",
            case.build("--allow glibc") + "  # here, with this glibc; or move to Ubuntu 24.04",
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
            _ptxas(case, first),
        )  # fmt: skip
    return Finding("Triton", "ok", seen)


def _ptxas(case: Case, first: str) -> str:
    """The line that gives Triton an assembler that knows the GPU: the toolkit's, or one from PyPI."""
    if case.toolkit and case.toolkit.nvcc and numbers(minor(case.toolkit.nvcc)) >= numbers(first):
        path = f"{case.toolkit.path}/bin/ptxas"
        return f"export TRITON_PTXAS_PATH={path} TRITON_PTXAS_BLACKWELL_PATH={path}"
    return (
        "pip install 'nvidia-cuda-nvcc>=13.0,<14' && P=$(python3 -c 'import sysconfig; "
        'print(sysconfig.get_path("purelib"))\')/nvidia/cu13/bin/ptxas'
        " && export TRITON_PTXAS_PATH=$P TRITON_PTXAS_BLACKWELL_PATH=$P"
    )


CHECKS = {
    "machine": board, "JetPack": jetson, "driver": driver, "PTX": ptx, "NVML": nvml, "GPU memory": unified,
    "glibc": glibc, "Triton": triton,
}  # fmt: skip
"""Name of a check, and the check; one that has nothing to go by answers None."""
