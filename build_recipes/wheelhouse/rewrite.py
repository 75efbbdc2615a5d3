"""Rewrite a wheel without unpacking it: version, tags, requirements, members.

``wheel unpack`` and ``wheel pack`` inflate and deflate everything; here kept members are copied as they lie
in the archive, so the time is the disk's. RECORD is written again from the source's own digests (a member
without one is hashed). The result is the same bytes for the same input, edits and epoch.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import hashlib
import io
import os
import re
import struct
import tempfile
import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from build_recipes.formats.deflate import Deflater
from build_recipes.formats.wheel import Recorded, Wheel, is_module
from build_recipes.kit.console import counted
from build_recipes.kit.errors import NotWritable, PackageFailed, UsageError

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LIMIT = 0xFFFFFFFF
_PIECE = 1 << 20
_UTF8 = 0x800
_REGULAR_FILE = 0o100644 << 16
_PROGRAM = 0o100755 << 16


@dataclass(frozen=True)
class Edits:
    """What is to change; what is left empty stays as it is."""

    version: str = ""
    """New version, PEP 440 (``0.12.0+cu130.thor``)."""
    platform: str = ""
    """New platform tag (``manylinux_2_31_aarch64``)."""
    python: str = ""
    """New interpreter and ABI tags (``cp38-abi3``)."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Project to its new Requires-Dist; an empty text drops it. One that is not there yet is added."""
    drop: Collection[str] = ()
    """Members to leave out, by path."""
    put: Mapping[str, bytes | Path] = field(default_factory=dict)
    """Members to add or replace: path to content. ``{dist_info}/`` stands for the dist-info folder."""


@dataclass(frozen=True)
class _Row:
    """One member of the new archive."""

    name: bytes
    date: tuple[int, int]
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    offset: int


def rewrite(source: Path | Wheel, folder: Path, edits: Edits, epoch: int | None = None) -> Path:
    """Write ``source`` with ``edits`` into ``folder``, whole or not at all; the file name follows from them.

    :param source: the wheel; one that is open stays open.
    :param epoch: seconds since 1970 that new members carry; ``SOURCE_DATE_EPOCH``, else 1980.
    :returns: the new wheel.
    :raises NotAWheel: the source is none.
    :raises UsageError: the version, a tag or a requirement is none, or a member to drop is not there.
    :raises NotWritable: the folder cannot be written.
    :raises PackageFailed: the result would need more than 4 GiB.
    """
    with contextlib.nullcontext(source) if isinstance(source, Wheel) else Wheel(source) as wheel:
        plan = _Plan(wheel, edits)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, beside = tempfile.mkstemp(dir=folder, prefix=".wheel.")
        except OSError as error:
            raise NotWritable(
                f"{folder} cannot be written: {error.strerror}", "give another folder"
            ) from error
        try:
            with os.fdopen(descriptor, "wb") as stream:
                _Writer(stream, wheel, _dos_date(epoch)).write(plan)
                stream.flush()
                os.fsync(stream.fileno())
            Path(beside).chmod(0o644)
            target = folder / plan.file_name
            Path(beside).replace(target)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    return target


class _Plan:
    """Names and texts of the new wheel, decided before a byte is written."""

    def __init__(self, wheel: Wheel, edits: Edits) -> None:
        self.wheel = wheel
        old = wheel.dist_info.removesuffix(".dist-info")
        version = _version(edits.version) if edits.version else wheel.version
        stem = f"{old.split('-')[0]}-{version}" if edits.version else old
        self.dist_info = f"{stem}.dist-info"
        tags = [_retag(tag, edits) for tag in wheel.file_tags() or wheel.tags]
        self.tags = sorted(set(tags))
        self.file_name = f"{stem}-{_compressed(self.tags)}.whl"
        moved = {f"{old}.dist-info/": f"{stem}.dist-info/", f"{old}.data/": f"{stem}.data/"}
        unknown = sorted(set(edits.drop) - set(wheel.members))
        if unknown:
            raise UsageError(
                f"{wheel.path.name} has no {unknown[0]}", f"unzip -l {wheel.path} lists its members"
            )
        put = {name.replace("{dist_info}", self.dist_info): content for name, content in edits.put.items()}
        self.kept: dict[str, str] = {}  # new name to old name
        for name in wheel.members:
            new = name
            for prefix, other in moved.items():
                if name.startswith(prefix):
                    new = other + name.removeprefix(prefix)
            if name not in edits.drop and new not in put:
                self.kept[new] = name
        self.made: dict[str, bytes | Path] = dict(put)
        metadata = wheel.text(f"{wheel.dist_info}/METADATA")
        self._make("METADATA", _metadata(metadata, version if edits.version else "", edits.requires))
        self._make("WHEEL", _tagged(wheel.text(f"{wheel.dist_info}/WHEEL"), self.tags))
        for name in ("RECORD", "RECORD.jws", "RECORD.p7s"):
            self.kept.pop(f"{self.dist_info}/{name}", None)

    def _make(self, name: str, text: str) -> None:
        path = f"{self.dist_info}/{name}"
        if path not in self.made:
            self.kept.pop(path, None)
            self.made[path] = text.encode()


class _Writer:
    def __init__(self, stream: BinaryIO, wheel: Wheel, date: tuple[int, int]) -> None:
        self.stream, self.wheel, self.date = stream, wheel, date
        self.rows: list[_Row] = []
        self.record: list[tuple[str, str, str]] = []
        self.position = 0

    def write(self, plan: _Plan) -> None:
        old = self.wheel.record()
        for new, name in plan.kept.items():
            self._copy(new, name, old.get(name))
        for name in sorted(plan.made, key=lambda name: (name.startswith(plan.dist_info), name)):
            content = plan.made[name]
            if isinstance(content, Path):
                self._add_file(name, content)
            else:
                self._add(name, content)
        self.record.append((f"{plan.dist_info}/RECORD", "", ""))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.record)
        self._add(f"{plan.dist_info}/RECORD", text.getvalue().encode(), recorded=False)
        self._finish()

    def _copy(self, new: str, name: str, row: Recorded | None) -> None:
        """Copy a member's compressed bytes as they are."""
        member = self.wheel.members[name]
        digest = row.sha256 if row and row.sha256 else self.wheel.digest(name)
        self.record.append((new, _text(digest), str(member.file_size)))
        mode = member.external_attr or _REGULAR_FILE
        method, packed = member.compress_type, member.compress_size
        self._header(_Row(new.encode(), member.date, method, member.CRC, packed, member.file_size, mode, 0))
        self.stream.flush()
        offset, left = self.wheel.span(name)
        source = self.wheel.descriptor
        while left:
            sent = os.sendfile(self.stream.fileno(), source, offset, left)
            if not sent:
                raise PackageFailed(f"{self.wheel.path} was cut while it was copied", "fetch it again")
            offset, left = offset + sent, left - sent
        self.stream.seek(0, os.SEEK_END)
        self.position += member.compress_size

    def _add(self, name: str, content: bytes, recorded: bool = True) -> None:
        if recorded:
            self.record.append((name, _text(hashlib.sha256(content).digest()), str(len(content))))
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(content) + packer.flush()
        crc = zlib.crc32(content)
        program = content[:4] == b"\x7fELF" and not is_module(name)
        mode = _PROGRAM if program else _REGULAR_FILE
        self._header(_Row(name.encode(), self.date, 8, crc, len(packed), len(content), mode, 0))
        self.stream.write(packed)
        self.position += len(packed)

    def _add_file(self, name: str, path: Path) -> None:
        """Pack a file in pieces; its header is written last, in the place that was left for it."""
        start, digest, crc, size = self.position, hashlib.sha256(), 0, 0
        packer = Deflater()
        body = start + _LOCAL.size + len(name.encode())
        self.stream.seek(body)
        with path.open("rb") as source:
            while piece := source.read(_PIECE):
                digest.update(piece)
                crc, size = zlib.crc32(piece, crc), size + len(piece)
                self.stream.writelines(packer.compress(piece))
        self.stream.write(packer.flush())
        packed = self.stream.tell() - body
        mode = (0o100755 if os.access(path, os.X_OK) else 0o100644) << 16
        self.stream.seek(start)
        self._header(_Row(name.encode(), self.date, 8, crc, packed, size, mode, 0))
        self.stream.seek(0, os.SEEK_END)
        self.position += packed
        self.record.append((name, _text(digest.digest()), str(size)))

    def _header(self, row: _Row) -> None:
        """Write a local header; the row is kept for the table of contents, with its place."""
        row = dataclasses.replace(row, offset=self.position)
        if self.position + row.packed > _LIMIT - (1 << 20):
            raise PackageFailed("the wheel would be larger than 4 GiB", "leave a module out: --without")
        self.rows.append(row)
        head = _LOCAL.pack(
            b"PK\3\4", 20, _UTF8, row.method, *row.date, row.crc, row.packed, row.size, len(row.name), 0
        )
        self.stream.write(head + row.name)
        self.position += len(head) + len(row.name)

    def _finish(self) -> None:
        start = self.position
        for row in self.rows:
            head = _CENTRAL.pack(
                b"PK\1\2", 3 << 8 | 20, 20, _UTF8, row.method, *row.date, row.crc, row.packed, row.size,
                len(row.name), 0, 0, 0, 0, row.attributes, row.offset,
            )  # fmt: skip
            self.stream.write(head + row.name)
            self.position += len(head) + len(row.name)
        count = len(self.rows)
        if count > 0xFFFF - 1:
            raise PackageFailed(
                f"{counted(count, 'member does', 'members do')} not fit a plain zip file", "leave some out"
            )
        self.stream.write(_END.pack(b"PK\5\6", 0, 0, count, count, self.position - start, start, 0))


def _text(digest: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _dos_date(epoch: int | None) -> tuple[int, int]:
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = epoch if epoch is not None else int(told) if told.isdigit() else 315532800
    moment = time.gmtime(max(seconds, 315532800))
    return (
        moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2,
        (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday,
    )


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except ValueError as error:
        raise UsageError(f"'{text}' is not a version", "write it as 0.12.0+cu130.thor (PEP 440)") from error


def _retag(tag: str, edits: Edits) -> str:
    python, abi, platform = tag.split("-")
    if edits.python:
        if not re.fullmatch(r"\w+-\w+", edits.python):
            raise UsageError(f"'{edits.python}' is not an interpreter and ABI tag", "write it as cp38-abi3")
        python, abi = edits.python.split("-")
    if edits.platform and not re.fullmatch(r"\w+", edits.platform):
        raise UsageError(f"'{edits.platform}' is not a platform tag", "write it as manylinux_2_31_aarch64")
    return f"{python}-{abi}-{edits.platform or platform}"


def _compressed(tags: list[str]) -> str:
    """The tag set of a file name: each part's values joined by dots."""
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(sorted(set(part))) for part in parts)


def _tagged(text: str, tags: list[str]) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Tag:")]
    return "\n".join([*lines, *(f"Tag: {tag}" for tag in tags), ""])


def _metadata(text: str, version: str, requires: Mapping[str, str]) -> str:
    """METADATA with a version and requirements changed; every other line stays as it is."""
    head, gap, body = text.partition("\n\n")
    if version:
        head = re.sub(r"(?m)^Version:.*$", f"Version: {version}", head, count=1)
    wanted = {str(canonicalize_name(name)): line for name, line in requires.items()}
    for line in filter(None, wanted.values()):
        try:
            Requirement(line)
        except InvalidRequirement as error:
            raise UsageError(
                f"'{line}' is not a requirement", "write it as torch==2.11.0 (PEP 508)"
            ) from error
    lines, at, written = [], 0, set()
    for line in head.split("\n"):
        found = re.match(r"Requires-Dist:\s*([A-Za-z0-9._-]+)", line)
        name = str(canonicalize_name(found[1])) if found else ""
        if name not in wanted:
            lines.append(line)
        elif wanted[name] and name not in written:
            lines.append(f"Requires-Dist: {wanted[name]}")
            written.add(name)
        at = len(lines) if found else at
    at = at or len(lines)
    lines[at:at] = [f"Requires-Dist: {line}" for name, line in wanted.items() if line and name not in written]
    return "\n".join(lines) + gap + body
