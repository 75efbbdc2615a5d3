"""Really import modules, one after the other, and write down what each one met.

This file is run by the Python of the environment that is tried, as a script: it uses the standard library
only. Its one argument is a JSON file: see `main`. One line of JSON is written per module, as soon as it is
known, so that a crash shows which module it was.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
import traceback
import types
import warnings
from collections.abc import Iterator
from typing import Any


class StandIn(types.ModuleType):
    """A compiled module that is not there: any name can be imported from it, nothing can be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def stand_in(*args: object, **kwargs: object) -> None:
            raise RuntimeError(f"{self.__name__}.{name} is a stand-in")

        return stand_in


class Products(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what the builds of vLLM and of the package make, where their trees do not hold it."""

    def __init__(self, names: list[str], versions: dict[str, str]) -> None:
        self.names, self.versions = tuple(names), versions

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if any(name == known or name.startswith(known + ".") for known in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = StandIn(spec.name)
        module.__file__ = f"<stand-in for {spec.name}>"
        package, _, last = spec.name.partition(".")
        if last == "_version" and package in self.versions:
            version = self.versions[package]
            parts = tuple(int(p) if p.isdigit() else p for p in version.split("+")[0].split("."))
            vars(module).update(__version__=version, version=version)
            vars(module).update(__version_tuple__=parts, version_tuple=parts)
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return


class TooLong(BaseException):
    """A module took longer than its limit."""


def main() -> None:
    """The job: ``paths`` to search first, ``products`` to stand in for, ``versions`` by package,
    ``modules`` to import in this order, ``package`` they belong to, ``seconds`` for each, ``out`` to write to."""
    with open(sys.argv[1], encoding="utf-8") as stream:  # noqa: PTH123  (a script of its own)
        job = json.load(stream)
    warnings.simplefilter("ignore")
    sys.path[:0] = job["paths"]
    if job["products"]:
        sys.meta_path.append(Products(job["products"], job["versions"]))
        _stand_in_operators()
    signal.signal(signal.SIGALRM, _too_long)
    with open(job["out"], "a", encoding="utf-8") as out:  # noqa: PTH123
        for line in _imports(job):
            out.write(json.dumps(line) + "\n")
            out.flush()
    os._exit(0)  # threads that an import has started are not waited for


def _imports(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    package = job["package"]
    for module in job["modules"]:
        yield {"begin": module}
        line = attempt(module, job["seconds"])
        yield line
        if module == package and line["error"]:
            _shell(package, job["paths"])


def attempt(module: str, seconds: int) -> dict[str, Any]:
    """Import one module."""
    started = time.monotonic()
    failure: dict[str, Any] = {"error": None}
    signal.alarm(seconds)
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a module may call sys.exit
        failure = describe(error, module.partition(".")[0])
    finally:
        signal.alarm(0)
    return {"module": module, "seconds": round(time.monotonic() - started, 3), **failure}


def describe(error: BaseException, package: str) -> dict[str, Any]:
    """Class, text and place of an exception; of its causes the first."""
    hook = getattr(builtins.__import__, "__code__", None)  # a package may have put its own there
    walked = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    frames = [
        [code.co_filename, line]
        for code, line in walked
        if "importlib" not in code.co_filename and code.co_filename != __file__ and code is not hook
    ]
    return {
        "error": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "message": str(error)[:600],
        "name": getattr(error, "name", None) if isinstance(error, ImportError) else None,
        "frames": frames[-12:],
        "uses": _uses(error, package),
    }


def _uses(error: BaseException, package: str) -> list[str]:
    """Packages that the code which failed has something of, by the names in it: the last function of the package
    itself, and what it called."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [i for i, frame in enumerate(frames) if f"/{package}/" in frame.f_code.co_filename]
    tops: set[str] = set()
    for frame in frames[own[-1] if own else -1 :]:
        code, found = frame.f_code, {**frame.f_globals, **frame.f_locals}
        names = {*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars}
        for value in [found[name] for name in names if name in found]:
            kinds = value.__mro__ if isinstance(value, type) else (value, *type(value).__mro__)
            modules: list[object] = [vars(kind).get("__module__") for kind in kinds if isinstance(kind, type)]
            if isinstance(value, (types.ModuleType, types.FunctionType)):
                modules.append(value.__name__ if isinstance(value, types.ModuleType) else value.__module__)
            tops.update(module.partition(".")[0] for module in modules if isinstance(module, str))
    return sorted(tops)


def _shell(package: str, paths: list[str]) -> None:
    """After a package failed: let its modules be found without running its ``__init__``."""
    for base in [*paths, *sys.path]:
        folder = os.path.join(base, package)  # noqa: PTH118
        if os.path.isdir(folder):  # noqa: PTH112
            module = types.ModuleType(package)
            module.__path__ = [folder]
            sys.modules[package] = module
            return


def _stand_in_operators() -> None:
    """Compiled functions that another build of torch has: a torchvision built for CUDA registers its operators
    in a library that a CPU torch cannot load, and an older vLLM asks a newer torch for a function it lost."""
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return
    if not hasattr(torch._C._cpu, "_is_avx512_supported"):
        torch._C._cpu._is_avx512_supported = lambda: False
    try:
        import torchvision  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except (ImportError, RuntimeError):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        globals()["_kept"] = library


def _too_long(number: int, frame: object) -> None:
    raise TooLong("the import took too long")


if __name__ == "__main__":
    main()
