"""What the machine that compiles is: CPU, Python, glibc, cores, memory. Read once, passed as a value."""

from __future__ import annotations

import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.limits import Machine


@dataclass(frozen=True)
class Host:
    """The machine that compiles."""

    machine: str
    """``uname -m``."""
    python: tuple[int, int]
    """Minor version of the Python that runs, which is the one the build environment is made from."""
    glibc: tuple[int, int]
    cores: int
    """Cores this process may use (`limits`)."""
    memory_gib: float
    """Memory this process may use (`limits`)."""
    swap_gib: float
    distribution: str
    """``ID`` and ``VERSION_ID`` of os-release."""
    python_include: Path
    """Folder of Python.h."""

    @classmethod
    def this(cls) -> Host:
        """The machine this runs on."""
        limits = Machine().limits()
        return cls(
            machine=platform.machine(),
            python=(sys.version_info[0], sys.version_info[1]),
            glibc=_glibc(),
            cores=limits.cores,
            memory_gib=limits.memory_gib,
            swap_gib=limits.swap_gib,
            distribution=_distribution(),
            python_include=Path(sysconfig.get_path("include")),
        )


def free_disk(folder: Path) -> int:
    """Free bytes on the file system that ``folder`` is or will be on."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


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
