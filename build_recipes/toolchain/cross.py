"""What CMake needs to build vLLM for another CPU: a toolchain file, Python headers, a stand-in torch.

vLLM's CMake asks the host's Python for torch (``torch.utils.cmake_prefix_path`` and nvcc flags) but links the
target's libraries. The stand-in is a module that answers those questions from the target's own torch tree,
so nothing about torch is written down here. All of it was shown to work on vLLM v0.12.0 with torch 2.11.0.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import MissingPackages
from build_recipes.kit.once import filled
from build_recipes.toolchain.compilers import Compiler
from build_recipes.toolchain.cuda import Toolkit

STANDIN = '''"""Answers what vLLM's build asks of torch, from the torch of the target machine.

This is not torch: it has no tensors. It is here because the target's torch cannot be imported on this CPU.
"""

import pathlib as _pathlib
import types as _types

_ROOT = _pathlib.Path({root!r})
_facts = {{}}
exec((_ROOT / "version.py").read_text(), _facts)
__version__ = _facts["__version__"]
version = _types.ModuleType("torch.version")
version.__dict__.update(__version__=__version__, cuda=_facts.get("cuda"), hip=_facts.get("hip"))

from torch import utils  # noqa: E402,F401  vLLM's CMake says `import torch; torch.utils...`


def compiled_with_cxx11_abi():
    """What the target's torch tells CMake."""
    return "_GLIBCXX_USE_CXX11_ABI=0" not in (_ROOT / "share/cmake/Torch/TorchConfig.cmake").read_text()
'''

STANDIN_EXTENSION = '''"""The constants of torch.utils.cpp_extension that vLLM's build reads."""

import ast
import os

from torch import _ROOT


def _constant(name):
    tree = ast.parse((_ROOT / "utils/cpp_extension.py").read_text())
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(getattr(target, "id", None) == name for target in targets):
            return ast.literal_eval(node.value)
    raise AttributeError(name)


COMMON_NVCC_FLAGS = _constant("COMMON_NVCC_FLAGS")
CUDA_HOME = os.environ["CUDA_HOME"]
ROCM_HOME = None
_TARGET = os.path.join(CUDA_HOME, "targets/sbsa-linux")


def include_paths(device_type="cpu"):
    """Folders of headers, as the real function gives them: torch's, then CUDA's for the target."""
    own = [str(_ROOT / "include"), str(_ROOT / "include/torch/csrc/api/include")]
    return own + ([os.path.join(_TARGET, "include")] if device_type == "cuda" else [])


def library_paths(device_type="cpu"):
    """Folders of libraries, torch's and CUDA's for the target."""
    return [str(_ROOT / "lib")] + ([os.path.join(_TARGET, "lib")] if device_type == "cuda" else [])
'''


def write_standin(site_packages: Path, torch: Path) -> None:
    """Install the stand-in ``torch`` module into a build environment.

    :param torch: the target's unpacked ``torch`` package folder.
    """
    write_atomic(site_packages / "torch/__init__.py", STANDIN.format(root=str(torch)))
    write_atomic(
        site_packages / "torch/utils/__init__.py",
        f"cmake_prefix_path = {str(torch / 'share/cmake')!r}\n",
    )
    write_atomic(site_packages / "torch/utils/cpp_extension.py", STANDIN_EXTENSION)


DEVICE_PYTHON = """#!{python}
# Answers for the device's Python: what it would say of its headers and of the names of its extension modules.
import sys
import sysconfig

known = {{"SOABI": {soabi!r}, "EXT_SUFFIX": {suffix!r}, "INCLUDEPY": {headers!r}, "MULTIARCH": {triplet!r}}}
real = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: known.get(name, real(name))
if sys.argv[1:2] != ["-c"]:
    sys.exit("only -c is answered here")
exec(compile(sys.argv[2], "-c", "exec"), {{"__name__": "__main__"}})
"""


def device_python(path: Path, python: Path, version: tuple[int, int], headers: Path, machine: str) -> Path:
    """A program that answers ``sysconfig`` questions as the Python of the target machine would.

    DeepGEMM's module is built by a script of vLLM's own (tools/build_deepgemm_C.py), which asks each Python of
    ``DEEPGEMM_PYTHON_INTERPRETERS`` so.
    """
    triplet = f"{machine}-linux-gnu"
    soabi = f"cpython-{version[0]}{version[1]}-{triplet}"
    text = DEVICE_PYTHON.format(
        python=python, soabi=soabi, suffix=f".{soabi}.so", headers=str(headers), triplet=triplet
    )
    write_atomic(path, text)
    path.chmod(0o755)
    return path


SYSCONFIG = """import importlib, json, sysconfig
print(json.dumps(importlib.import_module(sysconfig._get_sysconfigdata_name()).build_time_vars))"""


def device_sysconfig(folder: Path, python: Path, headers: Path, machine: str) -> dict[str, str]:
    """Variables under which a Python of this machine answers ``sysconfig`` as the device's would.

    It is CPython's own way for a cross build: ``_PYTHON_SYSCONFIGDATA_NAME`` names the module that holds the
    answers, ``_PYTHON_HOST_PLATFORM`` the platform (Lib/sysconfig.py).
    """
    own = json.loads(process.capture([python, "-c", SYSCONFIG]))
    triplet, programs = (
        f"{machine}-linux-gnu",
        {"CC": "gcc", "CXX": "g++", "AR": "ar", "LDSHARED": "gcc -shared"},
    )
    known = {
        key: value.replace("x86_64-linux-gnu", triplet) if isinstance(value, str) else value
        for key, value in own.items()
    }
    known |= {key: f"{triplet}-{program}" for key, program in programs.items()}
    known |= {"INCLUDEPY": str(headers), "CONFINCLUDEPY": str(headers)}
    name = f"_sysconfigdata__linux_{triplet}"
    write_atomic(folder / f"{name}.py", f"build_time_vars = {known!r}\n")
    return {
        "_PYTHON_SYSCONFIGDATA_NAME": name,
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        "PYTHONPATH": str(folder),
    }


def python_headers(cache: Path, include: Path, machine: str) -> Path:
    """CPython headers for ``machine``, made from the host's.

    The modules use the limited API, so only ``pyconfig.h`` differs between two 64-bit Linux CPUs: the x86
    assembly switches go, and ``wchar_t`` is unsigned on Arm (``HAVE_USABLE_WCHAR_T``, see CPython's configure.ac).

    :param include: the host's include folder (``sysconfig.get_path("include")``).
    :raises MissingPackages: the host has no Python headers.
    """
    if not (include / "Python.h").exists():
        raise MissingPackages(
            f"Python's headers are not installed ({include}/Python.h is missing)",
            "apt-get install -y python3-dev",
        )
    version = include.name

    def fill(into: Path) -> None:
        shutil.copytree(include, into, dirs_exist_ok=True)
        config = into / "pyconfig.h"
        text = config.read_text()
        multiarch = re.search(r"#\s*include\s+<(\S+-linux-gnu\S*/pyconfig\.h)>", text)
        if multiarch:  # Debian: pyconfig.h only forwards to the one of the architecture
            text = (include.parent / f"x86_64-linux-gnu/{version}/pyconfig.h").read_text()
        for name in ("HAVE_GCC_ASM_FOR_X64", "HAVE_GCC_ASM_FOR_X87"):
            text = re.sub(rf"^#define {name} .*$", f"/* #undef {name} */", text, flags=re.MULTILINE)
        text = re.sub(
            r"^/\* #undef HAVE_USABLE_WCHAR_T \*/$", "#define HAVE_USABLE_WCHAR_T 1", text, flags=re.MULTILINE
        )
        config.write_text(text)

    return filled(cache / f"{version}-headers-{machine}", fill)


def toolchain_file(
    path: Path, toolkit: Toolkit | None, machine: str, headers: Path, compiler: Compiler | None = None
) -> Path:
    """Write the CMake toolchain file for cross-compiling to ``machine``.

    :param toolkit: None for a project without CUDA.
    :param compiler: the distribution's default where it is None.

    ``--target-directory=`` is written in one word: with a space, sccache caches nothing.
    """
    triplet = f"{machine}-linux-gnu"
    compiler = compiler or Compiler(f"{triplet}-g++", "")
    lines = [
        "# Written by vllm-armory; see docs/cross-compile.md.",
        "set(CMAKE_SYSTEM_NAME Linux)",
        f"set(CMAKE_SYSTEM_PROCESSOR {machine})",
        f"set(CMAKE_LIBRARY_ARCHITECTURE {triplet})",
        f"set(CMAKE_C_COMPILER {compiler.cc})",
        f"set(CMAKE_CXX_COMPILER {compiler.cxx})",
        *(_cuda(toolkit, compiler) if toolkit else ()),
        "set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)",
        f"set(Python_INCLUDE_DIR {headers})",
        "set(Python_SOABI abi3)",
        "set(Python_SOSABI abi3)",
    ]
    write_atomic(path, "\n".join(lines) + "\n")
    return path


def _cuda(toolkit: Toolkit, compiler: Compiler) -> list[str]:
    return [
        f"set(CMAKE_CUDA_COMPILER {toolkit.nvcc})",
        f"set(CMAKE_CUDA_HOST_COMPILER {compiler.cxx})",
        f'set(CMAKE_CUDA_FLAGS_INIT "--target-directory={toolkit.target_directory}")',
        f"set(ENV{{CUDA_TOOLKIT_ROOT}} {toolkit.home})",
        f"set(CUDAToolkit_ROOT {toolkit.home})",
        f"set(CUDA_TOOLKIT_ROOT_DIR {toolkit.home})",
        f"set(CUDA_TOOLKIT_TARGET_NAME {toolkit.target_directory})",
    ]
