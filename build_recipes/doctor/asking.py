"""What only a running machine can answer: its compilers, NVML, the driver, the torch of a Python.

Each question is asked of a child process with a time limit, so that a hanging driver or a torch that crashes at
import is an answer too ('unknown'), not the end of the doctor.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from build_recipes.doctor.machine import (
    VARIABLES,
    Machine,
    Toolkit,
    Torch,
    Triton,
    first_torch,
    first_triton,
    read_machine,
    read_triton,
)
from build_recipes.kit import process
from build_recipes.kit.data import parse_json
from build_recipes.kit.host import Host

PATIENCE = 60.0
"""Seconds that one question may take."""

_DRIVER = """
import ctypes, json
answer = {"nvml": None, "cuda": None}
try:
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    count, handle = ctypes.c_uint(), ctypes.c_void_p()
    memory = (ctypes.c_ulonglong * 3)()
    code = nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    if code:
        answer["nvml"] = nvml.nvmlErrorString(code).decode()
    else:
        answer["nvml"] = f"{count.value} device" + ("" if count.value == 1 else "s")
        if count.value and not nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
            code = nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
            if code:
                answer["nvml"] += ", memory not supported" if code == 3 else ", " + nvml.nvmlErrorString(code).decode()
except OSError:
    answer["nvml"] = "absent"
try:
    version = ctypes.c_int()
    if not ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)):
        answer["cuda"] = f"{version.value // 1000}.{version.value % 1000 // 10}"
except OSError:
    pass
print(json.dumps(answer))
"""

_PYTHON = """
import json, sys, sysconfig
print(json.dumps([p for p in sys.path if p] + [sysconfig.get_path("purelib")]))
"""

_TORCH = "import json, torch; print(json.dumps(torch.cuda.get_arch_list()))"


def ask_machine(python: Path | None = None) -> Machine:
    """Everything that can be known of the machine this runs on.

    :param python: the Python whose torch and Triton are looked at; the first ``python3`` on PATH that is not this
        project's own where it is None.
    """
    read = read_machine(Path("/"))
    host = Host.this()
    driver = _json([sys.executable, "-c", _DRIVER]) or {}
    python = python or _other_python()
    torch, triton = _torch(python) if python else (None, None)
    return dataclasses.replace(
        read,
        machine=host.machine,
        driver_cuda=driver.get("cuda") or read.driver_cuda,
        nvml=driver.get("nvml") or read.nvml,
        glibc="{}.{}".format(*host.glibc),
        gcc=_gcc(),
        python="{}.{}.{}".format(*sys.version_info[:3]),
        cores=host.cores,
        memory_gib=host.memory_gib,
        swap_gib=host.swap_gib,
        toolkits=tuple(_toolkits(read)),
        torch=torch,
        triton=triton,
        environment={name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
    )


def _said(argv: Sequence[str | Path]) -> list[str]:
    """Lines a program prints; none where it fails, is missing or takes too long."""
    try:
        done = process.run(argv, deadline=time.monotonic() + PATIENCE, tail_lines=400)
    except (OSError, TimeoutError):
        return []
    return list(done.tail) if done.ok else []


def _json(argv: Sequence[str | Path]) -> Any:
    for line in reversed(_said(argv)):
        try:
            return parse_json(line)
        except ValueError:
            continue
    return None


def _gcc() -> str | None:
    """Version of the host compiler that nvcc would use: CUDAHOSTCXX, CXX, else g++."""
    for name in (os.environ.get("CUDAHOSTCXX"), os.environ.get("CXX"), "g++"):
        if name:
            said = _said([name.split()[0], "-dumpfullversion", "-dumpversion"])
            return said[0] if said and re.fullmatch(r"[\d.]+", said[0]) else None
    return None


def _toolkits(read: Machine) -> list[Toolkit]:
    """Toolkits of the system, and the one that CUDA_HOME or PATH names, with nvcc's own word."""
    given = os.environ.get("CUDA_HOME")
    found = shutil.which("nvcc")
    homes = [Path(given)] if given else []
    homes += [Path(toolkit.path) for toolkit in read.toolkits]
    homes += [Path(found).resolve().parent.parent] if found else []
    told: dict[Path, Toolkit] = {}
    for home in homes:
        said = " ".join(_said([home / "bin/nvcc", "--version"]))
        version = re.search(r"\bV(\d+\.\d+\.\d+)", said)
        if (home / "bin/nvcc").exists():
            told.setdefault(home.resolve(), Toolkit(str(home), version.group(1) if version else None))
    return list(told.values())


def _other_python() -> Path | None:
    own = Path(sys.executable).parent.resolve()
    path = os.pathsep.join(p for p in os.get_exec_path() if Path(p).resolve() != own)
    found = shutil.which("python3", path=path)
    return Path(found) if found else None


def _torch(python: Path) -> tuple[Torch | None, Triton | None]:
    sites = [Path(site) for site in _json([python, "-c", _PYTHON]) or []]
    torch, triton = first_torch(sites), first_triton(sites)
    if torch and torch.cuda:
        architectures = _json([python, "-c", _TORCH])
        if isinstance(architectures, list):
            torch = dataclasses.replace(torch, architectures=tuple(architectures))
    if triton:
        site = next(site for site in sites if read_triton(site))
        triton = dataclasses.replace(triton, ptxas=_ptxas(site) or triton.ptxas)
    return torch, triton


def _ptxas(site: Path) -> str | None:
    """CUDA version of the ptxas that Triton runs for new GPUs: its own, or the one that the environment names."""
    folder = site / "triton/backends/nvidia/bin"
    blackwell = os.environ.get("TRITON_PTXAS_BLACKWELL_PATH") or folder / "ptxas-blackwell"
    program = (
        blackwell if Path(blackwell).exists() else os.environ.get("TRITON_PTXAS_PATH") or folder / "ptxas"
    )
    found = re.search(r"release (\d+\.\d+)", " ".join(_said([program, "--version"])))
    return found.group(1) if found else None
