"""Where a canary is sent: into a plan's build environment, or into this machine's own toolchain."""

from __future__ import annotations

import sys
from pathlib import Path

from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages import record
from build_recipes.build.stages.provision import Provisioned, provision
from build_recipes.canary.trial import CanaryResult, run_canary
from build_recipes.facts import device as device_table
from build_recipes.kit import process
from build_recipes.kit.errors import CanaryFailed, ToolFailed, UsageError
from build_recipes.kit.paths import Places


def canary_of_plan(plan: Plan, made: Provisioned) -> CanaryResult:
    """Try the build environment of a plan, with torch, exactly as the build will use it."""
    environment = {
        **process.child_environment(*process.COMPILER_LEAKS),
        **record.scratch_environment(plan.tree),
        **plan.environment(made.cuda_home, made.python, {}),
    }
    return run_canary(
        environment,
        python=made.python,
        cmake_args=[
            f"-DCMAKE_CUDA_COMPILER={made.cuda_home}/bin/nvcc",
            f"-DCANARY_CXX_STANDARD={plan.facts.cxx}",
        ],
        work=plan.tree / "canary",
        arch=plan.device.arch_list,
        toolchain_file=made.toolchain_file,
    )


def canary_here(python: Path, arch: str, work: Path) -> CanaryResult:
    """Try this machine's own nvcc and compiler, with the torch of ``python`` if it has one.

    :raises CanaryFailed: there is no such Python.
    """
    environment = process.child_environment(*process.COMPILER_LEAKS, TORCH_CUDA_ARCH_LIST=arch)
    try:
        torch = process.succeeds([python, "-c", "import torch"], env=environment)
    except ToolFailed as error:
        raise CanaryFailed(
            f"{python} does not run: {error.words}", "./inv canary --python $(which python3)"
        ) from None
    return run_canary(
        environment, python=python, cmake_args=[], work=work, arch=arch, toolchain_file=None, torch=torch
    )


def canary(tag: str, device: str, python: str) -> CanaryResult:
    """What ``./inv canary`` does.

    :param tag: vLLM tag whose build environment is tried; empty for this machine's own toolchain.
    :param device: name of the device; empty for the machine this is.
    :param python: interpreter whose torch is built against, without a tag; empty for the one that runs.
    :raises UsageError: no device was given and this machine is none.
    """
    places = Places.from_environment()
    if tag:
        plan = make_plan(Request(tag=tag, device=device), places)
        return canary_of_plan(plan, provision(plan))
    name = device or device_table.detect()
    if name is None:
        raise UsageError("this machine is not a supported device", "./inv canary --device thor")
    arch = device_table.device(name).arch_list
    folder = places.build / f"canary-{device_table.canonical(name)}"
    return canary_here(Path(python or sys.executable), arch, folder)


def check(result: CanaryResult) -> None:
    """Refuse a toolchain whose canary died.

    :raises CanaryFailed: with the cause, where it is known, and what to do.
    """
    if result.ok:
        return
    known = result.diagnosis.primary
    if known is not None:
        raise CanaryFailed(f"the canary: {result.why}: {known.text}\n  {known.cause}", known.fix)
    last = "\n".join(f"    {line}" for line in result.diagnosis.tail[-8:])
    raise CanaryFailed(
        f"the canary: {result.why}" + (f"\n{last}" if last else ""), f"read {result.log}; ./inv doctor"
    )
