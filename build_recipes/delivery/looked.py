"""What a board says of itself (board.py, qualify): read by its shape, for a board is another machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypedDict

import msgspec

from build_recipes.kit.data import decoded, parse_json

Count = Annotated[int, msgspec.Meta(ge=0)]


class Memory(TypedDict):
    """Bytes."""

    total: Count | None
    available: Count | None


class File(TypedDict):
    """A file of the board."""

    size: Count
    sha256: str


class Looked(TypedDict):
    """The answer of board.py."""

    machine: str
    """``uname -m``."""
    system: str
    kernel: str
    glibc: Annotated[str, msgspec.Meta(pattern=r"^(\d{1,3}\.\d{1,6}(\.\d{1,6})?)?$")]
    """Empty where the C library is another."""
    python: Annotated[str, msgspec.Meta(pattern=r"^\d{1,3}\.\d{1,6}(\.|$)")]
    l4t: str
    compatible: list[str]
    """Of the device tree."""
    gpus: list[str]
    """Model of each GPU, as the driver says it."""
    driver: str
    memory: Memory
    disk_free: Count
    home: Annotated[str, msgspec.Meta(pattern=r"^/[^\x00-\x1f]*$")]
    root: bool
    cores: Count | None
    files: dict[str, File | None]
    """Those that were asked for; None is absent."""


class _Tier(TypedDict):
    number: int
    name: str
    result: str
    reason: str


class _Qualified(TypedDict, total=False):
    tiers: list[_Tier]


def looked(text: str, files: Iterable[str]) -> Looked:
    """What `board.py` printed. Raises `ValueError` where it is of another shape, or lacks a file that was asked for."""
    found = decoded(text, Looked)
    if lacking := sorted(set(files) - found["files"].keys()):
        raise ValueError(f"nothing is said of {lacking[0]}")
    return found


def qualified(text: str) -> dict[str, Any]:
    """The document of qualify, with all that is in it. Raises `ValueError` where it is none."""
    found = parse_json(text)
    msgspec.convert(found, _Qualified)
    return dict(found)
