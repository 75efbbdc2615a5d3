"""Run a vLLM tree's setup.py for CUDA 13 up to setup(), and print the extension modules it asks for as JSON:
name -> whether it is optional."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import standins  # type: ignore[import-not-found]


class Extension:
    """setuptools's, as far as setup.py uses it."""

    def __init__(self, name: str, *_: Any, optional: bool = False, **__: Any) -> None:
        self.name, self.optional = name, bool(optional)


def main() -> None:
    """Print the modules of the tree in argv[1]."""
    tree = Path(sys.argv[1])
    standins.install("torch", "setuptools", "setuptools_rust", "setuptools_scm")
    torch: Any = importlib.import_module("torch")
    extension: Any = importlib.import_module("torch.utils.cpp_extension")
    setuptools: Any = importlib.import_module("setuptools")
    importlib.import_module("setuptools.command.build_ext")
    found: dict[str, bool] = {}

    def setup(**named: Any) -> None:
        found.update({entry.name: entry.optional for entry in named["ext_modules"]})

    with tempfile.TemporaryDirectory() as home:
        nvcc = Path(home) / "bin/nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text("#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n")
        nvcc.chmod(0o755)
        torch.version.cuda, torch.version.hip, torch.version.xpu = "13.0", None, None
        extension.CUDA_HOME, extension.ROCM_HOME = home, None
        os.environ |= {
            "VLLM_TARGET_DEVICE": "cuda",
            "SETUPTOOLS_SCM_PRETEND_VERSION": "0.0.1",
            "CUDA_HOME": home,
        }
        setuptools.setup, setuptools.Extension = setup, Extension
        scm: Any = importlib.import_module("setuptools_scm")
        scm.get_version = lambda *_, **__: "0.0.1"
        sys.argv = ["setup.py"]
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        runpy.run_path("setup.py", run_name="__main__")
    print(json.dumps(found))


main()
