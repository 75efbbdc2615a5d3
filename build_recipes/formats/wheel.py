"""Wheels: file name, dist-info, RECORD and the modules inside."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Protocol

from packaging.utils import (
    InvalidName,
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_wheel_filename,
)
from packaging.version import Version

from build_recipes.formats import abi
from build_recipes.formats.elf import mapped
from build_recipes.formats.inflate import Archive, Content
from build_recipes.kit.console import one_line
from build_recipes.kit.errors import NotAWheel

_MOST_TEXT = 64 << 20


@dataclass(frozen=True)
class Recorded:
    """One row of RECORD."""

    sha256: bytes | None
    """None where the row has no SHA-256 (RECORD itself)."""
    size: int | None
    """Bytes, None where the row names none."""


class Wheel(Archive):
    """One wheel, opened for reading.

    :raises NotAWheel: the file is none: no dist-info, a name that does not fit, damaged metadata.
    :raises UnsafeArchive: see `Archive`.
    """

    damaged = NotAWheel

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._record: dict[str, Recorded] | None = None
        try:
            self._identify()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Wheel:
        return self

    def _identify(self) -> None:
        tops = {name.split("/")[0] for name in self.members if "/" in name}
        folders = sorted(name for name in tops if name.endswith(".dist-info"))
        if len(folders) != 1:
            raise NotAWheel(
                f"{self.path.name} is not a wheel: {len(folders)} dist-info folders",
                "give the path of a .whl file",
            )
        self.dist_info = folders[0]
        self.metadata = self._headers("METADATA")
        self.wheel = self._headers("WHEEL")
        name, self.version = (str(self.metadata.get(key, "")) for key in ("Name", "Version"))
        self.tags = tuple(sorted(str(tag) for tag in self.wheel.get_all("Tag", [])))
        try:
            self.name = str(canonicalize_name(name, validate=True))
            Version(self.version)
        except (InvalidName, ValueError) as error:  # a number of more than 4300 digits is no ValueError
            raise NotAWheel(
                f"{self.path.name} is not a wheel: METADATA says name '{one_line(name)}' (PEP 508) and version "
                f"'{one_line(self.version)}' (PEP 440), which no installer takes",
                "fetch it again; if it stays, do not use it",
            ) from error

    def _headers(self, name: str) -> Message:
        return HeaderParser().parsestr(self.text(f"{self.dist_info}/{name}"))

    def text(self, name: str) -> str:
        """A text member.

        :raises NotAWheel: it is not there, too long, or no UTF-8.
        """
        try:
            return self.read(name, _MOST_TEXT).decode("utf-8")
        except UnicodeDecodeError as error:
            raise NotAWheel(
                f"{name} of {self.path.name} is no UTF-8 text", "fetch the wheel again"
            ) from error

    @property
    def requires(self) -> tuple[str, ...]:
        """Requires-Dist, as written."""
        return tuple(self.metadata.get_all("Requires-Dist", []))

    def file_tags(self) -> tuple[str, ...]:
        """The tags of the file name, sorted; empty where the name is not a wheel's."""
        try:
            return tuple(sorted(str(tag) for tag in parse_wheel_filename(self.path.name)[3]))
        except (InvalidWheelFilename, InvalidSdistFilename, ValueError):
            return ()

    def record(self) -> dict[str, Recorded]:
        """RECORD by path.

        :raises NotAWheel: it is absent or no CSV.
        """
        if self._record is None:
            self._record = parse_record(self.text(f"{self.dist_info}/RECORD"), self.path.name)
        return dict(self._record)


class Distribution(Protocol):
    """What an audit reads: a wheel, or an installed copy (`installed.Installed`)."""

    path: Path
    dist_info: str
    name: str
    version: str
    tags: tuple[str, ...]

    @property
    def requires(self) -> tuple[str, ...]:
        """Requires-Dist, as written."""

    @property
    def members(self) -> Mapping[str, Sized]:
        """Its files."""

    def file_tags(self) -> tuple[str, ...]:
        """Tags of its name."""

    def text(self, name: str) -> str:
        """A text file."""

    def record(self) -> dict[str, Recorded]:
        """RECORD by path."""

    def content(self, name: str) -> Content:
        """A file in memory."""

    def head(self, name: str) -> bytes:
        """The first four bytes of a file."""

    def digest(self, name: str) -> bytes:
        """SHA-256 of a file."""


class Sized(Protocol):
    """A file's sizes, in bytes."""

    @property
    def file_size(self) -> int:
        """Bytes of its content."""

    @property
    def compress_size(self) -> int:
        """Bytes it takes in the archive."""


def parse_record(text: str, name: str) -> dict[str, Recorded]:
    """Rows of a RECORD file by path.

    :raises NotAWheel: it is no CSV.
    """
    rows: dict[str, Recorded] = {}
    try:
        for row in csv.reader(io.StringIO(text)):
            if row:
                path, digest, size = (*row, "", "")[:3]
                rows[path] = Recorded(_digest(digest), int(size) if size.isdecimal() else None)
    except (csv.Error, ValueError) as error:
        raise NotAWheel(f"RECORD of {name} is damaged: {error}", "fetch the wheel again") from error
    return rows


def _digest(text: str) -> bytes | None:
    found = re.fullmatch(r"sha256=([A-Za-z0-9_-]{43})=?", text)
    return base64.urlsafe_b64decode(found[1] + "=") if found else None


def required_glibc(modules: Iterable[Path]) -> tuple[int, int]:
    """The least glibc on which module files load: ``(2, 29)``; see `abi.required_glibc`.

    :raises Malformed: a file is not an ELF.
    """
    with contextlib.ExitStack() as stack:
        return abi.required_glibc([stack.enter_context(mapped(path)) for path in modules])


ELF = b"\x7fELF"
"""How every ELF file begins: libraries and programs."""


def is_elf(path: Path) -> bool:
    """Whether a file is an ELF file: a library or a program."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == ELF


def incomplete(version: str) -> str:
    """``smoke`` or ``partial`` where a wheel's version says that it is not the whole; else an empty text."""
    local = version.partition("+")[2].split(".")
    return next((word for word in ("smoke", "partial") if word in local), "")


def is_module(name: str) -> bool:
    """Whether a member is named like a shared library or extension module."""
    return bool(re.search(r"\.so(\.\d+)*$", name))
