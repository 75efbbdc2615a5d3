"""What a FetchContent declaration says: https://cmake.org/cmake/help/latest/module/FetchContent.html."""

from __future__ import annotations

import re
from dataclasses import dataclass

from build_recipes.sources.cmake.scan import Argument, Command

_KEYWORD = re.compile(r"[A-Z]+(_[A-Z]+)+$|URL$")
_ONE_VALUE = {"GIT_REPOSITORY", "GIT_TAG", "SOURCE_DIR", "SOURCE_SUBDIR", "BINARY_DIR", "SUBBUILD_DIR", "URL"}


@dataclass(frozen=True)
class Declaration:
    """One external tree as a CMake file declares it."""

    name: str
    repository: str
    revision: str
    where: str
    """``file:line``, relative to its tree."""
    parent: str
    """Name of the tree the file belongs to; empty for vLLM itself."""
    variable: str = ""
    """Variable that points CMake to a local tree instead."""
    subdir: str = ""
    """SOURCE_SUBDIR, where the local form has none and so must name that folder itself."""
    submodules: tuple[str, ...] | None = None
    """GIT_SUBMODULES; None where all are fetched."""


@dataclass
class Found:
    """What is collected on one name, over all branches."""

    git: Declaration | None = None
    source_subdir: str = ""
    local_subdir: str = ""
    variable: str = ""


def options_of(command: Command) -> tuple[dict[str, Argument], list[str] | None]:
    """The options with one value, and GIT_SUBMODULES where it is given."""
    options: dict[str, Argument] = {}
    submodules: list[str] | None = None
    key = ""
    for argument in command.arguments[1:]:
        if _KEYWORD.match(argument.text) and not argument.quoted:
            key = argument.text
            if key == "GIT_SUBMODULES":
                submodules = []
        elif key == "GIT_SUBMODULES" and submodules is not None:
            submodules += [argument.text] if argument.text else []
        elif key in _ONE_VALUE:
            options.setdefault(key, argument)
    return options, submodules
