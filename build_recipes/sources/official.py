"""The official wheel of a tag: what is in it, and its files that are the same on every device.

One hash in the lock, that of the wheel's RECORD, pins every member. Both are read by HTTP ranges: RECORD is some
200 kB of 300 MB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from build_recipes.formats.wheel import Recorded, is_module, parse_record
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import HashMismatch, NotAWheel, OfflineError
from build_recipes.sources import registry
from build_recipes.sources.lockfile import FilePin, MemberPin, OfficialPin, WheelMembers, tags_for
from build_recipes.sources.modules import Kind, Makeup
from build_recipes.sources.resolve import NEWEST_GLIBC
from build_recipes.sources.wheel_members import member_files, opened, record_of


def pin(version: str, machine: str) -> OfficialPin | None:
    """The official wheel of a version for a machine; None where the index has none.

    :param machine: ``aarch64`` or ``x86_64``.
    :raises NetworkError: the index does not answer, or gives no parts of a file.
    """
    found = registry.file_pins("vllm", version, "source", frozenset(tags_for(machine, (3, 12), NEWEST_GLIBC)))
    if not found:
        return None
    content = _record(found[0])
    return OfficialPin(machine=machine, wheel=found[0], record=hashlib.sha256(content).hexdigest())


def record(official: OfficialPin, downloads: Path, *, offline: bool = False) -> dict[str, Recorded]:
    """RECORD of an official wheel, by member; kept in the cache.

    :raises OfflineError: not in the cache, and the network is not to be used.
    :raises HashMismatch: it is not what the lock says.
    """
    path = record_path(official, downloads)
    if not path.is_file():
        if offline:
            raise OfflineError(
                f"RECORD of {official.wheel.filename} is not in the cache and the network is not to be used",
                "run once without --offline, or bring it: ./inv mirror --from BUNDLE",
            )
        write_atomic(path, _record(official.wheel))
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != official.record:
        path.unlink()
        raise HashMismatch(
            f"RECORD of {official.wheel.filename} is not what the lock says",
            "run it again; if it stays, make the lock again and look at what moved",
        )
    return parse_record(content.decode("utf-8"), official.wheel.filename)


def record_path(official: OfficialPin, downloads: Path) -> Path:
    """Where the RECORD of an official wheel is kept in the cache."""
    return downloads / official.record / "RECORD"


def wanted(
    found: Makeup, official: OfficialPin, rows: Iterable[str], missing: Collection[str], machine: str
) -> list[str]:
    """The members of an official wheel that may be taken where their own source cannot be had: they depend on no
    device and no torch. That are Rust programs, and files that are no modules, of trees that are missing.

    :param rows: names of its members.
    :param missing: external trees that could not be fetched.
    :param machine: CPU of the device; a program of another CPU is not taken.
    """

    def takes(name: str) -> bool:
        owner = found.owner(name)
        if owner is None:
            return False
        if owner.kind is Kind.RUST:
            return official.machine == machine
        return not is_module(name) and any(tree in missing for tree in owner.trees)

    return [name for name in rows if takes(name)]


def take(
    official: OfficialPin, names: Iterable[str], downloads: Path, *, offline: bool = False
) -> dict[str, Path]:
    """Members of an official wheel, each checked against RECORD.

    :raises OfflineError: not in the cache, and the network is not to be used.
    :raises HashMismatch: a member is not what RECORD says.
    :raises NotAWheel: RECORD has no such member, or no hash of it.
    """
    rows = record(official, downloads, offline=offline)
    tops: dict[str, list[MemberPin]] = {}
    for name in names:
        row = rows.get(name)
        if row is None or row.sha256 is None or row.size is None or "/" not in name:
            raise NotAWheel(f"{official.wheel.filename} has no {name}", "make the lock again")
        top, _, path = name.partition("/")
        tops.setdefault(top, []).append(MemberPin(path=path, sha256=row.sha256.hex(), size=row.size))
    found: dict[str, Path] = {}
    for top, members in tops.items():
        source = WheelMembers(wheel=official.wheel, inner=top, members=members)
        files = member_files(source, downloads, offline=offline)
        found.update({f"{top}/{path}": file for path, file in files.items()})
    return found


def _record(wheel: FilePin) -> bytes:
    with opened(wheel) as archive:
        return record_of(archive)


def of(pins: list[OfficialPin], machine: str) -> OfficialPin | None:
    """The pin for a machine, else one for another: their Python files are the same."""
    return next((one for one in pins if one.machine == machine), next(iter(pins), None))
