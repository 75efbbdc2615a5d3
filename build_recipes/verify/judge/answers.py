"""What an import of a name meets: the words that the rooms of the judge share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

FOUND = "found"
SOMETIMES = "conditional"
"""Defined under a condition; taken as there."""
PRODUCT = "build-product"
"""Made by the build: no source says what it holds."""
NONE = "none"
"""Answered with None by a ``__getattr__`` that never raises."""
UNKNOWN = "unknown"
"""The module's namespace is written in ways that cannot be read."""
UNREAD = "unread"
"""The module's file could not be read."""
SUBMODULE = "submodule"
"""An attribute that is there only once the module of that name was imported by somebody."""
NO_MODULE = "missing-module"
NO_NAME = "missing-name"
NO_ATTRIBUTE = "missing-attribute"
FAILS = "failing-module"
"""The module is there, and importing it ends in an error of its own."""
REFUSED = "refused"
"""The package itself raises, for what it finds in vLLM or for its version."""
MISSING = frozenset({NO_MODULE, NO_NAME, NO_ATTRIBUTE, FAILS})
BREAKING = MISSING | {REFUSED}


class Answer(NamedTuple):
    """What an import of a name would meet."""

    status: str
    error: str = ""
    """Class of the exception, where it is one of `MISSING`."""
    detail: str = ""
    """``name`` attribute of that exception: the module that is missing."""


YES = Answer(FOUND)


class Raised(NamedTuple):
    """An exception that surely comes out of a statement."""

    error: str
    detail: str
    explicit: bool = False
    """By a ``raise`` that is played itself."""


@dataclass(frozen=True)
class Place:
    """Where a name's definition is: a module (``name`` empty), a class, a function or a value."""

    kind: str
    module: str
    name: str = ""
