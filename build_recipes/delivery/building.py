"""A companion that has no wheel for the device, built here from its source distribution.

Its own build backend runs in an environment of its build requirements, every file by hash. Where the device has
another CPU, Python's own way of a cross build (the device's sysconfig), our CMake toolchain file and our stand-in
for torch tell the backend what to build for. recipes.toml holds what the sources do not say.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from build_recipes.audit.exports import libraries, torch_wheel
from build_recipes.delivery import judge as judging
from build_recipes.delivery.companions import NO_WHEEL, Built, Companions, Target
from build_recipes.formats.archive import entries, unpack_sdist
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import console, process
from build_recipes.kit.data import Model, load_toml, parse_toml, write_atomic
from build_recipes.kit.errors import ArmoryError, CouldNotCheck, PackageFailed, ToolchainMismatch, UsageError
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.host import Host
from build_recipes.kit.once import filled, remove_tree
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import FilePin, best_wheels, load_lock, tags_for
from build_recipes.sources.registry import file_pins, releases
from build_recipes.sources.resolve import compile_requirements, pins_of, uv
from build_recipes.toolchain import cross, distro
from build_recipes.toolchain.unpack import digest_of, unpack_wheel
from build_recipes.wheelhouse.rewrite import Edits, rewrite

EPOCH = 1704067200
"""SOURCE_DATE_EPOCH of every build, as the plan's."""


class Recipe(Model, frozen=True):
    """A table of recipes.toml; its head documents the keys."""

    torch: bool = False
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    why: str = ""


@functools.cache
def recipes() -> dict[str, Recipe]:
    """recipes.toml, read once."""
    return load_toml(Path(__file__).with_name("recipes.toml"), dict[str, Recipe])


@dataclass(frozen=True)
class Environment:
    """What a backend is run with."""

    python: Path
    variables: dict[str, str]
    pins: list[FilePin]


def build(name: str, found: Companions, places: Places) -> Built:
    """Build a companion and put it into the folder of wheels, with a record of what it was made from.

    :raises UsageError: it is not a companion, or it has a wheel.
    :raises PackageFailed: its build backend stopped; its last words are given.
    :raises ToolchainMismatch: there is no Python of the target's version here.
    """
    target = found.target
    name = canonicalize_name(name)
    lacking = [one.name for one in found.entries if one.code == NO_WHEEL] + [
        line.partition("==")[0] for line in found.unbuilt
    ]
    if name not in lacking:
        raise UsageError(
            f"{name} is not a companion without a wheel for {target.device_name}",
            f"one of: {', '.join(lacking) or 'none'}",
        )
    sdist = _sdist(name, found, places)
    work = places.build / "companions" / f"{name}-{sdist.version}-{target.device_name}-{_python(target)}"
    console.step("fetch", f"{sdist.filename}, {console.size(sdist.size)}")
    archive = fetch_files([sdist], places.downloads)[sdist.filename]
    source = unpack_sdist(archive, work / "source")
    system = _table(source / "pyproject.toml").get("build-system", {})
    recipe = recipes().get(name, Recipe())
    made = environment(work, target, recipe, system.get("requires", ["setuptools"]), places)
    backend = [
        system.get("build-backend", "setuptools.build_meta:__legacy__"),
        *system.get("backend-path", []),
    ]
    console.step("build", f"{name} {sdist.version} for {target.device_name}, by {backend[0]}")
    wheel = finish(run(work, source, backend, made), target, places)
    built = _record(wheel, sdist, made, found, places)
    console.step("build", f"{wheel.name}, {console.size(wheel.stat().st_size)}, {built.code}")
    return built


def _python(target: Target) -> str:
    return "{}.{}".format(*target.python)


def _sdist(name: str, found: Companions, places: Places) -> FilePin:
    """The source distribution: of the version in the set, else the one that vLLM's sources name, else the newest."""
    version = next((line.partition("==")[2] for line in found.unbuilt if line.startswith(f"{name}==")), "")
    version = version or _named(name, found.target, places) or releases(name)[-1]
    pins = file_pins(name, version, "source", None)
    if not pins:
        raise CouldNotCheck(f"PyPI has no source of {name} {version}", "./inv companions --fresh")
    return pins[0]


def _named(name: str, target: Target, places: Places) -> str:
    """The version that vLLM's own sources tell a user to install; empty where they name none."""
    tag = "v" + target.label.removeprefix("v").partition("+")[0]
    try:
        pin = load_lock(tag).vllm.sdist
        archive = fetch_files([pin], places.downloads)[pin.filename] if pin else None
    except ArmoryError:
        return ""
    wanted = re.compile(rf"\b{'[-_]'.join(map(re.escape, name.split('-')))}==(\d[\w.]*\w)")
    for entry in entries(archive) if archive else ():
        if entry.kind == "file" and entry.path.suffix == ".py" and "vllm" in entry.path.parts[1:2]:
            text = b"".join(entry.pieces()).decode(errors="replace")
            if found := wanted.search(text):
                console.say(f"vLLM {tag} asks for {name} {found[1]} in {'/'.join(entry.path.parts[1:])}")
                return found[1]
    return ""


def _table(path: Path) -> dict[str, Any]:
    return parse_toml(path.read_text(encoding="utf-8")) if path.is_file() else {}


def environment(
    work: Path, target: Target, recipe: Recipe, requires: list[str], places: Places
) -> Environment:
    """Make the environment of a build: its requirements by hash, and what a build for another CPU needs.

    :param requires: ``build-system.requires`` of the project.
    :raises ToolchainMismatch: there is no Python of the target's version here, or uv refused.
    :raises MissingPackages: there is no cross compiler.
    """
    host = Host.this()
    distro.ensure(host, cross=host.machine != target.device.machine, install=False)
    base = process.run([uv(), "python", "find", "--no-project", _python(target)])
    if not base.ok:
        raise ToolchainMismatch(
            f"there is no Python {_python(target)} here, which the device has",
            f"uv python install {_python(target)}; or another: --python",
        )
    tags = tags_for(host.machine, target.python, host.glibc)
    wanted = [line for line in requires if not recipe.torch or Requirement(line).name != "torch"]
    platform = f"{host.machine}-manylinux_{host.glibc[0]}_{host.glibc[1]}"
    packages = compile_requirements([*wanted, "cmake", "ninja"], [], target.python, platform=platform)
    pins = [
        pin for package in packages for pin in best_wheels(pins_of(package, "build", frozenset(tags)), tags)
    ]
    files = fetch_files(pins, places.downloads)
    folder = work / "env"
    remove_tree(folder)
    python = folder / "bin/python"
    steps: list[list[str | Path]] = [
        ["venv", "--quiet", "--no-project", "--python", base.tail[-1], folder],
        [
            *["pip", "install", "--quiet", "--no-deps", "--no-index", "--python"],
            python,
            *(files[pin.filename] for pin in pins),
        ],
    ]
    for words in steps:
        done = process.run([uv(), *words], env=process.child_environment(UV_NO_CONFIG="1"))
        if not done.ok:
            raise ToolchainMismatch(
                f"the build environment could not be made: {' '.join(done.tail)[-400:]}", "./inv doctor"
            )
    variables = {
        "PATH": f"{folder / 'bin'}:{process.child_environment()['PATH']}",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "TORCH_CUDA_ARCH_LIST": target.device.arch_list,
        "MAX_JOBS": str(host.cores),
        **recipe.environment,
    }
    if host.machine != target.device.machine:
        variables |= _cross(work, target, python, places)
    if recipe.torch:
        site = process.capture([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        cross.write_standin(Path(site), _torch(target, places))
    return Environment(python, variables, pins)


def _torch(target: Target, places: Places) -> Path:
    """The torch of the device, unpacked."""
    wheel = torch_wheel(target.torch, target.device.machine, places)
    folder = places.toolkits / f"torch-{digest_of([wheel.name])}"
    return filled(folder, lambda into: unpack_wheel(wheel, into)) / "torch"


def _cross(work: Path, target: Target, python: Path, places: Places) -> dict[str, str]:
    """Variables by which Python, CMake and compilers build for the device's CPU."""
    machine = target.device.machine
    include = process.capture([python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"])
    headers = cross.python_headers(places.toolkits, Path(include), machine)
    toolchain = cross.toolchain_file(work / "toolchain.cmake", None, machine, headers)
    triplet = f"{machine}-linux-gnu"
    return {
        **cross.device_sysconfig(work / "sysconfig", python, headers, machine),
        "CMAKE_TOOLCHAIN_FILE": str(toolchain),
        "CMAKE_ARGS": f"-DPython_EXECUTABLE={python} -DPython3_EXECUTABLE={python}",
        "CC": f"{triplet}-gcc",
        "CXX": f"{triplet}-g++",
        "CPPFLAGS": f"-I{headers}",  # before the folder that setuptools names, this machine's
        "AR": f"{triplet}-ar",
    }


def run(work: Path, source: Path, backend: list[str], environment: Environment) -> Path:
    """Let the project's backend make its wheel.

    :raises PackageFailed: with its last words.
    """
    out, log = work / "out", work / "build.log"
    remove_tree(out)
    out.mkdir(parents=True)
    log.unlink(missing_ok=True)
    variables = {**process.child_environment(*process.COMPILER_LEAKS), **environment.variables}
    script = Path(__file__).with_name("backend.py")
    done = process.run([environment.python, script, out, *backend], cwd=source, env=variables, log=log)
    wheels = list(out.glob("*.whl"))
    if not done.ok or len(wheels) != 1:
        tail = "\n".join(done.tail[-15:])
        raise PackageFailed(f"its build stopped (whole log: {log}):\n{tail}", f"./inv diagnose {log}")
    return wheels[0]


def finish(made: Path, target: Target, places: Places) -> Path:
    """Put the wheel among the wheels, with the platform tag that its modules' glibc asks for."""
    needs = judging.glibc_of(made)
    platform = f"manylinux_{needs[0]}_{needs[1]}_{target.device.machine}" if needs else None
    return rewrite(made, places.wheels, Edits(platform=platform) if platform else Edits(), epoch=EPOCH)


def _record(
    wheel: Path, sdist: FilePin, environment: Environment, found: Companions, places: Places
) -> Built:
    """Judge the wheel as any companion's, and write down what it was made from.

    :raises CouldNotCheck: it does not run on the device, or needs what is not in the set.
    """
    target = found.target
    with contextlib.ExitStack() as stack:
        torch = libraries(target.torch, target.device.machine, places, stack)
        judged = judging.judge(wheel, target.device, torch)
    there = {canonicalize_name(pin.project) for pin in found.locked}
    with Wheel(wheel) as opened:
        needs = [Requirement(line) for line in opened.requires]
    markers = {"extra": "", "python_version": _python(target), "platform_machine": target.device.machine}
    lost = [
        str(one)
        for one in needs
        if (not one.marker or one.marker.evaluate(markers)) and canonicalize_name(one.name) not in there
    ]
    if judged.code not in judging.RUNS or lost:
        why = f"it needs {', '.join(lost)}, which is not in the set" if lost else judged.reason
        wheel.unlink()
        raise CouldNotCheck(f"{wheel.name} was built and does not run: {why}", "report this companion")
    built = Built(
        name=sdist.project, version=sdist.version, wheel=wheel.name, sha256=file_sha256(wheel),
        code=judged.code, reason=f"built here from {sdist.filename}: {judged.reason}",
        device=target.device_name, torch=target.torch, python=_python(target),
        sdist=sdist.sha256, build={pin.filename: pin.sha256 for pin in environment.pins},
    )  # fmt: skip
    write_atomic(built.path(places), json.dumps(built.as_dict(), indent=1))
    return built
