"""Intents: does a tree do what a patch is for? Each check runs the tree's own code; none looks for a text.

`check` is the one way in. A check gets the trees by name and answers True, False, or None where it cannot be
told (the tree it needs is not here). What a check reads is known, so trees that are alike in that are asked
once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.errors import BadData
from build_recipes.patching.intents.answer import Verdict

Trees = Mapping[str, Path]


@dataclass(frozen=True)
class Intent:
    """One check."""

    ask: Callable[[Trees], Verdict]
    reads: Mapping[str, tuple[str, ...]]
    """Files it reads, as globs, by tree. A glob that ends in ``!`` stands for the names of the files only."""


_VLLM_CMAKE = ("CMakeLists.txt", "cmake/**/*.cmake")
_FLASH_CMAKE = (*_VLLM_CMAKE, "csrc/flash_attn/src/*.cu!", "hopper/**/*.cu!")


def intents() -> dict[str, Intent]:
    """All checks by name."""
    from build_recipes.patching.intents import kernels, modules, platforms, targets

    flash = {"vllm-flash-attn": _FLASH_CMAKE}
    guards = ("csrc/**/*sm100*", "csrc/**/*sm120*", "csrc/**/cutlass_extensions/common.hpp")
    return {
        "detects-jetson": Intent(
            platforms.detects_jetson,
            {
                "vllm": (
                    "vllm/platforms/__init__.py",
                    "vllm/platforms/cuda.py",
                    "vllm/config/__init__.py",
                    "vllm/config/device.py",
                )
            },
        ),
        "total-memory": Intent(platforms.total_memory, {"vllm": ("vllm/platforms/cuda.py",)}),
        "free-memory": Intent(
            platforms.free_memory, {"vllm": ("vllm/utils/mem_utils.py", "vllm/utils/__init__.py")}
        ),
        "profiling-warns": Intent(platforms.profiling_warns, {"vllm": ("vllm/v1/worker/gpu_worker.py",)}),
        "fa3-only-for-hopper": Intent(
            modules.fa3_only_for_hopper,
            {
                "vllm": ("setup.py", "vllm/envs.py", "requirements/**/*.txt", "vllm/vllm_flash_attn/*.py"),
                "vllm-flash-attn": (*_FLASH_CMAKE, "vllm_flash_attn/*.py"),
            },
        ),
        "native-fa2": Intent(modules.native_fa2, flash),
        "native-fa2-datacenter": Intent(modules.native_fa2_datacenter, flash),
        "loads-in-family": Intent(targets.in_family, {"vllm": _VLLM_CMAKE}),
        "loads-on-orin": Intent(targets.on_orin, {"vllm": _VLLM_CMAKE}),
        "older-gcc-configures": Intent(targets.older_gcc, {"vllm": _VLLM_CMAKE}),
        "no-empty-kernels": Intent(
            kernels.no_empty_kernels, {"vllm": (*_VLLM_CMAKE, *guards, "csrc/**/scaled_mm_entry.cu")}
        ),
    }


_known: dict[str, Verdict] = {}
_locks: dict[str, threading.Lock] = {}
_gate = threading.Lock()


def check(name: str, trees: Trees) -> Verdict:
    """Whether the trees do what the intent ``name`` says. Safe from several threads.

    :raises BadData: no intent has that name.
    """
    found = intents().get(name)
    if found is None:
        raise BadData(
            f"no intent is called '{name}'; there are {', '.join(intents())}", "correct patches/series.toml"
        )
    key = f"{name} {_content(found, trees)}"
    with _gate:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        if key not in _known:
            _known[key] = found.ask(trees)
        return _known[key]


def _content(found: Intent, trees: Trees) -> str:
    digest = hashlib.sha256()
    for tree, globs in sorted(found.reads.items()):
        digest.update(f"{tree} {tree in trees}\n".encode())
        if tree not in trees:
            continue
        for glob in globs:
            for path in sorted(trees[tree].glob(glob.removesuffix("!"))):
                digest.update(f"{path.relative_to(trees[tree])}\n".encode())
                if not glob.endswith("!") and path.is_file():
                    digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


__all__ = ["Verdict", "check", "intents"]
