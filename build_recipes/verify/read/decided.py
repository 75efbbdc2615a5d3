"""Conditions that the file's constants and the supported Pythons decide, such as ``sys.version_info >= (3, 10)``."""

from __future__ import annotations

import ast
from typing import Any

from build_recipes.verify.read.constants import Effort, Names, NotConstant, Python, Ref, value_of

_WORLDS: tuple[dict[str, Any], ...] = tuple(
    {"sys:version_info": python, "sys:platform": "linux", "os:name": "posix", "typing:TYPE_CHECKING": False}
    for python in (Python(3, 10), Python(3, 99))
)
"""What is known of the machine and of its Python; by `Ref.target`, which no name of a file is."""


def decided(test: ast.expr, names: Names) -> bool | None:
    """Whether a condition holds by the file's constants and on every Python that is supported; None where that is open.

    A name that is imported decides nothing: where it could not be imported it may be something else.
    """
    if not _plain_names(test, names, Effort(1000)):
        return None
    try:
        found = {bool(value_of(test, {**names, **world})) for world in _WORLDS}
    except NotConstant:
        return None
    return found.pop() if len(found) == 1 else None


def _plain_names(node: ast.expr, names: Names, effort: Effort) -> bool:
    """Whether all names of an expression are constants or of the world."""
    for part in ast.walk(node):
        if not isinstance(part, ast.Name):
            continue
        effort.left -= 1
        found = names.get(part.id)
        if effort.left < 0 or not (
            (isinstance(found, ast.expr) and _plain_names(found, names, effort))
            or (
                isinstance(found, Ref)
                and (found.target in _WORLDS[0] or found.target in ("sys", "os", "typing"))
            )
        ):
            return False
    return True
