"""Compiler caches: ccache or sccache.

They hit in every folder, because a compiler sees no path of its tree (`build.units.unit`). Settings that decide
what ccache hashes are set here and nowhere else: a difference between two builds would turn every hit into a miss.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from build_recipes.kit.errors import UsageError

CHOICES = ("auto", "ccache", "sccache", "off")
LARGEST = "20G"
"""Size of a cache where the environment does not say another (CCACHE_MAXSIZE, SCCACHE_CACHE_SIZE)."""


def launcher(choice: str) -> list[str]:
    """The compiler launcher to put before a compiler, empty where no cache is used.

    :param choice: ``auto`` takes ccache, then sccache, when they are on PATH (ccache answers a whole nvcc
        call; sccache caches each of its phases and was 50 times slower when warm).
    :raises UsageError: not a choice, or asked for and not installed.
    """
    if choice not in CHOICES:
        raise UsageError(f"--cache {choice} is not a compiler cache", f"one of {', '.join(CHOICES)}")
    if choice == "off":
        return []
    for name in ("ccache", "sccache") if choice == "auto" else (choice,):
        if shutil.which(name):
            return [name]
    if choice == "auto":
        return []
    raise UsageError(f"{choice} is not installed", f"apt-get install -y {choice}, or leave --cache out")


def environment(cache: Path, choice: str) -> dict[str, str]:
    """Variables of the compiler cache."""
    if launcher(choice) == ["ccache"]:
        return {
            "CCACHE_DIR": str(cache / "ccache"),
            "CCACHE_COMPILERCHECK": "content",
            "CCACHE_NOHASHDIR": "1",
            "CCACHE_MAXSIZE": os.environ.get("CCACHE_MAXSIZE") or LARGEST,
        }
    if launcher(choice) == ["sccache"]:
        return {
            "SCCACHE_DIR": str(cache / "sccache"),
            "SCCACHE_CACHE_SIZE": os.environ.get("SCCACHE_CACHE_SIZE") or LARGEST,
        }
    return {}
