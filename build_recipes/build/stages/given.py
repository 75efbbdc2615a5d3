"""What a user gives in place of the lock's: a CUDA toolkit, a torch. Looked at before anything is fetched."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from pathlib import Path

from packaging.version import Version

from build_recipes.build.plan import Plan, gcc_of
from build_recipes.facts.versions import facts
from build_recipes.formats import abi
from build_recipes.kit import process
from build_recipes.kit.console import warn
from build_recipes.kit.data import parse_python
from build_recipes.kit.errors import CpuTorch, ToolchainMismatch, ToolFailed, TorchCudaMismatch, UsageError
from build_recipes.toolchain import compilers, cuda, sysroot


def check_given(plan: Plan) -> None:
    """Refuse a toolkit or a torch that the build would refuse after it has fetched gigabytes.

    :raises ToolchainMismatch: CUDA_HOME or ``--cuda`` is no toolkit that fits, or no C++ compiler fits.
    :raises CpuTorch: ``--torch existing`` has no CUDA.
    :raises TorchCudaMismatch: it was built for another CUDA major.
    :raises UsageError: a cross build takes neither.
    """
    compiler = host_compiler(plan)
    if compiler and (told := newer_library(plan, compiler)):
        warn(f"{compiler.cxx} {compiler.version}: {told}")
    toolkit = facts().cuda_toolkit.version
    if plan.cross:
        if plan.request.cuda not in ("", "wheels"):
            raise UsageError(
                "a cross build needs the target's CUDA libraries beside the host's nvcc, and assembles both "
                "from wheels",
                "leave --cuda out",
            )
        if plan.torch_existing:
            raise UsageError(
                "--torch existing is a torch of this machine, which is not the device", "leave --torch out"
            )
        return
    given = plan.request.cuda or os.environ.get("CUDA_HOME", "")
    if given and given != "wheels":
        toolkit = cuda.nvcc_version(Path(given) / "bin/nvcc")
        cuda.check_version(toolkit, plan.device.cuda, Path(given))
    if plan.torch_existing:
        said = declared(existing_torch(plan))
        if said:
            check_torch(said[1], said[0], toolkit)


def host_compiler(plan: Plan) -> compilers.Compiler | None:
    """The C++ compiler of a build, as the tag, what the device compiles of it, and nvcc want it; None where the
    machine has none. ``--allow gcc`` takes the default one, whatever it is.

    :raises ToolchainMismatch: none that it has fits; the advice names a package of this distribution, if it has one.
    """
    oldest, why, needed = gcc_of(plan)
    wanted = compilers.Wanted(
        plan.device.machine, plan.cross, oldest, f"{why} of {plan.tag}", facts().cuda_toolkit.newest_gcc
    )
    if "gcc" in plan.request.allow:
        return next(compilers.there(wanted.prefix), None)
    try:
        return compilers.choose(wanted)
    except ToolchainMismatch as error:
        if not needed:
            raise
        out = ",".join([*plan.request.without, *needed])
        raise ToolchainMismatch(
            error.args[0],
            f"{error.advice}; or leave out what asks for it, which makes the wheel a partial one: --without {out}",
        ) from None


def newer_library(plan: Plan, compiler: compilers.Compiler) -> str:
    """What is said where a compiler's C++ library has symbols that the device's system lacks; empty where it has not.

    A manylinux tag says which it allows (abi.toml); the audit finds them when everything is compiled.
    """
    tags = [tag for tag in abi.system().tag if abi.version(tag.glibc) <= plan.promised_glibc]
    has, newest = abi.version(tags[-1].GLIBCXX), compilers.newest_symbols(compiler)
    if newest <= has:
        return ""
    own, there = (".".join(map(str, one)) for one in (newest, has))
    return (
        f"its C++ library has symbols up to GLIBCXX_{own}, {plan.device_name}'s system up to {there}: where a module "
        "takes a newer one, the audit refuses the wheel"
    )


def bound_compiler(plan: Plan) -> compilers.Compiler | None:
    """`host_compiler`, bound to the plan's sysroot where it has one: programs in the tree that call it."""
    found = host_compiler(plan)
    return sysroot.bind(found, plan.sysroot, plan.tree / "sysroot") if found and plan.sysroot else found


def declared(torch: Path) -> tuple[str, str] | None:
    """Version and CUDA version that a torch package's ``version.py`` declares; torch is not imported.

    :returns: None where the file says neither; the build asks torch itself later.
    """
    try:
        tree = parse_python((torch / "version.py").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    values: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Constant):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    values[target.id] = str(node.value.value)
    return (values["__version__"], values["cuda"]) if {"__version__", "cuda"} <= values.keys() else None


def existing_torch(plan: Plan) -> Path:
    """torch of a Python that is already there: ``existing:PYTHON``, or the python3 that ``PATH`` names.

    :raises CpuTorch: it has no torch.
    :raises UsageError: it is no Python of the minor version that runs this program.
    """
    _, _, given = plan.request.torch.partition(":")
    finder = given or shutil.which("python3", path=path_without_tool()) or "python3"
    code = (
        "import sys, importlib.util as u; s = u.find_spec('torch'); "
        "print(*sys.version_info[:2], s.origin if s else '', sep='\\n')"
    )
    try:
        major, minor, origin = f"{process.capture([finder, '-c', code])}\n".split("\n")[:3]
    except (ValueError, ToolFailed) as error:
        raise UsageError(
            f"--torch {plan.request.torch}: {finder} does not run: {error.args[0]}", "name a Python"
        ) from None
    if not origin:
        raise CpuTorch(
            f"--torch existing: {finder} has no torch",
            "leave --torch out, or name its Python: --torch existing:/path/to/python3",
        )
    if (int(major), int(minor)) != plan.host.python:
        raise UsageError(
            f"--torch existing: {finder} is Python {major}.{minor}, "
            f"this program runs under {plan.host.python[0]}.{plan.host.python[1]}",
            f"run it under that one: rm -r .venv; {finder} ./inv ...",
        )
    return Path(origin).parent


def check_torch(torch_cuda: str, torch_version: str, toolkit_version: str) -> None:
    """The assertion before anything compiles: CUDA torch, and the toolkit's major.

    :raises CpuTorch: ``torch.version.cuda`` is None.
    :raises TorchCudaMismatch: another major.
    """
    if torch_cuda in {"", "None"}:
        raise CpuTorch(
            f"torch {torch_version} in the build environment has no CUDA (torch.version.cuda is None): vLLM's "
            "setup.py would stop with 'Unknown runtime environment' or build a CPU wheel",
            "leave --torch out, so that the lock's CUDA torch is used",
        )
    has, wants = Version(toolkit_version), Version(torch_cuda)
    if has.major != wants.major:
        raise TorchCudaMismatch(
            f"torch {torch_version} was built for CUDA {torch_cuda}, the toolkit is CUDA {toolkit_version}",
            f"use a CUDA {wants.major} toolkit (CUDA_HOME), or leave --torch and CUDA_HOME out",
        )
    if has.minor != wants.minor:
        warn(f"torch was built with CUDA {torch_cuda}, the toolkit is {toolkit_version}; one major is enough")


def path_without_tool() -> str:
    """PATH less this program's own .venv, which ``./inv`` puts first."""
    own = Path(sys.prefix) / "bin"
    return os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != own)
