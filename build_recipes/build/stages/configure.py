"""Configure: vLLM's own CMake in the build's environment, done again only where something of it changed."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from build_recipes.build.plan import Plan
from build_recipes.build.stages import record, sources
from build_recipes.build.stages.advice import advice_for
from build_recipes.build.stages.given import bound_compiler
from build_recipes.build.stages.provision import Provisioned
from build_recipes.kit import evidence, process
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import (
    ConfigureFailed,
)
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import makeup
from build_recipes.toolchain import ccache, cross

LAUNCHER = Path(__file__).resolve().parent.parent / "units/unit.py"


def build_environment(plan: Plan, fetched: Fetched, made: Provisioned) -> dict[str, str]:
    """The whole environment of the build: this process's, less what would leak into it, plus the plan's."""
    linked = makeup(fetched.vllm).linked
    variables = {
        tree.variable: fetched.trees[tree.name]
        for tree in plan.lock.trees
        if tree.variable and tree.name in fetched.trees and tree.name not in linked
    }
    own = plan.environment(made.cuda_home, made.python, variables)
    compiler = bound_compiler(plan)
    if plan.cross:
        answers = cross.device_python(
            plan.tree / "device-python",
            made.python,
            plan.host.python,
            plan.tree / "python-headers",
            plan.device.machine,
        )
        # read by tools/build_deepgemm_C.py, from 0.22 on; CMake's own compilers are those of the toolchain file
        own |= {"DEEPGEMM_PYTHON_INTERPRETERS": str(answers), **({"CXX": compiler.cxx} if compiler else {})}
    elif compiler and not compiler.default:
        cxx = compiler.cxx
        own |= {"CC": compiler.cc, "CXX": cxx, "CUDAHOSTCXX": cxx, "NVCC_CCBIN": shutil.which(cxx) or cxx}
    return {
        **process.child_environment(*process.COMPILER_LEAKS),
        **record.scratch_environment(plan.tree),
        **own,
        **ccache.environment(plan.places.cache, plan.request.cache),
    }


def cmake_arguments(plan: Plan, fetched: Fetched, made: Provisioned) -> list[str]:
    """What CMake is called with."""
    folder = plan.tree / "cmake"
    launcher = [str(made.python), "-I", "-S", str(_launcher(plan))]
    cache = ccache.launcher(plan.request.cache)
    return [
        *("-S", str(fetched.vllm), "-B", str(folder), "-G", "Ninja"),
        f"-DCMAKE_BUILD_TYPE={plan.request.build_type}",
        "-DVLLM_TARGET_DEVICE=cuda",
        f"-DVLLM_PYTHON_EXECUTABLE={made.python}",
        # another ninja than the one that builds would not read its log, and all would be compiled again
        f"-DCMAKE_MAKE_PROGRAM={made.python.parent / 'ninja'}",
        f"-DCMAKE_CUDA_COMPILER={made.cuda_home}/bin/nvcc",
        f"-DFETCHCONTENT_BASE_DIR={plan.tree / 'deps'}",
        "-DFETCHCONTENT_FULLY_DISCONNECTED=OFF",
        "-DNVCC_THREADS=1",
        "-DCMAKE_SKIP_BUILD_RPATH=ON",  # it is taken out at the install, but stays in the link's build id
        # nvcc names its temporary files by its process, and they name themselves in local symbols
        *(f"-DCMAKE_{kind}_LINKER_FLAGS=-Wl,--discard-all" for kind in ("MODULE", "SHARED")),
        *(
            f"-DCMAKE_{language}_COMPILER_LAUNCHER={';'.join([*launcher, *cache])}"
            for language in ("C", "CXX", "CUDA")
        ),
        # where a variable of vLLM's names a local copy, its files would be linked into the wheel; FetchContent's own
        # variable names it without that (https://cmake.org/cmake/help/latest/module/FetchContent.html)
        *(
            f"-DFETCHCONTENT_SOURCE_DIR_{name.upper()}={fetched.trees[name]}"
            for name in makeup(fetched.vllm).linked
            if name in fetched.trees
        ),
        *([f"-DCMAKE_TOOLCHAIN_FILE={made.toolchain_file}"] if made.toolchain_file else []),
    ]


def configure(plan: Plan, fetched: Fetched, made: Provisioned, environment: Mapping[str, str]) -> Path:
    """Run CMake, unless the tree is configured with the same arguments.

    :raises ConfigureFailed: with CMake's own last words.
    """
    folder = plan.tree / "cmake"
    arguments = cmake_arguments(plan, fetched, made)

    def work() -> dict[str, str]:
        _clear(plan.tree, folder)
        run_cmake(plan, made, arguments, environment)
        return {"folder": str(folder), "build": str(folder / "build.ninja")}

    seal = {
        "arguments": arguments,
        "patches": plan.patches,
        "device": plan.device.arch_list,
        "trees": sorted(str(path) for path in fetched.trees.values()),
        "sources": dict(fetched.seals),
        "toolchain": [made.torch_version, made.cuda_version],
    }
    record.once(
        plan.tree,
        "configure",
        seal,
        work,
        files=lambda: _configured(plan.tree),
        anew=(
            f"{folder.name}/",
            "deps/",
        ),  # ninja runs CMake again where its output looks older than its input
    )
    return folder


def run_cmake(
    plan: Plan, made: Provisioned, arguments: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Run CMake, its words in a log of their own.

    :raises ConfigureFailed: with CMake's own last words.
    """
    log = plan.tree / "logs/configure.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    done = process.run([made.python.parent / "cmake", *arguments], env=environment, log=log)
    if not done.ok:
        words = "\n".join(line for line in done.tail[-30:] if line.strip())
        raise ConfigureFailed(
            f"CMake stopped{where_stopped(done.tail)} (whole log: {log}):\n{words}", advice_for(log)
        )


def where_stopped(lines: Sequence[str]) -> str:
    """`` at CMakeLists.txt:579: Machete generation failed``, from the last error that CMake told; empty without one."""
    heads = [number for number, line in enumerate(lines) if line.startswith("CMake Error at ")]
    if not heads:
        return ""
    told = itertools.takewhile(lambda line: line.startswith(" "), filter(None, lines[heads[-1] + 1 :]))
    place = lines[heads[-1]].removeprefix("CMake Error at ").split(" (")[0]
    return f" at {place}: {' '.join(' '.join(told).split())[:200]}"


def _configured(tree: Path) -> list[str]:
    """Files that configure leaves: CMake's own, and what vLLM's CMake generates among the sources."""
    own = [name for name in evidence.names_below(tree, "cmake", "deps") if not _of_ninja(name)]
    return own + sources.generated(tree)


def _clear(tree: Path, folder: Path) -> None:
    """Remove what an earlier configure left, but not what ninja made: CMake would read some of it again.

    Without a ``build.ninja`` CMake forgets ninja's logs, and every unit would be compiled again: an empty one stays.
    """
    for name in evidence.names_below(tree, folder.name, "deps"):
        if not _of_ninja(name):
            (tree / name).unlink()
    folder.mkdir(exist_ok=True)
    (folder / "build.ninja").touch()


def _of_ninja(name: str) -> bool:
    return name.endswith((".o", ".a", ".so", "/.ninja_log", "/.ninja_deps"))


def _launcher(plan: Plan) -> Path:
    """The launcher as a file of the tree: its path is part of every command, and a command that changes is a
    unit that is compiled again."""
    target = plan.tree / "unit.py"
    content = LAUNCHER.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        write_atomic(target, content)
    return target
