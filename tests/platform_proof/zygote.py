"""Run the platform detection of vLLM trees in many situations: one process imports torch, each tree is a fork of
it, and each situation imports the modules of the detection again. Reads JSON from the file in argv[1]; prints a
JSON line for each situation.

The code under test is the trees' own ``vllm.platforms`` and ``DeviceConfig``. Stand-ins are only: vLLM's compiled
modules (empty; nothing of them is called), names for annotations and isinstance that 0.10.2 and 0.11.0 import from
transformers and ``vllm.inputs`` (which import half of vLLM), and the package ``vllm.config`` (so does its
__init__; the module below it that has DeviceConfig is the real one).
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMPILED = ("_C", "_C_stable_libtorch", "_moe_C", "_moe_C_stable_libtorch", "_rocm_C")
NAMES: dict[str, tuple[str, ...]] = {
    "transformers": (),
    "transformers.tokenization_utils_base": ("BatchEncoding",),
    "vllm.inputs": ("ProcessorInputs", "PromptType"),
}
WARM = (
    "numpy",
    "pydantic.dataclasses",
    "torch",
    "torch._dynamo",
    "torch._inductor.config",
    "torch._inductor.graph",
    "torch._inductor.codegen.wrapper",
    "torch._inductor.scheduler",
    "torch._functorch.config",
    "torch.library",
)
"""What the trees import of others: done once."""


def in_child(work: Callable[[], None]) -> None:
    """Do something in a fork, and wait for it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:  # the parent sees no line and reports the cell as missing
            print(json.dumps({"fault": f"{type(error).__name__}: {error}"}))
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.waitpid(child, 0)


def device_config(tree: Path) -> Any:
    """The tree's DeviceConfig, from the module it is defined in."""
    package = types.ModuleType("vllm.config")
    package.__path__ = [str(tree / "vllm/config")]
    sys.modules["vllm.config"] = package
    if (tree / "vllm/config/device.py").exists():
        return importlib.import_module("vllm.config.device").DeviceConfig
    # 0.10.2 has it in vllm/config/__init__.py: its class statement, as it stands there
    source = ast.parse((tree / "vllm/config/__init__.py").read_text())
    node = next(
        part for part in source.body if isinstance(part, ast.ClassDef) and part.name == "DeviceConfig"
    )
    for module, names in (
        ("dataclasses", ("field",)),
        ("pydantic", ("ConfigDict", "SkipValidation")),
        ("pydantic.dataclasses", ("dataclass",)),
        ("typing", ("Any", "Literal", "Optional", "Union")),
    ):
        package.__dict__.update({name: getattr(importlib.import_module(module), name) for name in names})
    package.__dict__.update(
        {
            "torch": importlib.import_module("torch"),
            "hashlib": hashlib,
            "Device": str,
            "config": lambda cls: cls,
        }
    )
    exec(compile(ast.Module([node], []), "vllm/config/__init__.py", "exec"), package.__dict__)
    return package.__dict__["DeviceConfig"]


def one_tree(tree: Path, situations: list[dict[str, Any]], label: str) -> None:
    """All situations on one tree."""
    os.environ["ARMORY_NVML"] = ""
    sys.path.insert(0, str(tree))
    for module, names in NAMES.items():
        sys.modules[module] = types.ModuleType(module)
        sys.modules[module].__dict__.update({name: type(name, (), {}) for name in names})
    for name in COMPILED:
        sys.modules[f"vllm.{name}"] = types.ModuleType(f"vllm.{name}")
    config = device_config(tree)
    for situation in situations:
        print(json.dumps({"tree": label} | cell(situation, config)))


def cell(situation: dict[str, Any], config: Any) -> dict[str, Any]:
    """What the tree decides in one situation, with nothing left of the one before."""
    for name in [name for name in sys.modules if name.startswith("vllm.platforms")]:
        del sys.modules[name]
    pynvml = sys.modules.get("vllm.third_party.pynvml")
    if pynvml is not None:  # as it is before the first nvmlInit
        pynvml.__dict__.update(nvmlLib=None, _nvmlLib_refcount=0)
        pynvml.__dict__["_nvmlGetFunctionPointer_cache"].clear()
    os.environ.update(situation["environment"])
    site = [situation["metadata"]] if situation["metadata"] else []
    sys.path[:0] = site
    importlib.invalidate_caches()
    try:
        return {"situation": situation["name"]} | decide(config)
    finally:
        del sys.path[: len(site)]


def decide(config: Any) -> dict[str, Any]:
    """The platform that is detected, and whether an engine would start on it."""
    try:
        platform = importlib.import_module("vllm.platforms").current_platform
    except Exception as error:
        return {"class": "", "error": f"{type(error).__name__}: {error}"}
    answer = {"class": type(platform).__name__, "device_type": platform.device_type, "engine": "starts"}
    try:
        config(device=platform.device_type)  # as EngineArgs does
    except Exception as error:
        answer["engine"] = f"{type(error).__name__}: {error}"
    return answer


def main() -> None:
    """Read the work, do it."""
    work = json.loads(Path(sys.argv[1]).read_text())
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for label, tree in work["trees"].items():
        in_child(functools.partial(one_tree, Path(tree), work["situations"], label))


main()
