"""What a machine is, read from files below a root: the machine itself, or a snapshot of a board.

Nothing is guessed: what cannot be read is None, and is told as 'unknown'. What only a running machine can answer
(its compilers, NVML, torch's architectures) is asked in `asking` and put in here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_recipes.doctor.tables import cuda_of_driver, jetpack_of, tables
from build_recipes.facts import device as device_table
from build_recipes.kit.data import parse_json

VARIABLES = (
    "TORCH_CUDA_ARCH_LIST", "CUDA_HOME", "VLLM_TARGET_DEVICE", "MAX_JOBS", "NVCC_THREADS", "CC", "CXX",
    "CUDAHOSTCXX", "LD_LIBRARY_PATH", "TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH",
)  # fmt: skip
"""Environment variables that decide about builds and runs."""
MARKS = ("etc/nv_tegra_release", "sys/class/tegra-firmware")
"""Files by which unpatched vLLM knows a Jetson when NVML does not answer (platforms/__init__.py)."""


@dataclass(frozen=True)
class Torch:
    """An installed torch."""

    path: str
    version: str
    cuda: str | None
    """``torch.version.cuda``; None is a CPU build."""
    architectures: tuple[str, ...] | None = None
    """``sm_80`` and so on, from ``torch.cuda.get_arch_list()``; None where nobody was asked."""


@dataclass(frozen=True)
class Triton:
    """An installed Triton."""

    version: str
    ptxas: str | None
    """CUDA version of the ptxas it uses for capabilities from 10.0 on."""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit of the system."""

    path: str
    nvcc: str | None
    """Version of its nvcc; None where it cannot be told."""


@dataclass(frozen=True)
class Machine:
    """What is known of a machine."""

    root: str
    machine: str | None
    """``uname -m``."""
    kernel: str | None
    distribution: str | None
    board: str | None
    """Model from the device tree."""
    device: str | None
    """Its name in devices.toml."""
    tegra: bool
    """Whether the device tree or the kernel's name says it is a Jetson."""
    marks: tuple[str, ...]
    """Which of the `MARKS` are there."""
    l4t: str | None
    jetpack: str | None
    driver: str | None
    driver_cuda: str | None
    """Newest CUDA the driver can run."""
    nvml: str | None
    """``absent``, ``N devices``, ``N devices, memory not supported``, an error's text, or None: not asked."""
    gpus: tuple[str, ...]
    glibc: str | None
    gcc: str | None
    python: str | None
    cores: int | None
    memory_gib: float | None
    swap_gib: float | None
    toolkits: tuple[Toolkit, ...]
    torch: Torch | None
    triton: Triton | None
    environment: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``; null is 'unknown'."""
        return asdict(self)


def read_machine(root: Path) -> Machine:
    """Read what files tell about the machine below ``root``. A root without /proc gives mostly None."""
    packages = _packages(root)
    kernel = _text(root / "proc/sys/kernel/osrelease")
    compatible = _text(root / "proc/device-tree/compatible") or ""
    machine = _machine(root)
    l4t = _l4t(root, packages)
    driver = _driver(root)
    memory = _text(root / "proc/meminfo") or ""
    return Machine(
        root=str(root),
        machine=machine,
        kernel=kernel,
        distribution=_distribution(root),
        board=_text(root / "proc/device-tree/model"),
        device=device_table.detect(root, machine or "unknown"),
        tegra="nvidia,tegra" in compatible or bool(kernel and kernel.endswith("-tegra")),
        marks=tuple(mark for mark in MARKS if (root / mark).exists()),
        l4t=l4t,
        jetpack=_jetpack(packages, l4t),
        driver=driver,
        driver_cuda=cuda_of_driver(driver) if driver else None,
        nvml="absent" if (root / "usr/lib").is_dir() and not _nvml_library(root) else None,
        gpus=tuple(_gpus(root)),
        glibc=_upstream(packages.get("libc6")),
        gcc=_upstream(packages.get("g++")),
        python=_upstream(packages.get("python3")),
        cores=len(re.findall(r"^processor\s*:", _text(root / "proc/cpuinfo") or "", re.MULTILINE)) or None,
        memory_gib=_gib(memory, "MemTotal"),
        swap_gib=_gib(memory, "SwapTotal"),
        toolkits=tuple(_toolkits(root)),
        torch=first_torch(_sites(root)),
        triton=first_triton(_sites(root)),
        environment=_environment(root),
    )


def first_torch(sites: Iterable[Path]) -> Torch | None:
    """The torch of the first folder that has one."""
    return next((found for found in map(read_torch, sites) if found), None)


def first_triton(sites: Iterable[Path]) -> Triton | None:
    """The Triton of the first folder that has one."""
    return next((found for found in map(read_triton, sites) if found), None)


def read_torch(site: Path) -> Torch | None:
    """torch in a site-packages folder, from its version.py; it is not imported."""
    text = _text(site / "torch/version.py")
    if text is None:
        return None
    version = re.search(r"^__version__\s*=\s*'([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\s*(?::[^=]+)?=\s*'([^']+)'", text, re.MULTILINE)
    return Torch(
        str(site / "torch"), version.group(1) if version else "unknown", cuda.group(1) if cuda else None
    )


def read_triton(site: Path) -> Triton | None:
    """Triton in a site-packages folder, from its ``__init__.py``."""
    text = _text(site / "triton/__init__.py")
    found = re.search(r"""^__version__\s*=\s*['"]([^'"]+)""", text or "", re.MULTILINE)
    if not found:
        return None
    version = found.group(1)
    return Triton(version, tables().ptxas_of_triton.get(".".join(version.split(".")[:2])))


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return None


def _machine(root: Path) -> str | None:
    text = _text(root / "proc/cpuinfo") or ""
    if re.search(r"^CPU implementer\s*:", text, re.MULTILINE):
        return "aarch64"
    return "x86_64" if re.search(r"^vendor_id\s*:", text, re.MULTILINE) else None


def _distribution(root: Path) -> str | None:
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release") or ""
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', text, re.MULTILINE)
    return found.group(1) if found else None


def _packages(root: Path) -> dict[str, str]:
    """Installed Debian packages and their versions."""
    text = _text(root / "var/lib/dpkg/status") or ""
    found = {}
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.+)$", block, re.MULTILINE))
        if {"Package", "Version"} <= fields.keys() and fields.get("Status", "install ok installed").endswith(
            " installed"
        ):
            found[fields["Package"]] = fields["Version"]
    return found


def _upstream(version: str | None) -> str | None:
    """``13.2.0`` of the Debian version ``4:13.2.0-7ubuntu1``."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version or "")
    return found.group(1) if found else None


def _l4t(root: Path, packages: dict[str, str]) -> str | None:
    text = _text(root / "etc/nv_tegra_release") or ""
    found = re.search(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text)
    if found:
        return f"{found.group(1)}.{found.group(2)}"
    return _upstream(packages.get("nvidia-l4t-core"))


def _jetpack(packages: dict[str, str], l4t: str | None) -> str | None:
    return _upstream(packages.get("nvidia-jetpack")) or (jetpack_of(l4t) if l4t else None)


def _driver(root: Path) -> str | None:
    text = _text(root / "proc/driver/nvidia/version") or ""
    found = re.search(r"^NVRM version: .*?\s(\d{3}\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    told = found.group(1) if found else _text(root / "sys/module/nvidia/version")
    return told if told and re.match(r"\d", told) else None


def _nvml_library(root: Path) -> bool:
    patterns = ("usr/lib/*/libnvidia-ml.so.1", "usr/lib/*/nvidia/libnvidia-ml.so.1", "usr/lib*/libnvidia-ml.so.1",
                "usr/local/nvidia/lib*/libnvidia-ml.so.1")  # fmt: skip
    return any(path for pattern in patterns for path in root.glob(pattern))


def _gpus(root: Path) -> Iterator[str]:
    for information in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        yield from re.findall(r"^Model:\s*(.+?)\s*$", _text(information) or "", re.MULTILINE)


def _gib(meminfo: str, name: str) -> float | None:
    found = re.search(rf"^{name}:\s+(\d{{1,15}}) kB", meminfo, re.MULTILINE)
    return round(int(found.group(1)) / 2**20, 1) if found else None


def _toolkits(root: Path) -> Iterator[Toolkit]:
    for home in sorted((root / "usr/local").glob("cuda-*")):
        text = _text(home / "version.json")
        try:
            answer = parse_json(text) if text else {}
            said = str(answer.get("cuda_nvcc", answer.get("cuda", {}))["version"])
        except (ValueError, AttributeError, KeyError, TypeError):
            said = ""
        version = said if re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,3}", said) else None
        if text or (home / "bin/nvcc").exists():
            yield Toolkit("/" + str(home.relative_to(root)), version)


def _sites(root: Path) -> Iterator[Path]:
    for pattern in (
        "opt/*/lib/python3*/site-packages",
        "usr/local/lib/python3*/*-packages",
        "usr/lib/python3*/*-packages",
    ):
        yield from sorted(root.glob(pattern))


def _environment(root: Path) -> dict[str, str]:
    text = _text(root / "etc/environment") or ""
    rows = re.findall(r'^(?:export )?(\w+)="?([^"\n]*)"?$', text, re.MULTILINE)
    return {name: value for name, value in rows if name in VARIABLES}
