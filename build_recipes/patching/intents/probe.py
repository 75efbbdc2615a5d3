"""Small programs that run a tree's own Python with stand-ins for what is not installed, each in a process of
its own. They are files in `probes/`, run by this interpreter with the tree as their argument."""

from __future__ import annotations

import sys
from pathlib import Path

from build_recipes.kit import process

PROBES = Path(__file__).resolve().parent / "probes"


def run(name: str, tree: Path, *words: str) -> str:
    """Standard output of the probe ``name`` on a tree.

    :raises ToolFailed: it failed; its words say why.
    """
    environment = process.child_environment(
        prefixes=("VLLM_", "PYTHON", "CUDA", "TORCH"), PYTHONDONTWRITEBYTECODE="1"
    )
    return process.capture(
        [sys.executable, "-s", PROBES / f"{name}.py", tree.resolve(), *words],
        cwd=tree,
        env=environment,
    )
