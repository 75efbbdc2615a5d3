"""Static closure: the symbols that would be missing when the modules are imported.

Undefined symbols of each module minus what its system, the driver, the given libraries (torch's, CUDA's) and
the other modules export. Libraries are mapped, and each symbol is looked up in their GNU hash tables as the
loader does it, so all of torch takes milliseconds. Libraries inside of a wheel must be inflated once; their
export lists are then kept in the cache under the wheel's hash.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from build_recipes.formats import abi
from build_recipes.formats.elf import mapped

_STANDARD = re.compile(
    r"_Z(NK?S[toabsid]|NK?9__gnu_cxx|NK?10__cxxabiv|St|T[VISTv]+N?K?S[toabsid]|T[VIST]N10__cxxabiv|dl|da|nw|na)|__(cxa|gxx)_"
)
"""Names of the C++ standard library and its runtime (Itanium ABI: ``St Sa Sb Ss Si So Sd`` stand for parts of std)."""


class Library(Protocol):
    """Something that exports symbols."""

    @property
    def soname(self) -> str:
        """The name others link it by."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Libraries it asks for itself."""

    def exports(self, name: str) -> bool:
        """Whether it defines the symbol."""


@dataclass(frozen=True)
class Listed:
    """A library of which only the names it exports are known."""

    soname: str
    needed: tuple[str, ...]
    names: frozenset[str]

    def exports(self, name: str) -> bool:
        """Whether it defines the symbol."""
        return name in self.names


@dataclass(frozen=True)
class Closure:
    """What the loader would not find."""

    symbols: dict[str, list[str]]
    """Module to its missing symbols (mangled, sorted); modules without any are left out."""
    libraries: dict[str, list[str]]
    """Module to the NEEDED libraries that are neither the system's nor given."""


def shared_libraries(place: Path) -> list[Path]:
    """The shared libraries below a folder (or the one file), links left out."""
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*.so*") if path.is_file() and not path.is_symlink())


def close(modules: Mapping[str, abi.Linked], libraries: Sequence[Library]) -> Closure:
    """Look up every undefined symbol of ``modules``.

    A symbol whose version names a system library is left to the version check (`abi.required`); one whose
    version names a library that is not given is counted as that library's, and the library as missing. Where
    torch needs a CUDA library that is not given (libcublas), its symbols are known by their prefix.
    """
    given = {library.soname for library in libraries}
    asked = {name for library in (*libraries, *modules.values()) for name in library.needed} - given
    prefixes = [start for name in asked for start in abi.system().prefixes.get(name.partition(".")[0], ())]
    brought = re.compile("|".join([*abi.system().brought, *(rf"^{start}[A-Z]" for start in prefixes)]))
    known = {*abi.system().system, *abi.system().driver}
    known |= {library.soname for library in libraries} | {Path(name).name for name in modules}
    runtime = _runtime(libraries)
    exporters: list[Library] = [*libraries, *modules.values()]
    answers: dict[str, bool] = {}
    lost_symbols: dict[str, list[str]] = {}
    lost_libraries: dict[str, list[str]] = {}
    for name, module in modules.items():
        absent = [library for library in module.needed if library not in known]
        missing = []
        for symbol, owner in module.symbols.undefined.items():
            if owner in absent or owner in abi.system().system or brought.match(symbol):
                continue
            if not owner and symbol in abi.system().unversioned:
                continue
            if not owner and _STANDARD.match(symbol) and runtime.intersection(module.needed):
                continue
            if symbol not in answers:
                answers[symbol] = any(library.exports(symbol) for library in exporters)
            if not answers[symbol]:
                missing.append(symbol)
        if missing:
            lost_symbols[name] = sorted(missing)
        if absent:
            lost_libraries[name] = absent
    return Closure(lost_symbols, lost_libraries)


def _runtime(libraries: Sequence[Library]) -> set[str]:
    """Libraries that bring the C++ runtime along: it, and those that need it themselves, directly or not.

    The loader looks a symbol up in all that a module needs, however far. vLLM 0.22's official spinloop names no
    libstdc++ and loads: libtorch, which it names, does.
    """
    found = {name for name in abi.system().system if name.startswith("libstdc++.so")}
    grew = True
    while grew:
        more = {one.soname for one in libraries if found.intersection(one.needed)} - found
        grew = bool(more)
        found |= more
    return found


def missing_symbols(modules: Sequence[Path], libraries: Iterable[Path]) -> dict[str, list[str]]:
    """Missing symbols of module files against library files or folders of them, by module path.

    :raises Malformed: a file is not an ELF.
    """
    with contextlib.ExitStack() as stack:
        opened = {str(path): stack.enter_context(mapped(path)) for path in modules}
        given = [stack.enter_context(mapped(path)) for place in libraries for path in shared_libraries(place)]
        return close(opened, given).symbols


def readable(symbol: str) -> str:
    """A mangled C++ name without its arguments: ``c10::cuda::c10_cuda_check_implementation``.

    Reads nested and plain names of the Itanium ABI; anything else is given back as it is.
    """
    found = re.match(r"_Z(?:NK?|L)?", symbol)
    if not found:
        return symbol
    position, parts = found.end(), []
    while more := re.match(r"(?:St)?(\d{1,6})", symbol[position:]):
        position += more.end()
        parts.append(symbol[position : position + int(more[1])])
        position += int(more[1])
    if symbol[position : position + 2] in ("C1", "C2", "D1", "D2") and parts:
        parts.append(("~" if symbol[position] == "D" else "") + parts[-1])
    return "::".join(parts) or symbol
