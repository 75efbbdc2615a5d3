"""CUDA toolkits: the one that is given, one of the system, or one assembled from NVIDIA's wheels.

Wheels on PyPI hold the whole compiler (``nvidia-cuda-nvcc``, ``-crt``, ``nvidia-nvvm``) and the libraries
of both architectures, so no root is needed. They are laid out as ``nvidia/cu13/{bin,include,lib,nvvm}`` and
ship no ``lib*.so`` link names and no ``libcuda`` stub; both are added here.

A cross toolkit has the host's ``bin`` and ``nvvm`` and, beside them, ``targets/x86_64-linux`` and
``targets/sbsa-linux``, which is where ``nvcc --target-directory=sbsa-linux`` looks.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from build_recipes.kit import process
from build_recipes.kit.errors import ToolchainMismatch, ToolFailed
from build_recipes.kit.once import filled, remove_tree
from build_recipes.toolchain.unpack import digest_of, unpack_wheel

TARGET_DIRECTORY = {"aarch64": "sbsa-linux", "x86_64": "x86_64-linux"}
"""nvcc's name for a CPU, as used below ``targets/``."""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit that can compile for one CPU."""

    home: Path
    """What CUDA_HOME is set to."""
    version: str
    """nvcc's full version, ``13.0.88``."""
    origin: str
    """``given``, ``system`` or ``wheels``."""
    target_directory: str
    """Name below ``targets/`` when cross-compiling, else empty."""

    @property
    def nvcc(self) -> Path:
        """The compiler driver."""
        return self.home / "bin/nvcc"

    @property
    def libraries(self) -> Path:
        """Folder of the target's CUDA libraries."""
        return (
            self.home / "targets" / self.target_directory / "lib"
            if self.target_directory
            else self.home / "lib64"
        )


def nvcc_version(nvcc: Path) -> str:
    """``13.0.88`` from ``nvcc --version``.

    :raises ToolchainMismatch: it cannot be run or does not answer as nvcc does.
    """
    try:
        text = process.capture([nvcc, "--version"])
    except ToolFailed as error:
        raise ToolchainMismatch(
            f"{nvcc} does not run: {error.words}", "set CUDA_HOME to a CUDA toolkit, or unset it"
        ) from None
    found = re.search(r"\bV(\d+\.\d+\.\d+)", text)
    if not found:
        raise ToolchainMismatch(
            f"{nvcc} did not say its version: {text[:200]}", "set CUDA_HOME to a CUDA toolkit"
        )
    return found.group(1)


def check_version(version: str, wanted: str, where: Path) -> None:
    """Refuse a toolkit outside ``wanted`` (a PEP 440 specifier).

    :raises ToolchainMismatch: with which side it misses on.
    """
    if not SpecifierSet(wanted).contains(version):
        raise ToolchainMismatch(
            f"the CUDA toolkit in {where} is {version}; this device and tag need {wanted}",
            "unset CUDA_HOME to let the build assemble a fitting toolkit from PyPI's wheels, or point it at one",
        )


def system_toolkits() -> Iterable[Path]:
    """Toolkits installed in the usual places, newest first."""
    found = sorted(Path("/usr/local").glob("cuda-*"), key=_version_key, reverse=True)
    for home in [*found, Path("/usr/local/cuda"), Path("/opt/cuda")]:
        if (home / "bin/nvcc").exists():
            yield home


def _version_key(home: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", home.name))


def assemble(
    cache: Path, version: str, compiler: Sequence[Path], libraries: Sequence[Path], *, host: str, target: str
) -> Toolkit:
    """A toolkit made of wheels.

    :param cache: folder of assembled toolkits.
    :param version: nvcc's version, only for the folder's name.
    :param compiler: wheels for the machine that compiles (``host``).
    :param libraries: wheels for the machine that runs (``target``); ignored where both are the same.
    """
    cross = host != target
    names = [path.name for path in (*compiler, *(libraries if cross else ()))]
    folder = cache / f"cuda-{version}-{host}{f'-for-{target}' if cross else ''}-{digest_of(names)}"

    def fill(into: Path) -> None:
        _gather(compiler, into)
        if not cross:
            (into / "lib64").symlink_to("lib")
            _complete(into, f"{host}-linux-gnu-g++" if shutil.which(f"{host}-linux-gnu-g++") else "g++")
            return
        own = into / "targets" / TARGET_DIRECTORY[host]
        own.mkdir(parents=True)
        for name in ("include", "lib"):
            (into / name).rename(own / name)
            (into / name).symlink_to(own.relative_to(into) / name)
        (into / "lib64").symlink_to("lib")
        other = into / "targets" / TARGET_DIRECTORY[target]
        _gather(libraries, other, keep=("include/", "lib/"))
        _complete(other, f"{target}-linux-gnu-g++")

    home = filled(folder, fill)
    return Toolkit(home, nvcc_version(home / "bin/nvcc"), "wheels", TARGET_DIRECTORY[target] if cross else "")


def has_libraries(home: Path) -> bool:
    """Whether a toolkit has the libraries that torch's CMake asks for, beside the compiler."""
    return (home / "include/cublas_v2.h").exists()


def installed_libraries(site: Path) -> Path | None:
    """The CUDA headers and libraries that pip installed beside a torch (``nvidia/cu13``), where they are."""
    root = site / "nvidia/cu13"
    return root if has_libraries(root) else None


def complete(home: Path, wheels: Path, into: Path) -> Toolkit:
    """A toolkit of ``home``'s compiler and, for what it lacks, the libraries of pip's CUDA wheels.

    For machines that have nvcc and a torch from PyPI, but not the whole toolkit of the distribution.

    :param wheels: ``site-packages/nvidia/cu13``.
    :param into: folder that is made again.
    """
    remove_tree(into)
    for name, of_home in (("bin", "bin"), ("nvvm", "nvvm"), ("include", "include"), ("lib", "lib64")):
        shutil.copytree(home / of_home, into / name, copy_function=_link)
    for name in ("include", "lib"):
        for source in sorted((wheels / name).rglob("*")):
            target = into / name / source.relative_to(wheels / name)
            if source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source, target)
    (into / "lib64").symlink_to("lib")
    own = into / "targets" / TARGET_DIRECTORY[platform.machine()]  # nvcc.profile may look there
    own.mkdir(parents=True)
    for name in ("include", "lib"):
        (own / name).symlink_to(Path("../..") / name)
    _complete(into, "g++")
    return Toolkit(into, nvcc_version(into / "bin/nvcc"), f"{home} and the CUDA wheels beside torch", "")


def _link(source: str | Path, target: str | Path) -> None:
    """A hard link of a file, or a copy where the file system does not allow one."""
    real = Path(source).resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copy2(real, target)


def _gather(wheels: Sequence[Path], into: Path, keep: tuple[str, ...] = ("",)) -> None:
    """Unpack ``nvidia/cu13/*`` of many wheels into one tree."""
    prefix = "nvidia/cu13/"
    into.mkdir(parents=True, exist_ok=True)
    scratch = into / ".wheels"
    for wheel in wheels:
        unpack_wheel(
            wheel,
            scratch,
            lambda name: (
                name.startswith(prefix) and name[len(prefix) :].startswith(keep) and "/." not in name
            ),
        )
    root = scratch / prefix
    for source in sorted(root.rglob("*")) if root.exists() else []:
        if source.is_file():
            target = into / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    remove_tree(scratch)
    for program in [*(into / "bin").glob("*"), *(into / "nvvm/bin").glob("*")]:
        if program.is_file():
            program.chmod(0o755)


def _complete(root: Path, compiler: str) -> None:
    """Add what the wheels leave out: ``lib*.so`` link names and the driver stub."""
    library_folder = root / "lib"
    for library in sorted(library_folder.glob("lib*.so.*")):
        link = library_folder / (library.name.split(".so.")[0] + ".so")
        if not link.exists():
            link.symlink_to(library.name)
    if not (library_folder / "stubs/libcuda.so").exists():
        _driver_stub(root / "include/cuda.h", library_folder / "stubs", compiler)


def _driver_stub(header: Path, folder: Path, compiler: str) -> None:
    """Make ``stubs/libcuda.so`` (soname ``libcuda.so.1``) with every name that cuda.h declares.

    No wheel has one. An empty stub will not do: under ``--as-needed`` the linker would drop the NEEDED entry.
    """
    names = sorted(set(re.findall(r"\bcu[A-Z]\w+\b", header.read_text(errors="replace"))))
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "libcuda.c"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in names))
    process.capture(
        [
            compiler.replace("g++", "gcc"),
            *("-shared", "-fPIC", "-nostdlib", "-w", "-Wl,-soname,libcuda.so.1"),
            *("-o", folder / "libcuda.so", source),
        ]
    )
    source.unlink()
