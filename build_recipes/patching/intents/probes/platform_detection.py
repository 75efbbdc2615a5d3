"""Run a vLLM tree's own platform detection with stand-ins for NVML, the board and the distribution metadata,
and print what it decides in each situation as JSON: situation -> class, ``None``, or ``error: ...``."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.metadata
import io
import json
import logging
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import standins  # type: ignore[import-not-found]

TREE = Path(sys.argv[1])
CUDA = "vllm.platforms.cuda.CudaPlatform"


class NVMLError_LibraryNotFound(Exception):
    """What pynvml raises where there is no libnvidia-ml.so.1."""


class Board:
    """A machine, as the detection sees it."""

    def __init__(
        self,
        *,
        devices: int | None = None,
        metadata: str | None = "0.1.0",
        tree: str = "",
        kernel: str = "6.1.0",
    ) -> None:
        self.devices, self.metadata, self.tree, self.kernel = devices, metadata, tree, kernel

    def nvml_init(self) -> None:
        """nvmlInit."""
        if self.devices is None:
            raise NVMLError_LibraryNotFound("NVML Shared Library Not Found")

    def version(self, _name: str) -> str:
        """importlib.metadata.version."""
        if self.metadata is None:
            raise importlib.metadata.PackageNotFoundError("vllm")
        return self.metadata

    def open(self, real: Callable[..., Any], file: Any, *words: Any, **named: Any) -> Any:
        """builtins.open."""
        if str(file) == "/proc/device-tree/compatible":
            if not self.tree:
                raise FileNotFoundError(file)
            return io.BytesIO(self.tree.encode())
        return real(file, *words, **named)


def detection() -> Any:
    """The tree's vllm/platforms/__init__.py, loaded as it is."""
    module = types.ModuleType("vllm.platforms")
    module.__package__ = "vllm.platforms"
    module.__path__ = []
    sys.modules["vllm.platforms"] = module
    file = TREE / "vllm/platforms/__init__.py"
    exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
    return module


def device_config() -> Callable[[Any], None]:
    """``DeviceConfig.__post_init__`` of the tree, wherever it is defined."""
    for name in ("vllm/config/device.py", "vllm/config/__init__.py"):
        if not (TREE / name).exists():
            continue
        for node in ast.walk(ast.parse((TREE / name).read_text())):
            if isinstance(node, ast.ClassDef) and node.name == "DeviceConfig":
                body = next(
                    part
                    for part in node.body
                    if isinstance(part, ast.FunctionDef) and part.name == "__post_init__"
                )
                space: dict[str, Any] = {"torch": types.SimpleNamespace(device=_torch_device)}
                exec(compile(ast.Module([body], []), name, "exec"), space)
                found: Callable[[Any], None] = space["__post_init__"]
                return found
    raise LookupError("DeviceConfig is not in the tree")


def platform_class(pynvml: Any) -> str:
    """Which class the end of the tree's vllm/platforms/cuda.py chooses."""
    body = ast.parse((TREE / "vllm/platforms/cuda.py").read_text()).body
    first = next(n for n, part in enumerate(body) if ast.unparse(part).startswith("nvml_available ="))
    last = next(n for n, part in enumerate(body) if ast.unparse(part).startswith("CudaPlatform ="))
    space = {"pynvml": pynvml, "NvmlCudaPlatform": "Nvml", "NonNvmlCudaPlatform": "NonNvml"}
    exec(compile(ast.Module(body[first : last + 1], []), "vllm/platforms/cuda.py", "exec"), space)
    return str(space["CudaPlatform"])


class _torch_device:
    def __init__(self, name: str) -> None:
        if not name:
            raise RuntimeError("Device string must not be empty")


def main() -> None:
    """Print the decisions."""
    standins.install("vllm", "torch")
    logging.disable()
    pynvml: Any = importlib.import_module("vllm.third_party.pynvml")
    module, real_open, real_exists = detection(), builtins.open, os.path.exists
    answers: dict[str, str] = {}

    def decide(situation: str, board: Board, ask: Callable[[], Any]) -> None:
        pynvml.nvmlInit = board.nvml_init
        pynvml.nvmlShutdown = lambda: None
        pynvml.nvmlDeviceGetCount = lambda: board.devices
        everything: Any = {
            (importlib.metadata, "version"): board.version,
            (os, "uname"): lambda: types.SimpleNamespace(release=board.kernel),
            (builtins, "open"): lambda file, *w, **n: board.open(real_open, file, *w, **n),
            (os.path, "exists"): lambda path: "tegra" not in str(path) and real_exists(path),
            (os.path, "isfile"): lambda path: "tegra" not in str(path) and real_exists(path),
        }
        for (space, name), value in everything.items():
            setattr(space, name, value)
        try:
            answers[situation] = str(ask())
        except Exception as error:
            answers[situation] = f"error: {error}"

    for space in map(importlib.import_module, ("vllm.utils", "vllm.utils.import_utils")):
        setattr(space, "import_pynvml", lambda: pynvml)  # noqa: B010 (a module of no known type)
    cuda = module.cuda_platform_plugin
    decide("server", Board(devices=1), cuda)
    decide("server without metadata", Board(devices=1, metadata=None), cuda)
    decide("cpu build on a server", Board(devices=1, metadata="0.1.0+cpu"), cuda)
    decide("nothing", Board(), cuda)
    decide("jetson container", Board(kernel="6.8.12-tegra"), cuda)
    decide("jetson, device tree", Board(tree="nvidia,p3834-0008\0nvidia,tegra264\0"), cuda)
    decide("jetson, NVML knows no device", Board(devices=0, kernel="6.8.12-tegra"), cuda)
    decide("cpu build on a jetson", Board(metadata="0.1.0+cpu", kernel="6.8.12-tegra"), cuda)
    for name, devices in (("absent", None), ("knows no device", 0), ("knows a device", 1)):
        decide(f"class, NVML {name}", Board(devices=devices), lambda: platform_class(pynvml))
    post_init = device_config()
    module.current_platform = types.SimpleNamespace(device_type="", uses_host_device_handling=lambda: False)
    decide("engine on nothing", Board(), lambda: post_init(types.SimpleNamespace(device="")))
    print(json.dumps(answers))


main()
