"""Small programs that run a tree's own Python with stand-ins for what is not installed, each in a process of
its own. They are files in `probes/`, run by this interpreter with the tree as their argument."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from build_recipes.kit import process

PROBES = Path(__file__).resolve().parent / "probes"


def run(name: str, tree: Path, *words: str) -> str:
    """Standard output of the probe ``name`` on a tree.

    :raises subprocess.CalledProcessError: it failed; its stderr says why.
    """
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("VLLM_", "PYTHON", "CUDA", "TORCH"))
    }
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return process.capture(
        [sys.executable, "-s", PROBES / f"{name}.py", tree.resolve(), *words],
        cwd=tree,
        env=environment,
    )
