"""A sysroot: the C library of an older release, that a cross build is bound to in place of this machine's.

A compiler for another CPU that a distribution packages has its own copy of that CPU's newest C library, in folders
of its own that it searches before a ``--sysroot``. So the compiler is called through a small program that names every
folder: its own for C++ and its builtins, the sysroot's for the rest. The C++ library stays the compiler's; what a
module needs of it is judged by the audit.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import UsageError
from build_recipes.toolchain.compilers import Compiler

ADVICE = (
    "make one of the packages of the board's own release: mmdebstrap --variant=extract --architectures=arm64 "
    "--include=libc6-dev,libstdc++6 jammy DIR http://ports.ubuntu.com/ubuntu-ports (or bullseye DIR "
    "http://deb.debian.org/debian)"
)


@dataclass(frozen=True)
class Sysroot:
    """A folder with the headers and libraries of a release."""

    folder: Path
    triplet: str
    """``aarch64-linux-gnu``: Debian's multiarch name of the CPU."""
    glibc: tuple[int, int]
    identity: str
    """Hash of its C library: another one makes other modules."""

    @property
    def headers(self) -> list[Path]:
        """Folders of headers, in the order in which they are searched."""
        include = self.folder / "usr/include"
        return [folder for folder in (include / self.triplet, include) if folder.is_dir()]

    @property
    def libraries(self) -> list[Path]:
        """Folders of libraries."""
        names = (f"usr/lib/{self.triplet}", f"lib/{self.triplet}", "usr/lib64", "lib64")
        return [folder for name in names if (folder := self.folder / name).is_dir()]


def read(folder: Path, machine: str) -> Sysroot:
    """The sysroot in a folder.

    :param machine: CPU that it must be of.
    :raises UsageError: it is none, lacks the files that a compiler links with, or is of another CPU.
    """
    folder, triplet = folder.resolve(), f"{machine}-linux-gnu"
    try:
        text = (folder / "usr/include/features.h").read_text(encoding="utf-8", errors="replace")
        major, minor = (
            re.search(rf"#define\s+{name}\s+(\d+)", text) for name in ("__GLIBC__", "__GLIBC_MINOR__")
        )
        if not major or not minor:
            raise OSError
    except OSError:
        raise UsageError(
            f"--sysroot {folder}: no headers of glibc (usr/include/features.h)", ADVICE
        ) from None
    found = Sysroot(folder, triplet, (int(major[1]), int(minor[1])), "")
    for name in ("crti.o", "libc.so", "libc.so.6"):
        if not any((place / name).exists() for place in found.libraries):
            raise UsageError(f"--sysroot {folder}: no {name} for {machine}", ADVICE)
    library = next(place / "libc.so.6" for place in found.libraries if (place / "libc.so.6").exists())
    digest = hashlib.sha256(_inside(folder, library).read_bytes()).hexdigest()[:16]
    return Sysroot(folder, triplet, found.glibc, digest)


def _inside(root: Path, path: Path) -> Path:
    """What a path of a sysroot leads to: its absolute links are meant from its own root."""
    for _ in range(8):
        if not path.is_symlink():
            break
        target = os.readlink(path)  # noqa: PTH115
        path = root / target.lstrip("/") if target.startswith("/") else path.parent / target
    return path


def bind(compiler: Compiler, root: Sysroot, into: Path) -> Compiler:
    """The compiler, bound to a sysroot: two programs, for C and C++, in a folder.

    :param into: is made again where the compiler or the sysroot is another one.
    """
    links = into / "lib"
    links.mkdir(parents=True, exist_ok=True)
    for place in root.libraries:  # libm.so -> /lib/aarch64-linux-gnu/libm.so.6 would lead to this machine's
        for link in place.glob("lib*.so"):
            if link.is_symlink() and os.readlink(link).startswith("/"):  # noqa: PTH115
                target = _inside(root.folder, link)
                if not (links / link.name).is_symlink() or (links / link.name).resolve() != target.resolve():
                    (links / link.name).unlink(missing_ok=True)
                    (links / link.name).symlink_to(target)
    bound = Compiler(str(into / Path(compiler.cxx).name), compiler.version)
    for program, language, path in (
        (compiler.cxx, "c++", bound.cxx),
        (compiler.cc, "c", bound.cc),
    ):
        real = shutil.which(program) or program
        words = ["-nostdinc", *(["-nostdinc++"] if language == "c++" else [])]
        for folder in [*_own_headers(real, language), *map(str, root.headers)]:
            words += ["-isystem", folder]
        words += [f"--sysroot={root.folder}", *(f"-B{place}" for place in root.libraries), f"-L{links}"]
        words += [f"-L{place}" for place in root.libraries]
        text = f'#!/bin/sh\n# GCC {compiler.version}, glibc {root.identity}\nexec {shlex.join([real, *words])} "$@"\n'
        if not Path(path).is_file() or Path(path).read_text() != text:
            write_atomic(Path(path), text)
            Path(path).chmod(0o755)
    return bound


def _own_headers(program: str, language: str) -> list[str]:
    """Folders of a compiler's own headers, for C++ and its builtins, less those of a C library."""
    done = process.run([program, "-x", language, "-E", "-v", "/dev/null", "-o", "/dev/null"], tail_lines=400)
    _, _, said = "\n".join(done.tail).partition("#include <...> search starts here:\n")
    folders = [line.strip() for line in said.partition("End of search list.")[0].splitlines()]
    return [folder for folder in folders if "/c++" in folder or not (Path(folder) / "features.h").is_file()]
