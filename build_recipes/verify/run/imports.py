"""The import tier: really import every module of a package in an environment, and say whose fault a failure is."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from build_recipes.kit import console, process
from build_recipes.kit.console import counted
from build_recipes.kit.data import parse_json
from build_recipes.kit.errors import CouldNotCheck
from build_recipes.verify.read.tree import VLLM, Tree
from build_recipes.verify.run import probe

BY_VLLM, BY_OTHER, BY_OMNI, BY_ENVIRONMENT = "vllm", "other-dependency", "own-bug", "environment"

MODULE_SECONDS = 300
"""Limit for one module."""

_NO_NAME = re.compile(r"cannot import name '(\w+)' from (?:partially initialized module )?'([\w.]+)'")
_NO_ATTRIBUTE = re.compile(r"(?:module|type object|class) '([\w.]+)' has no attribute '(\w+)'")
_MACHINE = re.compile(
    r"CUDA|NVML|libcuda|\.so\b|HIP|XPU|[Dd]evice|GLIBC|operator \w+::\w+ does not exist|is a stand-in|No such file"
)
_PATH = re.compile(r"(?<![\w.])/(?:[^\s/:'\"()]+/)+([^\s/:'\"()]+)")
"""An absolute path in a message: it says more of the machine than of the failure."""
_FIT = re.compile(
    r"argument|keyword|metaclass|conflict|follow|unexpected|field|base|override|annotation|takes|missing"
)
"""What Python says of a class or a call that does not fit together."""
_PLATFORMS = frozenset(
    {
        "vllm_ascend",
        "vllm_xpu_kernels",
        "vllm_musa",
        "torch_npu",
        "torch_musa",
        "amdsmi",
        "intel_extension_for_pytorch",
    }
)


class Failure(msgspec.Struct, frozen=True):
    """A module that did not import."""

    module: str
    fault: str
    """``vllm``, ``other-dependency``, ``own-bug`` or ``environment``."""
    error: str
    message: str
    file: str
    """The last file of the package in the traceback, and its line."""
    line: int
    asked: str = ""
    """For a name that is missing: ``module.name``, or the module."""


class Imports(msgspec.Struct):
    """What a run of the import tier found."""

    tier: str
    """``run`` or ``stub``."""
    modules: int
    seconds: float
    failures: list[Failure]


@dataclass(frozen=True)
class Job:
    """One run: a Python, what it finds first, and the modules it tries."""

    tier: str
    python: Path
    paths: list[Path]
    modules: list[str]
    products: list[str]
    """What their builds would make."""
    versions: dict[str, str]
    """Of vLLM and the package, by module."""
    package: str
    """The package they belong to."""
    work: Path
    """A folder for the job and its log."""
    limit: float
    """Seconds for all of it."""


def import_all(job: Job) -> Imports:
    """Import the modules of a job in a process of its own; a crash costs the module it happened in.

    :raises CouldNotCheck: the environment's Python cannot be run, or the time is up.
    """
    started = time.monotonic()
    out, log = job.work / "imports.jsonl", job.work / "imports.log"
    out.unlink(missing_ok=True)
    left = list(job.modules)
    crashed: list[Failure] = []
    while left:
        task = {
            "paths": [str(path) for path in job.paths],
            "products": job.products,
            "versions": job.versions,
            "package": job.package,
            "modules": left,
            "seconds": MODULE_SECONDS,
            "out": str(out),
        }
        (job.work / "job.json").write_text(json.dumps(task))
        # -I: neither this folder nor PYTHON* variables may stand in the way of what is tried
        command: list[str | Path] = [
            job.python,
            "-I",
            "-X",
            "faulthandler",
            probe.__file__,
            job.work / "job.json",
        ]
        try:
            ended = process.run(command, env=_environment(), log=log, deadline=started + job.limit)
        except TimeoutError as error:
            raise CouldNotCheck(
                f"the imports took longer than {job.limit:.0f} s", f"read {log}, or give --limit"
            ) from error
        except OSError as error:
            raise CouldNotCheck(f"{job.python} cannot be run: {error}", "give another --env") from error
        begun, done = _progress(out)
        if begun == done:
            if ended.ok:
                break
            raise CouldNotCheck(
                f"the imports ended with {ended.returncode}: {' | '.join(ended.tail[-3:])}", f"read {log}"
            )
        module = begun[-1]
        crashed.append(
            Failure(module, BY_ENVIRONMENT, "crash", f"exit {ended.returncode}: {ended.tail[-1:]}", "", 0)
        )
        with out.open("a") as stream:
            stream.write(json.dumps({"module": module, "error": None}) + "\n")
        left = left[left.index(module) + 1 :]
    failures = [failure for line in _lines(out) if (failure := judge_failure(line, job.package)) is not None]
    return Imports(job.tier, len(job.modules), round(time.monotonic() - started, 1), failures + crashed)


def judge_failure(line: dict[str, object], package: str) -> Failure | None:
    """Say whose fault one line of the probe is; None where the import went well or the line is no result."""
    if not line.get("error"):
        return None
    frames = [(str(name), int(number)) for name, number in line.get("frames") or []]  # type: ignore[attr-defined]
    own = [
        (name[name.rindex(f"/{package}/") + 1 :], number) for name, number in frames if f"/{package}/" in name
    ]
    fault, asked = _fault(line, frames, package)
    file, number = own[-1] if own else ("", 0)
    return Failure(
        module=str(line["module"]),
        fault=fault,
        error=str(line["error"]),
        message=_PATH.sub(r"\1", str(line["message"])),
        file=file,
        line=number,
        asked=asked,
    )


def _fault(line: dict[str, object], frames: list[tuple[str, int]], package: str) -> tuple[str, str]:
    message, error = str(line["message"]), str(line["error"])
    bases = line.get("bases") or [error]
    missing = _NO_NAME.search(message)
    if missing:
        return _owner(missing[2], package), f"{missing[2]}.{missing[1]}"
    if error == "ModuleNotFoundError" and line.get("name"):
        name = str(line["name"])
        return _owner(name, package), name
    if error in ("TooLong", "OSError", "MemoryError", "NotImplementedError") or _MACHINE.search(message):
        return BY_ENVIRONMENT, ""
    absent = _NO_ATTRIBUTE.search(message)
    if absent:
        named = "." in absent[1] or absent[0].startswith("module")  # a class is told by its last name alone
        return _owner(absent[1], package) if named else BY_VLLM, f"{absent[1]}.{absent[2]}"
    last = max((i for i, (name, _) in enumerate(frames) if f"/{package}/" in name), default=-1)
    beyond = [name for name, _ in frames[last + 1 :]]
    if any("/vllm/" in name for name in beyond):
        return BY_VLLM, ""
    if isinstance(bases, list) and "ImportError" in bases:
        return BY_OTHER, ""
    fits_not = error in ("KeyError", "AttributeError") or (error == "TypeError" and _FIT.search(message))
    made_of_it = VLLM in line.get("uses", [VLLM])  # type: ignore[operator]
    if fits_not and made_of_it and all("dataclasses" in name or "/pydantic/" in name for name in beyond):
        return BY_VLLM, ""  # a class or a call made of vLLM's parts that does not fit them any more
    if error == "TypeError" and not beyond and "NoneType" in message:
        return BY_ENVIRONMENT, ""  # what a machine without a GPU has as None
    return (BY_OTHER if beyond else BY_OMNI), ""


def _owner(module: str, package: str) -> str:
    top = module.partition(".")[0]
    if top in _PLATFORMS and top != package:
        return BY_ENVIRONMENT
    return {VLLM: BY_VLLM, package: BY_OMNI}.get(top, BY_OTHER)


def _environment() -> dict[str, str]:
    return process.child_environment(
        prefixes=("PYTHON", "VLLM_ARMORY"),
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_NO_USAGE_STATS="1",
        DO_NOT_TRACK="1",
        HF_HUB_OFFLINE="1",
        PYTHONDONTWRITEBYTECODE="1",
    )


def _lines(path: Path) -> list[dict[str, object]]:
    return [parse_json(line) for line in path.read_text().splitlines()] if path.exists() else []


def _progress(path: Path) -> tuple[list[str], list[str]]:
    lines = _lines(path)
    return [str(e["begin"]) for e in lines if "begin" in e], [
        str(e["module"]) for e in lines if "module" in e
    ]


def modules_in_order(omni: Tree, first: list[str]) -> list[str]:
    """The package, its entry points, then every submodule; ``__main__`` is no import."""
    every = [name for name, path in sorted(omni.modules.items()) if path]
    ordered = dict.fromkeys([omni.package, *(name for name in first if name in omni.modules), *every])
    return [name for name in ordered if not name.endswith(("__main__", ".setup"))]


def show(found: Imports) -> None:
    """What was found, for people."""
    console.paragraph(
        f"{counted(found.modules, 'module')} imported in {console.duration(found.seconds)}, "
        f"{len(found.failures)} failed",
        style="bold",
    )
    for fault in (BY_VLLM, BY_OMNI, BY_OTHER, BY_ENVIRONMENT):
        rows = [f for f in found.failures if f.fault == fault]
        causes = {
            (f.asked or f.message.splitlines()[0][:90] if f.message else f.error, f"{f.file}:{f.line}")
            for f in rows
        }
        if rows:
            console.paragraph(f"{fault}: {counted(len(rows), 'module')}, {counted(len(causes), 'cause')}")
            for what, where in sorted(causes)[:8]:
                console.paragraph(f"{what}  ({where})", indent="    ")
