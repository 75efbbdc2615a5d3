"""A CMakeLists.txt evaluated by the real cmake, without compilers: which modules it defines from which
sources, and for which architectures each source would be compiled.

Script mode (``cmake -P``) has no projects and targets, so those commands are defined here as functions that
write down what they are given; everything else, the tree's own cmake/utils.cmake too, runs as it is.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.errors import ConfigureFailed, MissingPackages

_SILENT = """project find_package find_library enable_language install target_compile_options
target_compile_definitions target_include_directories target_link_libraries target_sources add_dependencies
set_target_properties set_source_files_properties add_subdirectory add_library add_executable
FetchContent_Declare FetchContent_MakeAvailable FetchContent_GetProperties FetchContent_Populate"""

_RECORDER = r"""
function(add_custom_target name)
  message(NOTICE "@empty|${name}")
endfunction()
function(Python_add_library name)
  message(NOTICE "@module|${name}|${ARGN}")
endfunction()
macro(include _file)
  if("${_file}" STREQUAL "FetchContent")
  elseif("${_file}" MATCHES "/external_projects/" AND NOT "${_file}" MATCHES "/(${ARMORY_EXTERNAL})[.]cmake$")
    message(NOTICE "@other|${_file}")
  else()
    _include(${_file} ${ARGN})
  endif()
endmacro()
macro(set_property scope)
  if("${scope}" STREQUAL "SOURCE")
    cmake_parse_arguments(SP "APPEND" "" "SOURCE;PROPERTY" SOURCE ${ARGN})
    string(REGEX MATCH "-gencode[^>]*" _flag "${SP_PROPERTY}")
    foreach(_src IN LISTS SP_SOURCE)
      message(NOTICE "@gencode|${_src}|${_flag}")
    endforeach()
  endif()
endmacro()
macro(file _kind)  # a tree that is asked is not written to, and external trees are not here to be read
  if(NOT "${_kind}" MATCHES "^(WRITE|APPEND|READ|MAKE_DIRECTORY)$")
    _file(${_kind} ${ARGN})
  endif()
endmacro()
macro(execute_process)
  cmake_parse_arguments(EP "" "RESULT_VARIABLE;OUTPUT_VARIABLE;ERROR_VARIABLE" "" ${ARGN})
  set(${EP_OUTPUT_VARIABLE} 0)
  set(${EP_ERROR_VARIABLE} "")
  set(${EP_RESULT_VARIABLE} 0)
endmacro()
foreach(_v Python_Interpreter_FOUND Python_FOUND CUDA_FOUND Torch_FOUND TORCH_FOUND)
  set(${_v} TRUE)
endforeach()
set(Python_VERSION 3.12)
set(Python_VERSION_MAJOR 3)
set(Python_VERSION_MINOR 12)
set(Python_EXECUTABLE python3)
set(VLLM_PYTHON_EXECUTABLE python3)
set(NVCC_EXECUTABLE nvcc)
set(CMAKE_CUDA_COMPILER_VERSION ${ARMORY_NVCC})
set(CUDA_VERSION ${ARMORY_NVCC})
set(Torch_VERSION 2.9.0)
set(CMAKE_CUDA_FLAGS " ${ARMORY_GENCODE}")
set(VLLM_GPU_LANG CUDA)
include(${CMAKE_CURRENT_SOURCE_DIR}/CMakeLists.txt)
message(NOTICE "@flags|${VLLM_GPU_FLAGS}")
"""


@dataclass
class Evaluation:
    """What a CMakeLists.txt says for one list of architectures."""

    modules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Extension modules and their sources, as written or made relative to the tree."""
    empty: set[str] = field(default_factory=set)
    """Targets that build nothing."""
    gencode: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For each source its ``-gencode`` values: ``arch=compute_110f,code=sm_110f``."""
    definitions: set[str] = field(default_factory=set)
    """Names of the ``-D`` of the GPU flags at the end."""

    def units(self, module: str) -> list[str]:
        """The CUDA units of a module, each once."""
        return list(dict.fromkeys(s for s in self.modules.get(module, ()) if s.endswith(".cu")))

    def codes(self, source: str) -> set[str]:
        """What a source is compiled to: ``sm_110f``, ``compute_80``..."""
        return {value.rsplit("code=", 1)[-1] for value in self.gencode.get(source, ())}


def evaluate(
    tree: Path,
    archs: str,
    *,
    nvcc: str = "13.0.88",
    given: bool = False,
    external: tuple[str, ...] = (),
    compiler: tuple[str, str] | None = None,
) -> Evaluation:
    """Evaluate the CMakeLists.txt of ``tree``; trees that are alike to CMake are evaluated once.

    :param archs: architectures, ``11.0`` or ``8.7;9.0``, as TORCH_CUDA_ARCH_LIST has them.
    :param given: hand them over as CUDA_ARCHS, as vLLM does to the trees it includes, not as flags of torch.
    :param external: names of ``cmake/external_projects`` files that are evaluated with it.
    :param compiler: CMake's id and the version of the C++ compiler, ``GNU`` and ``12.2.0``; unknown where it is None.
    :raises ConfigureFailed: cmake stopped.
    """
    key = (_inputs(tree), archs, nvcc, given, external, compiler)
    if key not in _known:
        _known[key] = _evaluate(tree, archs, nvcc, given=given, external=external, compiler=compiler)
    return _known[key]


_known: dict[tuple[object, ...], Evaluation] = {}


def _inputs(tree: Path) -> str:
    """A digest of what CMake sees: its files' content, and the names of the sources (for GLOB)."""
    digest = hashlib.sha256()
    for path in sorted([tree / "CMakeLists.txt", *(tree / "cmake").rglob("*.cmake")]):
        digest.update(f"{path.relative_to(tree)}\n".encode() + path.read_bytes())
    for folder in ("csrc", "hopper"):
        for path in sorted((tree / folder).rglob("*.cu")):
            digest.update(f"{path.relative_to(tree)}\n".encode())
    return digest.hexdigest()


def _evaluate(
    tree: Path,
    archs: str,
    nvcc: str,
    *,
    given: bool,
    external: tuple[str, ...],
    compiler: tuple[str, str] | None,
) -> Evaluation:
    gencode = " ".join(
        f"-gencode arch=compute_{a},code=sm_{a}" for a in (x.replace(".", "") for x in archs.split(";"))
    )
    found = Evaluation()
    named = dict(zip(("ID", "VERSION"), compiler or (), strict=False))
    with tempfile.TemporaryDirectory(prefix="armory-cmake-") as name:
        folder = Path(name)
        script = folder / "evaluate.cmake"
        silent = "".join(f"function({word})\nendfunction()\n" for word in _SILENT.split())
        (folder / "cutlass").mkdir()
        (folder / "cutlass/cutlass.h").touch()
        script.write_text(silent + _RECORDER, encoding="utf-8")
        done = process.run(
            [
                _program(),
                f"-DARMORY_NVCC={nvcc}",
                f"-DARMORY_GENCODE={gencode}",
                f"-DARMORY_EXTERNAL={'|'.join(external) or 'none'}",
                *(f"-D{name}_SOURCE_DIR=/{name}" for name in external),
                *([f"-DCUTLASS_INCLUDE_DIR={folder}"] if external else []),
                *([f"-DCUDA_ARCHS={archs}"] if given else []),
                *(f"-DCMAKE_CXX_COMPILER_{key}={value}" for key, value in named.items()),
                "-P",
                script,
            ],
            cwd=tree,
            on_line=lambda line: _take(found, line, tree),
            tail_lines=12,
        )
    if not done.ok:
        raise ConfigureFailed(
            f"cmake cannot evaluate {tree / 'CMakeLists.txt'} for {archs}:\n" + "\n".join(done.tail),
            "is this a whole source tree? unpack it again",
        )
    return found


def _take(found: Evaluation, line: str, tree: Path) -> None:
    kind, _, rest = line.partition("|")
    if kind == "@empty":
        found.empty.add(rest)
    elif kind == "@module":
        name, _, words = rest.partition("|")
        found.modules[name] = tuple(
            _relative(word, tree) for word in words.split(";") if re.search(r"\.(cu|cpp|cc|c)$", word)
        )
    elif kind == "@gencode":
        source, _, flag = rest.partition("|")
        value = flag.removeprefix("-gencode").lstrip("; ")
        name = _relative(source, tree)
        found.gencode[name] = (*found.gencode.get(name, ()), value)
    elif kind == "@flags":
        found.definitions = {w[2:].split("=")[0] for w in rest.split(";") if w.startswith("-D")}


def _relative(source: str, tree: Path) -> str:
    return source.removeprefix(f"{tree.resolve()}/").removeprefix(f"{tree}/")


def _program() -> str:
    beside = Path(sys.executable).parent / "cmake"
    found = str(beside) if beside.exists() else shutil.which("cmake")
    if found is None:
        raise MissingPackages("cmake is not installed", "run ./inv once; it brings its own cmake")
    return found
