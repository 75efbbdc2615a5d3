"""Checks on what a build needs: toolkit, compiler, Python, torch, architecture list, memory, disk."""

from __future__ import annotations

import re

from packaging.specifiers import SpecifierSet

from build_recipes.build import disk as disks
from build_recipes.build.plan import make_plan, too_little
from build_recipes.build.request import Request
from build_recipes.build.units import estimate, surveyed
from build_recipes.doctor.case import Case, Finding
from build_recipes.doctor.tables import minor, numbers, tables
from build_recipes.facts import architectures, versions
from build_recipes.kit.errors import ArmoryError, UsageError
from build_recipes.sources.lockfile import load_lock
from build_recipes.toolchain import compilers

LOW_GIB = 8.0
"""Memory a build wants beside its heaviest unit, GiB: the system, ninja, a second small unit."""


_NOT_ASKED = "not asked: only files of this machine were read"


def _torch_of(case: Case) -> str:
    """``torch==2.11.0``: the one of the tag's lock, where a tag was given."""
    if not case.tag:
        return "torch"
    try:
        return f"torch=={load_lock(case.tag).torch[0].version}"
    except (ArmoryError, IndexError):
        return f"torch=={case.version.torch}" if case.version else "torch"


def pair(case: Case) -> Finding | None:
    """Whether the tag can work on the device at all."""
    if case.version is None or case.name is None:
        return None
    if reason := case.version.refused.get(case.name):
        return Finding(
            "tag and device",
            "blocker",
            f"vLLM {case.tag} on {case.name}",
            f"it {reason}",
            f"./inv doctor --device {case.name} --tag v{case.version.before}  # or a newer one",
        )
    return Finding("tag and device", "ok", f"vLLM {case.tag} on {case.name}")


def architecture_list(case: Case) -> Finding | None:
    """TORCH_CUDA_ARCH_LIST: what its code is on the device, and whether torch and vLLM keep it as it is."""
    name = "architecture list"
    wanted = case.machine.environment.get("TORCH_CUDA_ARCH_LIST")
    if not wanted:
        return Finding(name, "ok", "TORCH_CUDA_ARCH_LIST is not set", "the build sets the device's")
    seen = f"TORCH_CUDA_ARCH_LIST={wanted}"
    try:
        targets = architectures.parse_list(wanted)
    except UsageError as error:
        return Finding(name, "blocker", seen, str(error.args[0]), "unset TORCH_CUDA_ARCH_LIST")
    numbers_of = [target.number for target in targets]
    if len(set(numbers_of)) < len(numbers_of):
        return Finding(name, "blocker", seen, "two forms of one architecture: vLLM drops the plain one (#56548)",
                       f"export TORCH_CUDA_ARCH_LIST={case.device.arch_list}" if case.device
                       else "unset TORCH_CUDA_ARCH_LIST")  # fmt: skip
    forms = [target.dotted for target in targets if target.suffix == "f" or target.ptx]
    if case.device is None:
        if forms:
            return Finding(name, "warning", seen, _FORMS, "unset TORCH_CUDA_ARCH_LIST")
        return Finding(
            name, "unknown", seen, "no device was given to compare it with", "./inv doctor --device thor"
        )
    fix = f"export TORCH_CUDA_ARCH_LIST={case.device.arch_list}"
    on = {target: target.on(case.device.number) for target in targets}
    fit = [target.dotted for target, verdict in on.items() if verdict == "native"]
    rest = [target.dotted for target, verdict in on.items() if verdict == "none"]
    if not fit:
        why = f"no code for it loads on {case.device.title} (capability {case.device.capability})"
        if not rest:
            why = f"only PTX, which the driver compiles at first use on {case.device.title}"
        return Finding(name, "blocker", seen, f"{why}. {case.device.note}".rstrip(), fix)
    if rest:
        text = f"{', '.join(fit)} loads on {case.device.title}, {', '.join(rest)} does not and costs compile time"
        return Finding(name, "warning", seen, text, fix)
    if forms:
        return Finding(name, "warning", seen, f"it loads on {case.device.title}; {_FORMS}", fix)
    return Finding(name, "ok", seen, f"it loads on {case.device.title}")


_FORMS = "vLLM drops forms with f (#36835) and +PTX; torch's extension builder rejects f"


def target_variable(case: Case) -> Finding | None:
    """VLLM_TARGET_DEVICE in the environment of a run decides the platform from 0.28 on."""
    value = case.machine.environment.get("VLLM_TARGET_DEVICE")
    if value in (None, "cuda"):
        return Finding(
            "target", "ok", f"VLLM_TARGET_DEVICE={value}" if value else "VLLM_TARGET_DEVICE is not set"
        )
    return Finding(
        "target",
        "blocker",
        f"VLLM_TARGET_DEVICE={value}",
        "the build makes a CPU wheel, and from 0.28 on a run takes the CPU platform",
        "unset VLLM_TARGET_DEVICE",
    )


def toolkit(case: Case) -> Finding | None:
    """A CUDA toolkit that fits the device."""
    given = case.machine.environment.get("CUDA_HOME")
    found = case.toolkit
    if given and found is None:
        return Finding(
            "CUDA toolkit",
            "blocker",
            f"CUDA_HOME={given} holds no nvcc",
            "the build would use it and stop",
            "unset CUDA_HOME",
        )
    if found is None:
        seen = ", ".join(one.path for one in case.machine.toolkits)
        if seen:
            return Finding(
                "CUDA toolkit",
                "unknown",
                f"{seen}: its version cannot be told",
                "",
                f"{case.machine.toolkits[0].path}/bin/nvcc --version",
            )
        return Finding("CUDA toolkit", "ok", "none found", "the build assembles one from PyPI's wheels")
    seen = f"{found.path}, nvcc {found.nvcc}"
    if case.device is not None and not SpecifierSet(case.device.cuda).contains(found.nvcc or "0"):
        return Finding(
            "CUDA toolkit",
            "blocker" if given else "warning",
            seen,
            f"{case.name} needs CUDA {case.device.cuda}"
            + ("" if given else "; the build assembles one from PyPI's wheels"),
            "unset CUDA_HOME" if given else case.build("--cuda wheels"),
        )
    return Finding("CUDA toolkit", "ok", seen)


def compiler(case: Case) -> Finding | None:
    """GCC: new enough for the tag, not too new for the toolkit."""
    gcc = case.machine.gcc
    if gcc is None:
        if not case.asked:
            return Finding("GCC", "unknown", _NOT_ASKED, "", "g++ -dumpfullversion  # on the machine itself")
        seen = "no g++ was found or it did not say its version"
        return Finding("GCC", "unknown", seen, "a build needs one", "sudo apt-get install -y g++")
    oldest, why = "9", "torch's headers, C++17"
    if case.version:
        arch, version = case.device.arch_list if case.device else "", case.tag.removeprefix("v")
        oldest, why = case.version.oldest_gcc(
            surveyed.perhaps(case.tag, version, arch, case.version.gcc_of) if arch else None
        )
    if numbers(gcc) < numbers(oldest):
        wanted = compilers.Wanted("", False, oldest, why, versions.facts().cuda_toolkit.newest_gcc)
        other = next((one for one in compilers.there("") if wanted.fits(one.version)), None)
        if case.asked and other:
            return Finding("GCC", "ok", gcc, f"the build takes {other.cxx} {other.version}")
        fix = compilers.advice(wanted)
        return Finding(
            "GCC",
            "blocker",
            gcc,
            f"{why} of vLLM {case.tag} needs GCC {oldest} or newer",
            fix if fix.startswith("sudo ") else f"g++ -dumpfullversion  # {fix}",
        )
    newest = tables().newest_gcc.get(minor(case.toolkit.nvcc)) if case.toolkit and case.toolkit.nvcc else None
    if newest and numbers(gcc)[0] > newest:
        return Finding(
            "GCC",
            "blocker",
            gcc,
            f"nvcc {case.toolkit.nvcc if case.toolkit else ''} takes GCC up to {newest}",
            f"sudo apt-get install -y g++-{newest} && export CUDAHOSTCXX=g++-{newest}",
        )
    return Finding("GCC", "ok", gcc)


def python(case: Case) -> Finding | None:
    """Python in the tag's range."""
    version = case.machine.python
    if version is None:
        return Finding(
            "Python",
            "unknown",
            _NOT_ASKED if not case.asked else "it could not be told",
            "",
            "python3 --version",
        )
    if case.version is None:
        return Finding("Python", "ok", version)
    here = numbers(minor(version))
    first, last = case.version.python
    if not tuple(first) <= here <= tuple(last):
        wanted = f"{first[0]}.{first[1]} to {last[0]}.{last[1]}"
        return Finding(
            "Python",
            "blocker",
            version,
            f"vLLM {case.tag} supports {wanted}",
            "uv venv --python 3.12 && . .venv/bin/activate",
        )
    return Finding("Python", "ok", version)


def torch(case: Case) -> Finding | None:
    """The torch that is installed: with CUDA, of the toolkit's major, with code for the device."""
    found = case.machine.torch
    if found is None:
        return Finding("torch", "ok", "none found", "the build brings its own, by hash")
    seen = f"{found.version}, CUDA {found.cuda or 'none'} ({found.path})"
    fix = f"pip install {_torch_of(case)} --index-url https://download.pytorch.org/whl/cu130"
    if found.cuda is None:
        return Finding(
            "torch",
            "blocker",
            seen,
            "a build against it stops ('Unknown runtime environment') or makes a CPU wheel; no run either",
            fix,
        )
    nvcc = case.toolkit.nvcc if case.toolkit else None
    if nvcc and nvcc.split(".")[0] != found.cuda.split(".")[0]:
        return Finding("torch", "blocker", seen, f"the toolkit is CUDA {nvcc}: another major", fix)
    if case.device is not None and found.cuda.split(".")[0] != "13":
        return Finding("torch", "blocker", seen, f"wheels for {case.name} are CUDA 13", fix)
    if case.device is not None and found.architectures is not None:
        listed = " ".join(found.architectures)
        if not any(_runs(name, case.device.number) for name in found.architectures):
            what = f"no code that loads on {case.device.capability}"
            return Finding("torch", "blocker", f"{seen}: {listed}", what, fix)
    return Finding("torch", "ok", seen)


def _runs(target: str, capability: int) -> bool:
    """Whether code for ``sm_90a`` or ``compute_90`` of a torch runs on a GPU."""
    found = re.fullmatch(r"(sm|compute)_(\d+)([af]?)", target)
    if found is None:
        return False
    check = architectures.loads if found[1] == "sm" else architectures.compiles
    return check(int(found[2]), found[3], capability)


def memory(case: Case) -> Finding | None:
    """Room for the heaviest unit, as the build's own estimate has it. No lack of it is a blocker: the build runs such a
    unit alone, in swap at need, before it sends anybody away."""
    have, swap = case.machine.memory_gib, case.machine.swap_gib or 0.0
    if have is None:
        return Finding("memory", "unknown", "it could not be read", "", "free -g")
    seen = f"{have} GiB and {swap} GiB of swap"
    if case.device is None:
        return Finding("memory", "ok", seen)
    version = case.some_tag.removeprefix("v")
    hoped = estimate.before(case.some_tag, version, case.device.arch_list)
    if not hoped.heaviest:
        return Finding("memory", "unknown", seen, f"the units of {case.some_tag} are not known")
    need = f"{hoped.heaviest.rpartition('/')[2]} takes {hoped.gib:.1f} GiB ({hoped.basis})"
    missing = hoped.gib - have - swap
    if missing > 0:
        return Finding(
            "memory", "warning", seen, too_little(hoped.heaviest, hoped.gib, missing),
            f"sudo fallocate -l {int(missing) + 3}G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile"
            " && sudo swapon /swapfile",
        )  # fmt: skip
    if have < hoped.gib:
        return Finding(
            "memory", "warning", seen, f"{need}: it is compiled in swap, which takes hours, whatever --jobs is",
            f"{case.build()}  # on an x86_64 machine with {int(hoped.gib + LOW_GIB) + 1} GiB: it cross-compiles",
        )  # fmt: skip
    if have < hoped.gib + LOW_GIB:
        return Finding(
            "memory",
            "warning",
            seen,
            f"{need}: little else can be compiled beside it",
            case.build("--jobs 1"),
        )
    return Finding("memory", "ok", seen, need)


def disk(case: Case) -> Finding | None:
    """Room for a build on each file system that it writes to: the plan's own count."""
    if case.places is None:
        return Finding("disk", "unknown", _NOT_ASKED, "", "df -h .")
    try:
        plan = make_plan(Request(tag=case.some_tag, device=case.name or ""), case.places)
        found = disks.short(plan)
    except ArmoryError as error:
        why = str(error.args[0]).splitlines()[0]
        words = ["./inv plan", f"--tag {case.some_tag}", *([f"--device {case.name}"] if case.name else [])]
        return Finding("disk", "unknown", "what a build takes cannot be told", why, " ".join(words))
    if found is None:
        return Finding(
            "disk", "ok", "; ".join(map(str, disks.disks(plan))) or f"{case.build()} takes no more"
        )
    lacking, fits = found
    if fits:
        return Finding("disk", "warning", str(lacking), disks.DROPPED, disks.MORE_ROOM)
    what = f"{case.build()} would stop before it begins"
    return Finding("disk", "blocker", str(lacking), what, disks.MORE_ROOM)


def jobs(case: Case) -> Finding | None:
    """MAX_JOBS and NVCC_THREADS in the environment: what a build makes of them."""
    told = {name: case.machine.environment[name] for name in ("MAX_JOBS", "NVCC_THREADS")
            if case.machine.environment.get(name)}  # fmt: skip
    if not told:
        return Finding("jobs", "ok", "MAX_JOBS is not set", "one job a core, as far as memory goes")
    seen = ", ".join(f"{name}={value}" for name, value in told.items())
    limit = told.get("MAX_JOBS", "")
    if limit and not (limit.isdecimal() and int(limit)):
        return Finding("jobs", "blocker", seen, "MAX_JOBS is not a number of jobs", "unset MAX_JOBS")
    if "NVCC_THREADS" in told:
        what = "NVCC_THREADS is ignored: one architecture is compiled, which takes one thread"
        return Finding("jobs", "warning", seen, what, "unset NVCC_THREADS")
    return Finding(
        "jobs", "ok", seen, "the build starts no more jobs than that, and fewer where memory is short"
    )


def headers(case: Case) -> Finding | None:
    """glibc against the toolkit's headers: a newer one declares functions that older CUDA headers declare otherwise."""
    version = case.machine.glibc
    if version is None:
        return None
    nvcc = (case.toolkit.nvcc if case.toolkit else None) or versions.facts().cuda_toolkit.version
    needed = [cuda for least, cuda in tables().cuda_for_glibc.items() if numbers(version) >= numbers(least)]
    if needed and numbers(minor(nvcc)) < max(map(numbers, needed)):
        newest = max(needed, key=numbers)
        return Finding(
            "CUDA headers", "blocker", f"glibc {version}, CUDA {minor(nvcc)}",
            f"nvcc compiles nothing here ('exception specification is incompatible'); CUDA {newest} does",
            "./inv canary  # tries it; build in a container: docker run -it -v $PWD:/w -w /w ubuntu:24.04",
        )  # fmt: skip
    return Finding("CUDA headers", "ok", f"glibc {version}, CUDA {minor(nvcc)}")


CHECKS = {
    "tag and device": pair, "architecture list": architecture_list, "target": target_variable, "CUDA toolkit": toolkit,
    "CUDA headers": headers, "GCC": compiler, "Python": python, "torch": torch, "memory": memory, "jobs": jobs,
    "disk": disk,
}  # fmt: skip
"""Name of a check, and the check; one that has nothing to go by answers None."""
