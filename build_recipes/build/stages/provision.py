"""Provision: a build environment of its own, the CUDA toolkit, and torch for the target. No pip isolation.

Everything comes from the lock, by hash. torch is never left to a resolver: the wheels the lock names are
installed with ``--no-deps`` from local files, so nothing can put a CPU torch in its place.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from build_recipes.build.plan import TOOLKIT_GLIBC, Plan
from build_recipes.build.stages import record
from build_recipes.build.stages.given import (
    bound_compiler,
    check_torch,
    existing_torch,
    host_compiler,
    path_without_tool,
)
from build_recipes.kit import evidence, process
from build_recipes.kit.console import warn
from build_recipes.kit.errors import CpuTorch, ToolchainMismatch, ToolFailed, UsageError
from build_recipes.kit.once import filled, manifest_of, remove_tree
from build_recipes.sources.download import cached, fetch_files
from build_recipes.sources.lockfile import FilePin, pick_wheels
from build_recipes.sources.tool_wheels import REPLACEABLE
from build_recipes.toolchain import cross, cuda
from build_recipes.toolchain.unpack import digest_of, unpack_wheel

CMAKE_NEEDED = Version("3.26.1")
"""vLLM's pyproject.toml (0.10.2 to 0.33.0) asks for ``cmake>=3.26.1``."""


@dataclass(frozen=True)
class Provisioned:
    """A build environment."""

    python: Path
    """Interpreter of the environment."""
    cuda_home: Path
    cuda_version: str
    cuda_origin: str
    torch: Path
    """The target's ``torch`` package folder: headers and libraries."""
    torch_version: str
    torch_cuda: str
    toolchain_file: Path | None
    """CMake toolchain file when cross-compiling."""
    seconds: float


def provision(plan: Plan) -> Provisioned:
    """Make the build environment of a plan, or find it made.

    :raises CpuTorch: the torch that would be built against has no CUDA.
    :raises TorchCudaMismatch: torch and the toolkit differ in their CUDA major.
    :raises ToolchainMismatch: the given CUDA toolkit does not fit.
    """
    inputs = {
        "torch": plan.request.torch if plan.torch_existing else plan.torch.version,
        "files": sorted(pin.sha256 for pin in plan.torch.files),
        "wheels": sorted(pin.sha256 for pin in plan.lock.wheels),
        "cuda": plan.request.cuda,
        "host": [plan.host.machine, plan.host.python],
        "target": plan.device.machine,
    }
    compiler = host_compiler(plan)
    if compiler and compiler.cxx not in ("g++", f"{plan.device.machine}-linux-gnu-g++"):
        inputs["compiler"] = compiler.cxx
    if plan.sysroot:
        inputs["sysroot"] = [str(plan.sysroot.folder), plan.sysroot.identity]
    parts = ("env", "cuda", "target", "python-headers", "toolchain.cmake", "sysroot")
    done = record.once(
        plan.tree,
        "provision",
        inputs,
        lambda: _provision(plan),
        files=lambda: evidence.names_below(plan.tree, *parts),
        twins=lambda: evidence.twins(plan.places.toolkits.glob(".*.files.json")),
    )
    made = done.outputs
    check_torch(made["torch_cuda"], made["torch_version"], made["cuda_version"])
    return Provisioned(
        python=Path(made["python"]),
        cuda_home=Path(made["cuda_home"]),
        cuda_version=made["cuda_version"],
        cuda_origin=made["cuda_origin"],
        torch=Path(made["torch"]),
        torch_version=made["torch_version"],
        torch_cuda=made["torch_cuda"],
        toolchain_file=Path(made["toolchain_file"]) if made["toolchain_file"] else None,
        seconds=done.seconds,
    )


def _provision(plan: Plan) -> dict[str, object]:
    python = _environment(plan)
    existing = existing_torch(plan) if plan.torch_existing else None
    toolkit = _toolkit(plan, existing)
    toolchain: Path | None = None
    if plan.cross:
        torch = _target_torch(plan)
        site = Path(process.capture([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
        cross.write_standin(site, torch)
        headers = cross.python_headers(plan.places.toolkits, plan.host.python_include, plan.device.machine)
        headers = _into_tree(headers, plan.tree / "python-headers")
        toolchain = cross.toolchain_file(
            plan.tree / "toolchain.cmake", toolkit, plan.device.machine, headers, bound_compiler(plan)
        )
    else:
        torch = _installed_torch(plan, python, existing)
    answer = _ask_torch(python, toolkit)
    return {
        "python": str(python),
        "cuda_home": str(toolkit.home),
        "cuda_version": toolkit.version,
        "cuda_origin": toolkit.origin,
        "torch": str(torch),
        "torch_version": answer[0],
        "torch_cuda": answer[1],
        "toolchain_file": str(toolchain) if toolchain else "",
    }


def files_used(plan: Plan, made: Provisioned) -> list[FilePin]:
    """The downloads that a build environment was made of: build requirements, the toolkit where it was assembled, and
    torch for the device where it was not the machine's own."""
    programs = made.python.parent
    pins = [pin for pin in _build_pins(plan) if not _stands_in(programs / pin.project)]
    if made.cuda_origin == "wheels":
        machines = dict.fromkeys([plan.host.machine, *([plan.device.machine] if plan.cross else [])])
        pins += [pin for machine in machines for pin in _toolkit_pins(plan, machine)]
    if not plan.torch_existing:
        pins += _torch_pins(plan) if plan.cross else _installed_pins(plan)
    return pins


def _stands_in(program: Path) -> bool:
    """Whether a program of the environment is a link to one of the machine's (`_own_programs`)."""
    return program.is_symlink() and program.parent not in program.resolve().parents


def _build_pins(plan: Plan) -> list[FilePin]:
    host = plan.host
    return pick_wheels(plan.lock, "build", machine=host.machine, python=host.python, glibc=host.glibc)


def _toolkit_pins(plan: Plan, machine: str) -> list[FilePin]:
    return pick_wheels(plan.lock, "cuda", machine=machine, python=plan.host.python, glibc=TOOLKIT_GLIBC)


def _torch_pins(plan: Plan) -> list[FilePin]:
    """The torch of the device's CPU."""
    where = {"machine": plan.device.machine, "python": plan.host.python, "glibc": plan.device_glibc}
    return pick_wheels(plan.lock, "torch", torch=plan.torch.version, **where)  # type: ignore[arg-type]


def _installed_pins(plan: Plan) -> list[FilePin]:
    """torch and what it requires, for this machine."""
    where = {"machine": plan.host.machine, "python": plan.host.python, "glibc": plan.host.glibc}
    return [
        pin
        for group in ("torch", "torch-deps")
        for pin in pick_wheels(plan.lock, group, torch=plan.torch.version, **where)  # type: ignore[arg-type]
    ]


def _fetch(plan: Plan, pins: list[FilePin]) -> list[Path]:
    found = fetch_files(pins, plan.places.downloads, offline=plan.request.offline, progress=True)
    return [found[pin.filename] for pin in pins]


def _environment(plan: Plan) -> Path:
    """A virtual environment with the tag's build requirements, of exactly the lock's wheels."""
    folder = plan.tree / "env"
    python = folder / "bin/python"
    pins = _build_pins(plan)
    own = _own_programs(plan, pins) if plan.request.offline else {}
    files = _fetch(plan, [pin for pin in pins if pin.project not in own])
    remove_tree(folder)
    _uv(plan, ["venv", "--quiet", "--no-project", "--offline", "--python", sys.executable, folder])
    _uv(
        plan,
        ["pip", "install", "--quiet", "--offline", "--no-deps", "--no-index", "--python", python, *files],
    )
    for name, program in own.items():
        (python.parent / name).symlink_to(program)
    return python


def _own_programs(plan: Plan, pins: list[FilePin]) -> dict[str, Path]:
    """Programs of this machine that stand in for wheels which are not in the cache, when offline.

    Only cmake and ninja: nothing imports them, and their version does not reach the wheel.
    """
    found: dict[str, Path] = {}
    path = path_without_tool()
    for pin in pins:
        if pin.project in REPLACEABLE and not cached(pin, plan.places.downloads):
            program = shutil.which(pin.project, path=path)
            if program is None:
                continue
            version = process.capture([program, "--version"]).split("\n")[0].split()[-1]
            if pin.project == "cmake" and Version(version.split("-")[0]) < CMAKE_NEEDED:
                raise ToolchainMismatch(
                    f"{program} is {version}; vLLM's CMake files need {CMAKE_NEEDED}, and the lock's wheel is "
                    "not in the cache",
                    f"bring it: ./inv mirror {plan.words} --requirements --to BUNDLE on a machine with a network",
                )
            warn(
                f"{pin.project} {version} of this machine ({program}) stands in for the lock's {pin.version}"
            )
            found[pin.project] = Path(program)
    return found


def _uv(plan: Plan, words: list[str | Path]) -> None:
    from uv import find_uv_bin

    cache = (
        record.scratch(plan.tree) / "uv"
    )  # files of the environment are not links into a cache that can be torn
    environment = process.child_environment(UV_CACHE_DIR=str(cache), UV_NO_CONFIG="1")
    environment.pop("VIRTUAL_ENV", None)
    done = process.run([find_uv_bin(), *words], env=environment)
    remove_tree(cache)
    if not done.ok:
        tail = "\n".join(done.tail[-8:])
        raise ToolchainMismatch(f"the build environment could not be made:\n{tail}", "./inv doctor")


def _toolkit(plan: Plan, existing: Path | None) -> cuda.Toolkit:
    """The CUDA toolkit of the plan, laid into the tree where it was assembled from wheels.

    :param existing: the torch of ``--torch existing``: its CUDA wheels complete a toolkit that lacks libraries.
    """
    if not plan.cross and plan.request.cuda != "wheels":
        libraries = cuda.installed_libraries(existing.parent) if existing else None
        given = plan.request.cuda or os.environ.get("CUDA_HOME", "")
        for home in [Path(given)] if given else cuda.system_toolkits():
            version = cuda.nvcc_version(home / "bin/nvcc")
            if given:
                cuda.check_version(version, plan.device.cuda, home)
            elif not _fits(version, plan):
                continue
            if cuda.has_libraries(home) or (given and not libraries):
                return cuda.Toolkit(home, version, "given" if given else "system", "")
            if libraries:
                return cuda.complete(home, libraries, plan.tree / "cuda")
    if plan.cross and plan.request.cuda not in ("", "wheels"):
        raise UsageError(
            "a cross build needs the target's CUDA libraries beside the host's nvcc, and assembles both from wheels",
            "leave --cuda out",
        )

    def wheels(machine: str) -> list[Path]:
        return _fetch(plan, _toolkit_pins(plan, machine))

    pins = _toolkit_pins(plan, plan.host.machine)
    version = next(pin.version for pin in pins if pin.project == "nvidia-cuda-nvcc")
    toolkit = cuda.assemble(
        plan.places.toolkits,
        version,
        wheels(plan.host.machine),
        wheels(plan.device.machine) if plan.cross else [],
        host=plan.host.machine,
        target=plan.device.machine,
    )
    home = _into_tree(toolkit.home, plan.tree / "cuda")
    return cuda.Toolkit(home, toolkit.version, toolkit.origin, toolkit.target_directory)


def _fits(version: str, plan: Plan) -> bool:
    try:
        cuda.check_version(version, plan.device.cuda, Path())
    except ToolchainMismatch:
        return False
    return True


def _target_torch(plan: Plan) -> Path:
    """The torch of the device's CPU, unpacked into the tree; it cannot be imported here."""
    if plan.torch_existing:
        raise UsageError(
            "--torch existing is a torch of this machine, which is not the device", "leave --torch out"
        )
    machine, python = plan.device.machine, plan.host.python
    pins = _torch_pins(plan)
    if not pins:
        raise CpuTorch(
            f"the lock has no torch {plan.torch.version} for {machine} and Python {python[0]}.{python[1]}",
            "run ./inv with a Python that torch has wheels for (3.10 to 3.13)",
        )
    files = _fetch(plan, pins)

    def fill(into: Path) -> None:
        for wheel in files:
            unpack_wheel(wheel, into)

    folder = filled(plan.places.toolkits / f"torch-{digest_of([file.name for file in files])}", fill)
    return _into_tree(folder, plan.tree / "target") / "torch"


def _installed_torch(plan: Plan, python: Path, existing: Path | None) -> Path:
    """torch installed into the build environment (native builds import it)."""
    if existing:
        site = process.capture([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        (Path(site) / "existing-torch.pth").write_text(f"{existing.parent}\n")
        return existing
    _uv(
        plan,
        [
            "pip",
            "install",
            "--quiet",
            "--offline",
            "--no-deps",
            "--no-index",
            "--python",
            python,
            *_fetch(plan, _installed_pins(plan)),
        ],
    )
    text = process.capture([python, "-c", "import importlib.util as u; print(u.find_spec('torch').origin)"])
    return Path(text).parent


def _ask_torch(python: Path, toolkit: cuda.Toolkit) -> tuple[str, str]:
    """``torch.__version__`` and ``torch.version.cuda`` as the build will see them."""
    code = "import torch; print(torch.__version__); print(torch.version.cuda)"
    try:
        text = process.capture(
            [python, "-c", code], env=process.child_environment(CUDA_HOME=str(toolkit.home))
        )
    except ToolFailed as error:
        last = error.words.splitlines()[-1:]
        raise CpuTorch(
            f"torch does not import in the build environment: {' '.join(last)}", "./inv doctor"
        ) from None
    version, _, cuda_version = text.partition("\n")
    return version, cuda_version.strip()


def _into_tree(source: Path, target: Path) -> Path:
    """``source`` as real files below the tree, by hard links where the file system allows.

    Compilers then see only paths of the tree, which are the same for every build of a tag and device, so a
    compiler cache hits.
    """
    if target.exists():
        remove_tree(target)
    try:
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)
        evidence.restate(source, manifest_of(source))
    except (OSError, shutil.Error):
        remove_tree(target)
        shutil.copytree(source, target, symlinks=True)
    return target
