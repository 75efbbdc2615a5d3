"""What the machine that compiles is: CPU, Python, glibc, cores, memory. Read once, passed as a value."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Host:
    """The machine that compiles."""

    machine: str
    """``uname -m``."""
    python: tuple[int, int]
    """Minor version of the Python that runs, which is the one the build environment is made from."""
    glibc: tuple[int, int]
    cores: int
    """Cores this process may use (affinity and cgroup quota)."""
    memory_gib: float
    """Physical memory, or the cgroup's limit where that is less."""
    swap_gib: float
    distribution: str
    """``ID`` and ``VERSION_ID`` of os-release."""
    python_include: Path
    """Folder of Python.h."""

    @classmethod
    def this(cls) -> Host:
        """The machine this runs on."""
        limit = _cgroup_number("memory.max")
        memory = psutil.virtual_memory().total
        return cls(
            machine=platform.machine(),
            python=(sys.version_info[0], sys.version_info[1]),
            glibc=_glibc(),
            cores=_cores(),
            memory_gib=round(min(memory, limit or memory) / 2**30, 1),
            swap_gib=round(psutil.swap_memory().total / 2**30, 1),
            distribution=_distribution(),
            python_include=Path(sysconfig.get_path("include")),
        )


def free_disk(folder: Path) -> int:
    """Free bytes on the file system that ``folder`` is or will be on."""
    place = folder
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _cores() -> int:
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return count


def _cgroup_number(name: str) -> int | None:
    try:
        text = (Path("/sys/fs/cgroup") / name).read_text().strip()
        return int(text) if text.isdigit() else None
    except OSError:
        return None


def _glibc() -> tuple[int, int]:
    _, version = platform.libc_ver()
    major, _, minor = (version or "2.17").partition(".")
    return int(major), int(minor or 0)


def _distribution() -> str:
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return f"{facts.get('ID', 'unknown')} {facts.get('VERSION_ID', '')}".strip()
