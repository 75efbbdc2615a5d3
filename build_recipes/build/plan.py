"""A Plan: everything a build will do, decided; nothing done. Pure: reads the lock and data files, writes nothing.

The fingerprint is a hash of what the wheel's content depends on (pins, patches, device, toolchain, torch,
options). It names the result: the same fingerprint again is the same wheel, so there is nothing to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from build_recipes.build import selection
from build_recipes.build.request import Request
from build_recipes.build.units import surveyed
from build_recipes.facts import device as device_table
from build_recipes.facts import versions
from build_recipes.facts.device import Device
from build_recipes.facts.versions import VersionFacts
from build_recipes.kit.errors import (
    CpuTorch,
    GlibcTooNew,
    ToolchainMismatch,
    TorchCudaMismatch,
    UnsupportedPair,
    UsageError,
)
from build_recipes.kit.host import Host
from build_recipes.kit.paths import Places
from build_recipes.patching.series import selected
from build_recipes.sources.lockfile import Lock, TorchPin, load_lock
from build_recipes.sources.own import own_lock, own_source
from build_recipes.toolchain import ccache
from build_recipes.toolchain import sysroot as sysroots
from build_recipes.toolchain.sysroot import Sysroot

BUILD_TYPES = ("Release", "RelWithDebInfo", "Debug", "MinSizeRel")
TOOLKIT_GLIBC = (2, 39)
"""CUDA's wheels are chosen by the newest glibc among the devices: their programs run on older ones, too."""


@dataclass(frozen=True)
class Plan:
    """Everything decided. See the module's docstring."""

    tag: str
    version: str
    """vLLM's own version, ``0.12.0``."""
    wheel_version: str
    """PEP 440 version of the wheel: ``0.12.0+cu130.thor``."""
    device_name: str
    device: Device
    facts: VersionFacts
    lock: Lock
    torch: TorchPin
    torch_existing: bool
    host: Host
    request: Request
    jobs: int
    patches: tuple[str, ...]
    """Patches of the series for this pair: ``id@sha256``."""
    tree: Path
    """The build tree of this tag and device."""
    places: Places
    sysroot: Sysroot | None = None
    """What a cross build is bound to in place of the compiler's own C library."""
    here: bool = False
    """Whether this machine is the device."""
    words: str = ""
    """How its source is asked for on the command line: ``--tag v0.12.0``, ``--source DIR``."""

    selected: str = ""
    """What is to be said of ``--only`` and ``--without`` now; empty where that is nothing."""

    @property
    def cross(self) -> bool:
        """Whether the host's CPU is not the device's."""
        return self.host.machine != self.device.machine

    @property
    def device_glibc(self) -> tuple[int, int]:
        """glibc of the device."""
        version = Version(self.device.glibc)
        return version.major, version.minor

    @property
    def promised_glibc(self) -> tuple[int, int]:
        """Newest glibc that the wheel may need: the device's, or this machine's own where it is the device."""
        return max(self.device_glibc, self.host.glibc) if self.here else self.device_glibc

    @property
    def epoch(self) -> int:
        """SOURCE_DATE_EPOCH: the same for every build of a lock, so that results can be compared."""
        return 1704067200  # 2024-01-01, before every vLLM release we build

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name what this plan would build."""
        facts = {
            "lock": self.lock.digest,
            "device": device_table.as_dict(self.device),
            "torch": "existing" if self.torch_existing else [pin.sha256 for pin in self.torch.files],
            "toolkit": self.request.cuda or versions.facts().cuda_toolkit.version,
            "patches": self.patches,
            "source": self.request.source,
            "only": self.request.only,
            "without": self.request.without,
            "smoke": self.request.smoke,
            "type": self.request.build_type,
            "host": self.host.machine,
            **({"sysroot": self.sysroot.identity} if self.sysroot else {}),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def environment(self, cuda_home: Path, python: Path, trees: Mapping[str, Path]) -> dict[str, str]:
        """The variables of the build, exported to the build only.

        :param trees: `*_SRC_DIR` variable to folder.
        """
        library = os.pathsep.join(
            filter(None, [str(cuda_home / "lib64"), os.environ.get("LD_LIBRARY_PATH", "")])
        )
        search = os.pathsep.join([str(python.parent), str(cuda_home / "bin"), os.environ.get("PATH", "")])
        return {
            "CUDA_HOME": str(cuda_home),
            "CUDACXX": str(cuda_home / "bin/nvcc"),
            "PATH": search,
            "LD_LIBRARY_PATH": library,
            "TORCH_CUDA_ARCH_LIST": self.device.arch_list,
            "VLLM_TARGET_DEVICE": "cuda",
            "MAX_JOBS": str(self.jobs),
            "NVCC_THREADS": "1",
            "CMAKE_BUILD_TYPE": self.request.build_type,
            "SETUPTOOLS_SCM_PRETEND_VERSION": self.wheel_version,
            "VLLM_VERSION_OVERRIDE": self.wheel_version,
            "SOURCE_DATE_EPOCH": str(self.epoch),
            **{variable: str(folder) for variable, folder in sorted(trees.items())},
        }

    def as_dict(self) -> dict[str, object]:
        """The plan as plain data for ``--json`` and the manifest."""
        return {
            "tag": self.tag,
            "version": self.version,
            "wheel_version": self.wheel_version,
            "device": self.device_name,
            "arch_list": self.device.arch_list,
            "platform_tag": self.device.platform_tag,
            "fingerprint": self.fingerprint,
            "lock": self.lock.digest,
            "source": self.request.source,
            "torch": {"version": self.torch.version, "index": self.torch.index, "cuda": self.torch.cuda}
            if not self.torch_existing
            else {"version": self.request.torch, "index": "this machine", "cuda": "13"},
            "cross": self.cross,
            "host": {
                "machine": self.host.machine,
                "python": "{}.{}".format(*self.host.python),
                "cores": self.host.cores,
                "memory_gib": self.host.memory_gib,
                "distribution": self.host.distribution,
            },
            "jobs": self.jobs,
            "build_type": self.request.build_type,
            "only": list(self.request.only),
            "without": list(self.request.without),
            "smoke": self.request.smoke,
            "patches": list(self.patches),
            "tree": str(self.tree),
        }


def suffix(request: Request) -> str:
    """What ends the version of a wheel that is known not to be whole before it is built."""
    return ".smoke" if request.smoke else ".partial" if request.only or request.without else ""


def make_plan(request: Request, places: Places, host: Host | None = None) -> Plan:
    """Decide everything.

    :raises ArmoryError: of many kinds; each says what contradicts what, and what to type.
    """
    host = host or Host.this()
    own = own_source(request.tag, request.source, places)
    if own:
        request = dataclasses.replace(request, source=str(own.folder))
    # what needs no lock is refused without one
    facts = versions.for_version(own.version if own else versions.version_of(request.tag))
    detected = device_table.detect()
    name = device_table.canonical(request.device or detected or "thor")
    machine = device_table.device(name)
    facts.check_device(request.tag, name)
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if wanted:
        machine.check_arch(wanted)
    if request.build_type not in BUILD_TYPES:
        raise UsageError(
            f"--build-type {request.build_type} is none of CMake's", f"one of {', '.join(BUILD_TYPES)}"
        )
    if request.cache not in ccache.CHOICES:
        raise UsageError(
            f"--cache {request.cache} is not a compiler cache", f"one of {', '.join(ccache.CHOICES)}"
        )
    if request.cuda not in ("", "wheels") and not (Path(request.cuda) / "bin/nvcc").is_file():
        raise ToolchainMismatch(
            f"--cuda {request.cuda}: there is no {Path(request.cuda) / 'bin/nvcc'}",
            "leave --cuda out: a toolkit that fits is found or assembled; or give its folder, such as /usr/local/cuda",
        )
    if request.jobs < 0:
        raise UsageError(f"--jobs {request.jobs}: no unit would ever start", "leave --jobs out: one per core")
    if host.machine not in {machine.machine, "x86_64"}:
        raise UnsupportedPair(
            f"a wheel for {machine.machine} cannot be built on {host.machine}",
            f"build on a {machine.machine} machine, or cross-compile on x86_64",
        )
    lock = own_lock(own, places) if own else load_lock(request.tag)
    folder = own.folder if own else None
    modules = selection.modules_of(lock.tag, folder) if request.only or request.without else ()
    selection.check(request, lock.tag, modules)
    existing = request.torch.partition(":")[0] == "existing"
    pin = choose_torch(lock, "" if existing else request.torch)
    cuda = "".join(pin.cuda.split(".")[:2])
    state = f"{own.local}." if own and own.local else ""
    local = f"{state}cu{cuda}.{name}{suffix(request)}"
    made = Plan(
        tag=lock.tag,
        version=lock.version,
        wheel_version=f"{lock.version}+{local}",
        device_name=name,
        device=machine,
        facts=facts,
        lock=lock,
        torch=pin,
        torch_existing=existing,
        host=host,
        request=request,
        jobs=request.jobs or _max_jobs() or host.cores,
        patches=tuple(f"{entry.patch.id}@{entry.sha256[:12]}" for entry in selected(lock.version, machine)),
        tree=places.build / f"{lock.tag}-{name}{'-smoke' if request.smoke else ''}",
        places=places,
        words=own.words if own else f"--tag {request.tag}",
        selected=selection.note(request, lock.tag, lock.version, machine.arch_list, modules),
        sysroot=_sysroot(request, machine, cross=host.machine != machine.machine),
        here=detected == name,
    )
    check_path(made.tree)
    check_glibc(made)
    return made


def _max_jobs() -> int:
    """MAX_JOBS of the environment, which vLLM's own setup.py honours; 0 where it is not set.

    :raises UsageError: it is not a number of jobs.
    """
    value = os.environ.get("MAX_JOBS", "")
    if not value:
        return 0
    if not value.isdecimal() or not int(value):
        raise UsageError(f"MAX_JOBS={value} is not a number of jobs", "unset MAX_JOBS, or give --jobs 4")
    return int(value)


def check_path(tree: Path) -> None:
    """Refuse a build folder with characters that CMake files, nvcc or PATH would take apart.

    :raises UsageError: naming the character.
    """
    if found := re.search(r"[^\w./+@=,~-]", str(tree)):
        raise UsageError(
            f"the build folder {tree} has a '{found[0]}' in its path, which vLLM's CMake files and nvcc do not take",
            "VLLM_ARMORY_BUILD=/path/without/it ./inv build ...",
        )


def check_glibc(plan: Plan) -> None:
    """Refuse a machine whose C++ library binds the wheel to a newer glibc than the device has.

    From glibc 2.38 on, libstdc++, which is linked into the modules, calls ``__isoc23_strtoul`` (seen in all four
    modules of the H200 build on Ubuntu 24.04; a build on Debian 12 needs 2.34).

    :raises GlibcTooNew: before the hour of compiling that would end at the audit.
    """
    c23 = versions.facts().c23_glibc
    used = plan.sysroot.glibc if plan.sysroot else plan.host.glibc
    if used >= c23 > plan.promised_glibc and "glibc" not in plan.request.allow:
        here, needed, there = ("{}.{}".format(*one) for one in (used, c23, plan.promised_glibc))
        bound = f"bind it to an older one with --sysroot DIR: {sysroots.ADVICE}; or " if plan.cross else ""
        gcc = gcc_of(plan)[0]
        where = (
            "(Ubuntu 22.04, Debian 12)"
            if Version(gcc or "0") < Version("13")
            else f"and a GCC {gcc} or newer"
        )
        raise GlibcTooNew(
            f"a wheel built on glibc {here} needs glibc {needed}; the system of {plan.device_name} has {there}",
            f"{bound}build on a system with an older glibc {where}, or on the device itself; or, where the device's "
            "system is newer: --allow glibc",
        )


def gcc_of(plan: Plan) -> tuple[str, str, list[str]]:
    """The oldest GCC of a plan, who asks for it, and the modules that may: those that the device perhaps compiles."""
    asking = surveyed.perhaps(plan.tag, plan.version, plan.device.arch_list, plan.facts.gcc_of)
    needed = [name for name in asking if selection.wanted(plan.request, name)]
    return *plan.facts.oldest_gcc(needed), needed


def _sysroot(request: Request, machine: Device, *, cross: bool) -> Sysroot | None:
    if not request.sysroot:
        return None
    if not cross:
        raise UsageError(
            "--sysroot is for cross builds; a native build is bound to this machine's own C library",
            "leave --sysroot out, or cross-compile on x86_64",
        )
    return sysroots.read(Path(request.sysroot), machine.machine)


def choose_torch(lock: Lock, version: str) -> TorchPin:
    """The torch to build against: the one asked for, else the lock's first whose files are known.

    :raises UsageError: the lock has no such torch.
    :raises CpuTorch: it was built without CUDA.
    :raises TorchCudaMismatch: it was built for another CUDA major than 13.
    """
    try:
        pin = lock.torch_pin(version or None)
    except KeyError:
        known = ", ".join(entry.version for entry in lock.torch if entry.files) or "none"
        raise UsageError(
            f"the lock of {lock.tag} has no torch {version or 'that can be fetched'} (it has: {known})",
            f"leave --torch out, or add it: ./inv lock --tag {lock.tag}",
        ) from None
    if not pin.files:
        raise UsageError(
            f"torch {pin.version} of {pin.index} is not pinned by hash: {pin.unresolved}",
            f"make the lock again where {pin.index} can be reached: ./inv lock --tag {lock.tag}",
        )
    if not pin.cuda:
        raise CpuTorch(
            f"torch {pin.version} from {pin.index} has no CUDA",
            f"./inv build --tag {lock.tag} without --torch",
        )
    if pin.cuda.split(".")[0] != "13":
        raise TorchCudaMismatch(
            f"torch {pin.version} was built for CUDA {pin.cuda}; this builds for CUDA 13",
            f"./inv build --tag {lock.tag} without --torch",
        )
    return pin


def memory_note(host: Host, unit: str, expected_gib: float) -> str:
    """What is said of a unit that is expected to need more than a machine has; empty where it has enough."""
    missing = expected_gib - host.memory_gib - host.swap_gib
    return f"{too_little(unit, expected_gib, missing)} ({swap_advice(missing)})" if missing > 0 else ""


def too_little(unit: str, expected_gib: float, missing_gib: float) -> str:
    """What is said of a unit that is expected to need more memory and swap than there is."""
    return (
        f"{unit} is expected to take {expected_gib:.1f} GiB, {missing_gib:.1f} GiB more than the memory and swap of "
        "this machine: it runs alone, and may be ended by the kernel"
    )


def swap_advice(missing_gib: float) -> str:
    """What to type where memory is missing."""
    size = max(2, int(missing_gib) + 3)
    return (
        f"add swap: fallocate -l {size}G /swapfile && mkswap /swapfile && swapon /swapfile; "
        "or cross-compile on a larger machine"
    )
