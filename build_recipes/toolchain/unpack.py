"""Unpacking many wheels into one folder, once.

The folder is named after the hashes of what is in it (see `kit.once`): a second build of the same lock finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from build_recipes.formats.archive import Select, unpack


def digest_of(names: Sequence[str]) -> str:
    """Twelve hex digits that name a set of inputs, in any order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


def unpack_wheel(wheel: Path, into: Path, select: Select = lambda name: True) -> None:
    """Unpack the members of a wheel that ``select`` takes; what other wheels put there is written over.

    :raises UnsafeArchive: a member would land outside ``into``, or the wheel is damaged; see `archive.unpack`.
    """
    into.mkdir(parents=True, exist_ok=True)
    unpack(wheel, into, select)
