"""Whole or partial: is everything in the wheel that the device compiles, and every member of the official wheel?

A wheel is whole where each module that CMake defines for the device was made, and each member of the official wheel
of the tag is there, or belongs to a module that the device has no code of. Files that are the same on every device
and for every torch (Python files, the Rust programs) are taken from the official wheel where their own
source could not be fetched; each is named in the manifest and in the wheel's bill of materials.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build_recipes.build.modules import Part
from build_recipes.build.plan import Plan
from build_recipes.formats.wheel import Recorded, Wheel, is_module
from build_recipes.kit.console import counted, warn
from build_recipes.kit.errors import ArmoryError
from build_recipes.sources.lockfile import OfficialPin
from build_recipes.sources.modules import Kind, Makeup, Module

PLACEHOLDER = b"# left out by vllm-armory"
"""How a file begins that stands for one of a tree that could not be fetched."""


@dataclass(frozen=True)
class Official:
    """The official wheel of a tag: its members, and those of them that are at hand."""

    pin: OfficialPin
    rows: Mapping[str, Recorded]
    files: Mapping[str, Path]
    """Members that may be taken."""


@dataclass(frozen=True)
class Absence:
    """Members of the official wheel that are not in ours, of one module."""

    module: str
    """Its target; empty for vLLM's own files."""
    why: str
    excused: bool
    """Whether the device has no code of it: the wheel is whole without them."""
    members: tuple[str, ...]


@dataclass(frozen=True)
class Completeness:
    """Whether a wheel is whole."""

    partial: tuple[str, ...]
    """Why it is not; empty where it is."""
    compared: str = ""
    """File name of the official wheel; empty where there was none to compare with."""
    absent: tuple[Absence, ...] = ()
    taken: Mapping[str, Path] = field(default_factory=dict)
    """Members that were taken from the official wheel."""

    @property
    def word(self) -> str:
        """``whole`` or ``partial``."""
        return "partial" if self.partial else "whole"

    def lines(self) -> list[str]:
        """What people are told of it."""
        told = [f"partial: {reason}" for reason in self.partial]
        return told + [f"left out: {one.module}: {one.why}" for one in self.absent if one.excused]

    def as_dict(self, rows: Mapping[str, Recorded] | None = None) -> dict[str, Any]:
        """Plain data for the manifest."""
        digests = {name: row.sha256.hex() for name, row in (rows or {}).items() if row.sha256}
        return {
            "word": self.word,
            "partial": list(self.partial),
            "compared": self.compared or None,
            "absent": [
                {
                    "module": one.module,
                    "why": one.why,
                    "excused": one.excused,
                    "count": len(one.members),
                    "members": list(one.members[:5]),
                }
                for one in self.absent
            ],
            "taken": {name: digests.get(name, "") for name in sorted(self.taken)},
        }


def gather(plan: Plan, found: Makeup, missing: Collection[str]) -> Official | None:
    """The official wheel's list of members, and the files of it that a build may need.

    That are those of modules whose own source could not be fetched, as far as they depend on no device and no torch.
    Nothing is taken that the lock does not pin.

    :param missing: external trees that could not be fetched.
    :returns: None where there is none, or it cannot be read.
    """
    from build_recipes.sources import official

    request, downloads = plan.request, plan.places.downloads
    try:
        pinned = official.of(plan.lock.official, plan.device.machine)
        pin = pinned or (None if request.offline else official.pin(plan.version, plan.device.machine))
        if pin is None:
            return None
        rows = official.record(pin, downloads, offline=request.offline)
        wanted = official.wanted(found, pin, rows, missing, plan.device.machine) if pinned else []
        return Official(pin, rows, official.take(pin, wanted, downloads, offline=request.offline))
    except ArmoryError as error:
        warn(f"the official wheel is not compared: {error.args[0]}")
        return None


def complete(
    wheel: Path,
    found: Makeup,
    parts: Iterable[Part],
    theirs: Official | None,
    *,
    limited: Iterable[str] = (),
    more: Collection[str] = (),
) -> Completeness:
    """Hold a wheel against what the device compiles, and against the official wheel.

    :param wheel: as vLLM's setup.py made it.
    :param more: members that will be put into it.
    :param limited: why it cannot be whole whatever it holds: ``--only``, a smoke build.
    """
    by_target = {part.module.target: part for part in parts}
    reasons = dict.fromkeys(limited)
    if theirs is None:
        lost = [part for part in by_target.values() if not part.whole]
        reasons.update(dict.fromkeys(f"{part.module.target}: {part.left_out}" for part in lost))
        return Completeness(tuple(reasons))
    with Wheel(wheel) as opened:
        ours = {name for name in opened.members if not _stands_in(opened, name)} | set(more)
    lacking = [
        name
        for name in theirs.rows
        if name not in ours and ".dist-info/" not in name and not name.endswith("/")
    ]
    taken = {name: theirs.files[name] for name in lacking if name in theirs.files}
    taken = {name: path for name, path in taken.items() if _wants(found.owner(name), by_target)}
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for name in lacking:
        if name not in taken:
            owner = found.owner(name)
            part = by_target.get(owner.target) if owner else None
            why, excused = _why(part, name)
            groups.setdefault((owner.target if owner else "", why, excused), []).append(name)
    served = {owner.target for name in taken if (owner := found.owner(name))}
    for target, part in by_target.items():
        if not part.whole and target not in served:
            reasons[f"{target}: {part.left_out}"] = None
    for (target, why, excused), names in groups.items():
        if not excused and f"{target}: {why}" not in reasons:
            reasons[f"{target or 'vLLM itself'}: {why} ({counted(len(names), 'file')}, as {names[0]})"] = None
    absent = tuple(Absence(*key, tuple(names)) for key, names in groups.items())
    return Completeness(tuple(reasons), theirs.pin.wheel.filename, absent, taken)


def _stands_in(opened: Wheel, name: str) -> bool:
    """Whether a member is a placeholder."""
    small = opened.members[name].file_size <= 4 * len(PLACEHOLDER)
    return small and PLACEHOLDER in b"".join(opened.pieces(name))


def _wants(owner: Module | None, parts: Mapping[str, Part]) -> bool:
    """Whether the files of a module belong into the wheel: it was asked for, and the device has something of it."""
    part = parts.get(owner.target) if owner else None
    return part is not None and part.defined is not None and part.left_out not in ("not asked for", "smoke")


def _why(part: Part | None, name: str) -> tuple[str, bool]:
    if part is None:
        return "not in the sources that this wheel was built from", False
    if part.left_out:
        return part.left_out, part.whole
    if part.made is Kind.CUSTOM and is_module(name):
        return "built for the one Python of this build", True
    return "its build made no such file", False
