"""What a companion's wheel is on a device, read from the wheel: its code, CUDA, glibc and binding to torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.audit import coverage
from build_recipes.audit.closure import Library, close, readable
from build_recipes.audit.findings import glibc
from build_recipes.audit.scan import Module, read_module
from build_recipes.facts import architectures
from build_recipes.facts.device import Device
from build_recipes.formats import abi
from build_recipes.formats.wheel import Wheel, is_module
from build_recipes.kit.console import counted

NATIVE, JIT, HOST, PYTHON, ABSENT = "native", "JIT", "host code", "Python", "absent"
OTHER_TORCH = "it was built for another torch"
_OF_TORCH = re.compile(r"_ZN?K?(3c10|2at|5torch|6caffe2)|aoti_torch_|torch_")
"""Symbols of torch (Itanium ABI: its namespaces c10, at, torch, caffe2), and of its stable interface."""
RUNS = frozenset({NATIVE, JIT, HOST, PYTHON})


@dataclass(frozen=True)
class Judged:
    """One wheel on one device."""

    code: str
    """``native`` (machine code for its GPU), ``JIT`` (compiled there), ``host code`` (none for a GPU),
    ``Python`` (no compiled code), ``absent`` (does not run there)."""
    reason: str
    """What that was read from, or why it does not run."""
    torch_abi: str
    """How it binds to torch: ``C++`` (one version only), ``stable``, or empty."""


def judge(
    wheel: Path, device: Device, torch: Sequence[Library], *, host: bool = False, apart: str = ""
) -> Judged:
    """Read a wheel for a device.

    :param torch: libraries of the torch it will meet.
    :param apart: start of the members that are another thing, and not judged; empty for none.
    :param host: what it does on the CPU is of use where it has no code for the GPU.
    :raises NotAWheel: it is none, or damaged.
    """
    names, requires, found = _read(wheel)
    modules = [module for module in found if not apart or not module.path.startswith(apart)]
    bound = [
        module for module in modules if module.torch_abi
    ]  # the stable interface grows with each torch, too
    lost = _lost(bound, [*torch, *modules])
    against = list(_against(modules, device))
    if lost:
        symbol = readable(lost)
        against.append(f"{OTHER_TORCH}: {symbol} is missing in this one")
    binding = "C++" if any(module.torch_abi == "C++" for module in bound) else "stable" if bound else ""
    if against:
        return Judged(ABSENT, "; ".join(against), binding)
    sources = sum(name.endswith((".cu", ".cuh")) for name in names)
    builds = any(line.split(";")[0].strip().startswith("ninja") for line in requires)
    code, reason = _code(names, modules, device, sources if builds else 0)
    if code == ABSENT and host:
        code, reason = HOST, f"{reason}; what it does on the CPU works, its GPU functions do not"
    return Judged(code, reason, binding)


@functools.lru_cache(maxsize=64)
def _read(wheel: Path) -> tuple[list[str], list[str], list[Module]]:
    """Members, requirements and modules of a wheel; torch's are read once for all devices and rounds."""
    with Wheel(wheel) as opened:
        names = list(opened.members)
        modules = [
            read_module(name, opened.content(name), opened.members[name].compress_size)
            for name in names
            if is_module(name)
        ]
        return names, list(opened.requires), modules


def glibc_of(wheel: Path) -> tuple[int, int] | None:
    """The least glibc that a wheel's modules need; None where it has none."""
    modules = _read(wheel)[2]
    return glibc(modules) if modules else None


def _lost(bound: Sequence[Module], libraries: Sequence[Library]) -> str:
    """A symbol of torch that a module asks for and this torch lacks; empty where there is none.

    What a module needs of a library that is not there (libheif of a system) is not torch's fault.
    """
    if not bound:
        return ""
    closed = close({module.path: module for module in bound}, libraries)
    for path, symbols in closed.symbols.items():
        own = [one for one in symbols if path not in closed.libraries or _OF_TORCH.match(one)]
        if own:
            return own[0]
    return ""


def _against(modules: Sequence[Module], device: Device) -> list[str]:
    found = []
    machines = {module.machine for module in modules if module.machine}
    if machines and device.machine not in machines:
        found.append(f"made for {' and '.join(sorted(machines))}, the device has {device.machine}")
    # a wheel may carry one variant for each CUDA; what links no CUDA binds none
    majors = {major for module in modules for major in module.cuda}
    if majors and not any(coverage.takes_cuda(device, major) for major in majors):
        found.append(f"links CUDA {', '.join(map(str, sorted(majors)))}; the device runs CUDA {device.cuda}")
    if modules and glibc(modules) > abi.version(device.glibc):
        found.append(f"needs glibc {'.'.join(map(str, glibc(modules)))}, the device has {device.glibc}")
    return found


def _code(names: Sequence[str], modules: Sequence[Module], device: Device, sources: int) -> tuple[str, str]:
    """What the code is, and what that was read from.

    :param sources: CUDA sources of a project that brings a build tool to compile them where it runs.
    """
    with_units = [module for module in modules if module.units]
    if with_units:
        native = [module for module in with_units if _native(module, device)]
        have = ", ".join(sorted({name for module in with_units for name in module.code}))
        if native:
            return (
                NATIVE,
                f"{len(native)} of {len(with_units)} GPU modules load on {device.capability} ({have})",
            )
        if any(coverage.runs(module, device) for module in with_units):
            return JIT, f"PTX that the driver compiles ({have})"
        return ABSENT, f"no code for {device.capability}: {have}"
    cubins = [name for name in names if name.endswith(".cubin")]
    if cubins:
        fit = [name for name in cubins if _loads(name, device)]
        if fit:
            return NATIVE, f"{len(fit)} of {len(cubins)} cubins are named for {device.capability}"
        return ABSENT, f"none of {len(cubins)} cubins is named for {device.capability}"
    if any(name.rsplit("/", 1)[-1].startswith("ptxas") for name in names):
        return JIT, "carries ptxas: its kernels are compiled on the device"
    if sources:
        return JIT, f"carries {sources} CUDA sources: compiled on the device, which needs nvcc there"
    if modules:
        return HOST, f"{counted(len(modules), 'module')} without GPU code"
    return PYTHON, "no compiled code"


def _native(module: Module, device: Device) -> bool:
    """Whether any machine code of a module loads on a device."""
    targets = (target for unit in module.units for target in unit.targets)
    return any(target.kind == "sass" and coverage.loads(target, device) for target in targets)


def _loads(name: str, device: Device) -> bool:
    """Whether a cubin's file name says an architecture that loads: ``fmhaSm100aKernel_...``."""
    found = re.findall(r"(?i)(?<![a-z])sm_?(\d{2,3})([af]?)(?![0-9])", name) or re.findall(
        r"Sm(\d{2,3})([af]?)", name
    )
    return any(architectures.loads(int(number), suffix, device.number) for number, suffix in found)
