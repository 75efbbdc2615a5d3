"""What a configured tree makes of vLLM's modules for the device it was configured for.

`sources.modules` says what a module is; CMake decides whether there is anything of it for a device. So the answer
is read from what CMake wrote: its graph (a library, commands) and its install script (files).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build.units import graph as graphs
from build_recipes.sources.modules import Kind, Makeup, Module


@dataclass(frozen=True)
class Part:
    """A module as a configured tree makes it."""

    module: Module
    defined: Kind | None
    """What CMake defines of it for the device; None where that is nothing. A module without a library there may
    still have files to install: it is ``COPIED`` then."""
    made: Kind | None
    """`defined`, where it is made: asked for, and with all of its sources."""
    left_out: str = ""
    """Why it is not made, or only its files are; empty where all of it is."""

    @property
    def lost(self) -> bool:
        """Whether there is something to compile of it for the device, and its sources could not be fetched."""
        compiled = self.module.outside or self.defined not in (None, Kind.COPIED, Kind.RUST)
        return compiled and self.left_out.startswith(_GONE)

    @property
    def whole(self) -> bool:
        """Whether all that there is of it for the device is made."""
        return not self.left_out or self.left_out.startswith(_NO_CODE)


LEFT_OUT = "-left-out"
"""Ends the name of the folder that stands for a tree that could not be fetched."""
_GONE = "its source"
_NO_CODE = "has no code for"


def configured(folder: Path, ninja: Path, module: Module) -> Kind | None:
    """What a configured tree makes of a module.

    :param folder: CMake's build folder.
    """
    target = module.target
    if module.kind is Kind.RUST:
        return Kind.RUST
    if graphs.has_library(folder, target):
        units = graphs.read_graph(folder, ninja, [target]).cuda_units
        return Kind.KERNEL if any(unit.gencodes for unit in units) else Kind.HOST
    if graphs.commands(folder, ninja, target):
        return Kind.CUSTOM
    return Kind.COPIED if installs(folder, target) else None


def installs(folder: Path, component: str) -> bool:
    """Whether a configured tree's install script puts anything into place for a component."""
    begin = re.compile(rf'^if\(CMAKE_INSTALL_COMPONENT STREQUAL "{re.escape(component)}"', re.MULTILINE)
    for script in folder.rglob("cmake_install.cmake"):
        text = script.read_text(encoding="utf-8")
        for match in begin.finditer(text):
            body = text[match.end() : text.find("\nendif()", match.end())]
            if re.search(r"\bfile\((INSTALL|WRITE|CREATE_LINK|COPY)\b", body):
                return True
    return False


def parts(
    found: Makeup, folder: Path, ninja: Path, *, asked: Iterable[str], missing: Iterable[str], capability: str
) -> tuple[Part, ...]:
    """All modules of a configured tree.

    :param asked: targets that are to be built.
    :param missing: external trees that a placeholder stands for.
    :param capability: of the device, for the texts.
    """
    wanted, absent = set(asked), set(missing)
    made = []
    for module in found.modules:
        there = configured(folder, ninja, module)
        gone = [tree for tree in module.trees if tree in absent]
        if there in (Kind.KERNEL, Kind.HOST):  # a tree that it may use need not be used for this device
            used = graphs.commands(folder, ninja, module.target)
            gone = [tree for tree in gone if f"/{tree}{LEFT_OUT}/" in used]
        if there is None and gone and module.outside and module.target in wanted:
            made.append(Part(module, None, None, f"{_GONE} {gone[0]} could not be fetched"))
        elif there is None:
            made.append(Part(module, None, None, f"{_NO_CODE} {capability}: CMake makes nothing of it"))
        elif there is Kind.COPIED and module.compiled:
            why = f"{_NO_CODE} {capability}: only its Python files are there"
            made.append(Part(module, there, there if module.target in wanted and not gone else None, why))
        elif module.target not in wanted:
            made.append(Part(module, there, None, "not asked for"))
        elif module.kind is Kind.RUST:
            made.append(Part(module, there, None, "no Rust toolchain is pinned for it"))
        elif gone:
            made.append(Part(module, there, None, f"{_GONE} {gone[0]} could not be fetched"))
        else:
            made.append(Part(module, there, there))
    return tuple(made)
