"""The canary: a tiny CUDA extension built as the big build will be, before an hour is spent.

It is a scikit-build-core project (``build_recipes/canary``) with one CUDA kernel and one torch op. It is built
without isolation, in exactly the environment, with the Python, toolchain file and architecture of the plan, so
it fails for the reasons the big build would: toolkit, host compiler, Python headers, torch's headers and ABI,
architecture. Its device code is then looked at, and on this machine's own CPU the module is loaded; where there
is a GPU the kernel runs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_recipes.diagnosis.diagnose import Diagnosis, diagnose_file
from build_recipes.formats import fatbin
from build_recipes.formats.elf import mapped
from build_recipes.kit import process
from build_recipes.kit.once import remove_tree

PROJECT = Path(__file__).resolve().with_name("project")
SECONDS = 600.0
"""After this time a canary has failed."""

_BUILD = """
import json, sys
job = json.loads(sys.argv[1])
sys.path.append(job["fallback"])  # scikit-build-core, where this Python has none of its own
from scikit_build_core.build import build_wheel
build_wheel(job["wheel"], job["settings"])
"""

_TRY = """
import ctypes, json, sys
module, number, with_torch = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "torch"
if with_torch:
    import torch
    torch.ops.load_library(module)
library = ctypes.CDLL(module)
library.canary_error.restype = ctypes.c_char_p
try:
    ctypes.CDLL("libcuda.so.1")
    driver = True
except OSError:
    driver = False
here = library.canary_capability()
if here == -100 or (here == -35 and not driver):
    why = "no GPU is visible" if driver else "there is no driver"
elif here > 0 and here != number:
    why = f"the GPU here is another one, sm_{here}"
else:
    why = ""
    code = -here if here < 0 else library.canary_run()
    if code:
        print("RuntimeError: CUDA error: " + library.canary_error(code).decode())
        sys.exit(1)
    if with_torch:
        ones = torch.ones(256, dtype=torch.bfloat16, device="cuda")
        assert torch.ops.armory_canary.sum(ones).item() == 256, "the op gave a wrong sum"
print("canary " + json.dumps({"loaded": True, "ran": not why, "why": why}))
"""
"""cudaErrorInsufficientDriver (35) is also what a machine without any driver says; 100 is cudaErrorNoDevice."""


@dataclass(frozen=True)
class CanaryResult:
    """How the canary did."""

    ok: bool
    seconds: float
    """Wall time of the whole try."""
    log: Path
    """Everything that CMake, the compilers and the module said."""
    diagnosis: Diagnosis
    """What the log says went wrong."""
    ran: bool
    """Whether the kernel ran on a GPU."""
    loaded: bool = False
    """Whether the module was loaded into the plan's Python (never in a cross build)."""
    torch: bool = False
    """Whether the torch op was part of it."""
    code: tuple[str, ...] = ()
    """Device code in the module: ``sm_110``."""
    why: str = ""
    """What is wrong; where all is well, why the kernel did not run."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "ok": self.ok,
            "seconds": self.seconds,
            "log": str(self.log),
            "ran": self.ran,
            "loaded": self.loaded,
            "torch": self.torch,
            "code": list(self.code),
            "why": self.why,
            "diagnosis": self.diagnosis.as_dict(),
        }


def run_canary(
    environment: Mapping[str, str],
    *,
    python: Path,
    cmake_args: Sequence[str],
    work: Path,
    arch: str,
    toolchain_file: Path | None,
    torch: bool = True,
) -> CanaryResult:
    """Build the canary, look at what came out, and run it where that is possible.

    :param environment: the whole environment of the build.
    :param python: interpreter of the build environment; its torch is built against.
    :param cmake_args: further arguments for CMake, as the build gives them.
    :param work: folder for everything that is written; kept, so that a failure can be looked at.
    :param arch: architecture as TORCH_CUDA_ARCH_LIST has it: ``11.0``.
    :param toolchain_file: CMake's toolchain file of a cross build; then nothing is loaded.
    :param torch: whether the torch op is part of it; vLLM's build always needs torch.
    """
    started = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    (work / "canary.log").unlink(missing_ok=True)
    cage = _Cage(
        dict(environment), python, tuple(cmake_args), work, arch.replace(".", ""), toolchain_file, torch
    )
    code: tuple[str, ...] = ()
    answer: dict[str, Any] = {}
    why = _build(cage)
    if not why:
        module = _module(work)
        code = device_code(module)
        why = _wrong_code(module, code, cage)
        if not why and toolchain_file is None:
            answer, why = _try(cage, module)
        elif not why:
            answer = {"why": "a cross build is not loaded here"}
    return CanaryResult(
        ok=not why,
        seconds=round(time.monotonic() - started, 2),
        log=cage.log,
        diagnosis=diagnose_file(cage.log),
        ran=bool(answer.get("ran")),
        loaded=bool(answer.get("loaded")),
        torch=torch,
        code=code,
        why=why or str(answer.get("why", "")),
    )


@dataclass(frozen=True)
class _Cage:
    """What one try is made of."""

    environment: dict[str, str]
    python: Path
    cmake_args: tuple[str, ...]
    work: Path
    number: str
    toolchain_file: Path | None
    torch: bool

    @property
    def log(self) -> Path:
        return self.work / "canary.log"


def _build(cage: _Cage) -> str:
    """Build the wheel. An empty text, or why it failed."""
    import scikit_build_core

    arguments = [
        f"-DCANARY_ARCH={cage.number}",
        f"-DCANARY_TORCH={'ON' if cage.torch else 'OFF'}",
        *([f"-DCMAKE_TOOLCHAIN_FILE={cage.toolchain_file}"] if cage.toolchain_file else []),
        *cage.cmake_args,
    ]
    build = cage.work / "build"
    remove_tree(build)  # nothing of an earlier toolchain may stand in for this one
    job = {
        "wheel": str(cage.work / "wheel"),
        "settings": {"build-dir": str(build), "cmake.args": arguments, "build.verbose": "true"},
        "fallback": str(Path(scikit_build_core.__file__).parent.parent),
    }
    try:
        done = process.run(
            [cage.python, "-c", _BUILD, json.dumps(job)],
            cwd=PROJECT,
            env=cage.environment,
            log=cage.log,
            deadline=time.monotonic() + SECONDS,
        )
    except TimeoutError:
        return f"it was not built after {SECONDS:.0f} seconds"
    return "" if done.ok else "it could not be built"


def _module(work: Path) -> Path:
    return next(iter((work / "build").rglob("_canary*.so")))


def device_code(module: Path) -> tuple[str, ...]:
    """Names of the device code in a shared library, ``sm_110`` or ``compute_80``, sorted."""
    with mapped(module) as elf:
        return tuple(sorted({entry.name for entry in fatbin.read(elf)}))


def _wrong_code(module: Path, code: tuple[str, ...], cage: _Cage) -> str:
    """Why the module is not what was asked for, or an empty text."""
    if code != (f"sm_{cage.number}",):
        return f"its device code is for {', '.join(code) or 'nothing'}; asked for was sm_{cage.number}"
    if cage.toolchain_file is None:
        return ""
    asked = re.search(r"CMAKE_SYSTEM_PROCESSOR\s+(\w+)", cage.toolchain_file.read_text(encoding="utf-8"))
    with mapped(module) as elf:
        if asked and elf.machine != asked.group(1):
            return f"it is for the CPU {elf.machine}, not for {asked.group(1)}"
    return ""


def _try(cage: _Cage, module: Path) -> tuple[dict[str, Any], str]:
    """Load the module into the plan's Python and run its kernel if there is a GPU."""
    done = process.run(
        [cage.python, "-c", _TRY, module, cage.number, "torch" if cage.torch else "plain"],
        cwd=module.parent,
        env=cage.environment,
        log=cage.log,
    )
    if not done.ok:
        return {}, "it was built but does not load or run"
    line = next(text for text in reversed(done.tail) if text.startswith("canary "))
    answer: dict[str, Any] = json.loads(line.removeprefix("canary "))
    return answer, ""
