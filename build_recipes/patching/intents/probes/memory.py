"""Run the memory accounting of a vLLM tree on a GPU that shares the host's memory and on one that does not,
with stand-ins for torch, NVML and psutil. Prints JSON: question -> answer, for the part named by the second argument.

Only the functions in question are taken from the tree's files (by their syntax trees, as they stand): the
files around them import half of vLLM.
"""

from __future__ import annotations

import ast
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import standins  # type: ignore[import-not-found]

TREE = Path(sys.argv[1])
UNIFIED, DISCRETE = ((8, 7), (11, 0), (12, 1)), ((9, 0), (10, 0))


class NVMLError(Exception):
    """pynvml's."""


def functions(file: Path, name: str, owner: str = "") -> Iterator[ast.FunctionDef]:
    """The functions of a name in a file, below the class ``owner`` where one is given."""
    tree: ast.AST = ast.parse(file.read_text())
    if owner:
        tree = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == owner)
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def load(body: list[ast.stmt], space: dict[str, Any]) -> dict[str, Any]:
    """Run statements in a namespace."""
    for node in body:
        for part in ast.walk(node):
            if isinstance(part, ast.FunctionDef):
                part.decorator_list = []
                part.returns = None
                for argument in [*part.args.args, *part.args.kwonlyargs]:
                    argument.annotation = None
    exec(compile(ast.fix_missing_locations(ast.Module(body, [])), str(TREE), "exec"), space)
    return space


class Gpu:
    """A device as torch, NVML and vLLM's platform see it."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self.capability = capability
        self.integrated = capability in UNIFIED
        self.torch = standins.Anything("torch")
        self.torch.cuda.mem_get_info = lambda *_: (1, 100)
        self.torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(
            is_integrated=int(self.integrated), total_memory=64
        )
        for part in (self.torch.cuda, self.torch.accelerator):
            part.memory_stats = lambda *_: {}
            part.memory_reserved = lambda *_: 0
            part.get_memory_info = lambda *_: (1, 100)
            part.current_device = part.current_device_index = lambda *_: 0
        self.platform = types.SimpleNamespace(
            is_cuda=lambda: True,
            is_cuda_alike=lambda: True,
            is_rocm=lambda: False,
            get_device_capability=lambda *_: self.capability,
            is_integrated_gpu=lambda *_: self.integrated,
            mem_get_info=lambda *_: (1, 100),
            memory_stats=lambda *_: {},
            memory_reserved=lambda *_: 0,
        )

    def answer(self) -> None:
        """Be the device of whoever imports vllm.platforms."""
        sys.modules["vllm.platforms"].current_platform = self.platform  # type: ignore[attr-defined]


def total_memory() -> dict[str, Any]:
    """NvmlCudaPlatform.get_device_total_memory, where NVML knows it and where it does not."""
    node = next(functions(TREE / "vllm/platforms/cuda.py", "get_device_total_memory", "NvmlCudaPlatform"))
    pynvml = standins.Anything("pynvml")
    pynvml.NVMLError = NVMLError
    space = load([node], {"pynvml": pynvml, "torch": Gpu((11, 0)).torch})
    for name in ("vllm.utils", "vllm.utils.platform_utils", "vllm.utils.torch_utils"):
        sys.modules[name].cuda_get_device_properties = lambda *_, **__: (64,)  # type: ignore[attr-defined]
    space["cuda_get_device_properties"] = lambda *_, **__: (64,)
    platform = types.SimpleNamespace(device_id_to_physical_device_id=lambda number: number)

    def not_supported(_: Any) -> Any:
        raise NVMLError("Not Supported")

    answers: dict[str, Any] = {}
    for question, told in (
        ("told by NVML", lambda _: types.SimpleNamespace(total=77)),
        ("not", not_supported),
    ):
        pynvml.nvmlDeviceGetMemoryInfo = told
        answers[question] = ask(space["get_device_total_memory"], platform, 0)
    return answers


def free_memory() -> dict[str, Any]:
    """MemorySnapshot.measure: what it takes for free, where 1 byte is free for CUDA and 42 are available."""
    file = TREE / "vllm/utils/mem_utils.py"
    file = file if file.exists() else TREE / "vllm/utils/__init__.py"
    node = next(functions(file, "measure", "MemorySnapshot"))
    answers: dict[str, Any] = {}
    for capability in (*UNIFIED, *DISCRETE):
        gpu = Gpu(capability)
        gpu.answer()
        space = load(
            [node],
            {
                "torch": gpu.torch,
                "current_platform": gpu.platform,
                "psutil": types.SimpleNamespace(virtual_memory=lambda: types.SimpleNamespace(available=42)),
                "time": standins.Anything("time"),
            },
        )
        snapshot = types.SimpleNamespace(device_=types.SimpleNamespace(index=0), device=0)
        failed = ask(space["measure"], snapshot)
        answers[str(capability)] = failed or snapshot.free_memory
    return answers


def profiling() -> dict[str, Any]:
    """The worker's check that free memory did not grow while it was measured."""
    function = next(functions(TREE / "vllm/v1/worker/gpu_worker.py", "determine_available_memory", "Worker"))
    marked = [n for n, part in enumerate(function.body) if "Error in memory profiling" in ast.unparse(part)]
    named = [
        n
        for n, part in enumerate(function.body)
        if isinstance(part, ast.Assign)
        and ast.unparse(part.targets[0]) in ("free_gpu_memory", "init_free_memory")
    ]
    body = function.body[min(named) : max(marked) + 1]
    answers: dict[str, Any] = {}
    for capability in ((11, 0), (9, 0)):
        for word, after in (("grew", 9), ("shrank", 3)):
            gpu = Gpu(capability)
            warnings: list[Any] = []
            space: dict[str, Any] = {
                "torch": gpu.torch,
                "current_platform": gpu.platform,
                "logger": types.SimpleNamespace(warning=lambda *w, into=warnings: into.append(w[0] % w[1:])),
                "maybe_rocm_profiling_fallback": lambda _: None,
                "GiB": str,
                "format_gib": str,
                "self": types.SimpleNamespace(init_snapshot=types.SimpleNamespace(free_memory=5), device=0),
                "profile_result": types.SimpleNamespace(
                    after_profile=types.SimpleNamespace(free_memory=after)
                ),
            }
            said = ask(load, body, space)
            answers[f"{capability} {word}"] = (
                said if isinstance(said, str) else ("warned" if warnings else "quiet")
            )
    return answers


def ask(question: Callable[..., Any], *words: Any) -> Any:
    """An answer, or the error in its place."""
    try:
        return question(*words)
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"


def main() -> None:
    """Print the answers."""
    standins.install("vllm")
    for name in ("platforms", "utils", "utils.platform_utils", "utils.torch_utils"):
        __import__(f"vllm.{name}")
    parts = {"total": total_memory, "free": free_memory, "profiling": profiling}
    print(json.dumps(parts[sys.argv[2]]()))


main()
