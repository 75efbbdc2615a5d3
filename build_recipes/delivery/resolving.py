"""The set that runs beside vLLM, found: uv decides the versions, each companion's wheel is read for the device.

What a resolver does not see is settled here: projects that must have one version, wheels that were built for another
torch, wheels that do not run on the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import tomli_w
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import canonicalize_name

from build_recipes.audit.closure import Library
from build_recipes.audit.exports import libraries, torch_wheel
from build_recipes.delivery import judge as judging
from build_recipes.delivery.companions import LEFT_OUT, NO_WHEEL, NOT_KNOWN, Companion, Entry, Target, facts
from build_recipes.kit.errors import NetworkError, NotEnoughDisk
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import FilePin, best_wheels, tags_for
from build_recipes.sources.registry import PYPI, packages
from build_recipes.sources.resolve import compile_requirements, fits, pins_of

TRIES = 12
"""Times that the set is resolved anew, each time with older wheels, until all were built for this torch."""

Packages = list[dict[str, Any]]
"""The packages table of a pylock.toml."""


@dataclass
class Search:
    """One resolution under way."""

    target: Target
    places: Places
    tags: dict[Tag, int]
    torch: Sequence[Library]
    indexes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Companion to the indexes that have a wheel of it for the device."""
    unread: dict[str, str] = field(default_factory=dict)
    """Companion to why an index of it could not be read."""
    out: dict[str, Entry] = field(default_factory=dict)
    """Companions that are not in the set, with the reason."""
    below: dict[str, str] = field(default_factory=dict)
    """Companion to the version that its own must be older than."""

    def leave_out(self, name: str, code: str, reason: str, version: str = "") -> None:
        """Take a companion out of the set."""
        fact = facts().companion[name]
        self.out[name] = Entry(name, version, code, reason, fact.use, fact.without, None)


def resolve(target: Target, places: Places) -> str:
    """The text of a new lock.

    :raises NetworkError: an index does not answer, or nothing fits vLLM's requirements.
    """
    machine, glibc = target.device.machine, target.device.glibc.split(".")
    with contextlib.ExitStack() as stack:
        search = Search(
            target, places, tags_for(machine, target.python, (int(glibc[0]), int(glibc[1]))),
            libraries(target.torch, machine, places, stack),
        )  # fmt: skip
        names = [name for name, fact in facts().companion.items() if name != "torch"]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: _find_index(search, name), names))
        found, pins, entries = _settled(search)
    entries += [search.out[name] for name in facts().companion if name in search.out]
    absent = {one.name for one in entries if not one.runs}
    document = {
        "lock-version": "1.0",
        "created-by": "vllm-armory",
        "requires-python": f"=={target.python[0]}.{target.python[1]}.*",
        "packages": [row for package in found if (row := _row(package, pins)) and row["name"] not in absent],
        "tool": {"vllm-armory": {"torch": target.torch, "companions": [_kept(one) for one in entries]}},
    }
    return tomli_w.dumps(document)


def _settled(search: Search) -> tuple[Packages, dict[str, FilePin], list[Entry]]:
    """Resolve, judge, and again with older wheels, until every one was built for this torch."""
    for _ in range(TRIES):
        found = _resolved(search)
        pins = _pins(found, search.tags)
        entries = _judged(search, found, pins)
        wrong = [one for one in entries if judging.OTHER_TORCH in one.reason]
        if not wrong:
            break
        search.below |= {one.name: one.version for one in wrong}
    for one in wrong:
        search.leave_out(one.name, one.code, one.reason, one.version)
    return found, pins, [one for one in entries if one not in wrong]


def _find_index(search: Search, name: str) -> None:
    """The indexes that have a wheel for the device; a companion that none has is left out."""
    target, fact = search.target, facts().companion[name]
    python, ranked = "{}.{}".format(*target.python), frozenset(search.tags)
    asked = [PYPI, *([fact.index.format(cuda=target.cuda.replace(".", ""))] if fact.index else [])]
    found, why = [], f"no index has it: {PYPI}"
    for index in asked:
        try:
            files = packages(name, index)
        except NetworkError as error:
            if "has no project" in str(error.args[0]):
                continue
            if index == PYPI:
                raise
            search.unread[name] = str(error.args[0])
            continue
        if any(fits(file.filename, ranked) for file in files):
            found.append(index)
        else:
            why = f"no wheel for {target.device.machine} and Python {python} on {index}"
    search.indexes[name] = tuple(found)
    if not found:
        search.leave_out(name, NOT_KNOWN if name in search.unread else NO_WHEEL, search.unread.get(name, why))


def _resolved(search: Search) -> Packages:
    """The packages of the set. What contradicts vLLM's requirements is left out."""
    known = facts().companion
    asked = {
        name: fact.asks.format(cuda=search.target.cuda) or name
        for name, fact in known.items()
        if fact.ask and name not in search.out and not fact.same_as
    }
    try:
        found = _compiled(search, list(asked.values()))
    except NetworkError:
        found = _without_what_contradicts(search, asked)
    for name, fact in known.items():
        version = next((one["version"] for one in found if one["name"] == fact.same_as), "")
        if not fact.same_as or name in search.out or not version:
            continue
        try:
            found = _compiled(search, [*asked.values(), *_same(search, found), f"{name}=={version}"])
        except NetworkError:
            code, why = (
                NO_WHEEL,
                f"{' and '.join(search.indexes[name])} has no {name} {version}, the version of {fact.same_as}",
            )
            if name in search.unread:
                code, why = NOT_KNOWN, f"{why}; {search.unread[name]}"
            search.leave_out(name, code, why)
    return [package for package in found if package["name"] != "vllm"]


def _same(search: Search, found: Packages) -> list[str]:
    """Requirements of the projects that are in already with the version of another."""
    tied = {name for name, fact in facts().companion.items() if fact.same_as and name not in search.out}
    return [f"{one['name']}=={one['version']}" for one in found if one["name"] in tied]


def _without_what_contradicts(search: Search, asked: dict[str, str]) -> Packages:
    """Ask one at a time: which of them is it? ``asked`` keeps those that fit.

    :raises NetworkError: vLLM's own requirements cannot be met.
    """
    for name in [one for one in search.below if one in asked]:  # vLLM itself may ask for a newer one
        try:
            found = _compiled(search, [asked[name]])
        except NetworkError:
            why = f"none that vLLM takes was built for torch {search.target.torch}"
            search.leave_out(name, judging.ABSENT, why)
            del asked[name]
    found = _compiled(search, [])
    kept: dict[str, str] = {}
    for name, requirement in asked.items():
        try:
            found = _compiled(search, [*kept.values(), requirement])
            kept[name] = requirement
        except NetworkError as error:
            search.leave_out(name, LEFT_OUT, str(error.args[0])[-300:])
    asked.clear()
    asked.update(kept)
    return found


def _compiled(search: Search, asked: Sequence[str]) -> Packages:
    target, out = search.target, search.out
    overrides = [f"torch=={target.torch}"]
    # their own metadata name the one torch they fit; vLLM's pins go with vLLM's torch
    overrides += [name for name in ("torchvision", "torchaudio") if name not in out]
    overrides += [f"{name} ; python_version < '3'" for name in out if name != "torch"]
    constraints = [f"{name}<{version}" for name, version in search.below.items() if name not in out]
    names = [canonicalize_name(Requirement(line).name) for line in asked]
    others = {index for name in names for index in search.indexes.get(name, ())} - {PYPI}
    return compile_requirements(
        [target.subject, *asked], constraints, target.python,
        overrides=overrides, platform=target.platform, more=sorted(others),
    )  # fmt: skip


def _judged(search: Search, found: Packages, pins: Mapping[str, FilePin]) -> list[Entry]:
    rows = {package["name"]: package for package in found}
    return [
        _entry(search, name, fact, rows[name]["version"], pins)
        for name, fact in facts().companion.items()
        if name in rows
    ]


def _entry(search: Search, name: str, fact: Companion, version: str, pins: Mapping[str, FilePin]) -> Entry:
    """One companion, judged by its wheel; by the one that carries its code, where that is another's."""
    target, pin = search.target, pins.get(name)
    carrier = pins.get(fact.code.format(major=target.cuda.split(".")[0]), pin)
    if pin is None or carrier is None:
        why = f"{name} {version} has no wheel for {target.device.machine}"
        return Entry(name, version, NO_WHEEL, why, fact.use, fact.without, None)
    try:
        path = (
            torch_wheel(version, target.device.machine, search.places)  # of another Python, if that is here
            if name == "torch"
            else fetch_files([carrier], search.places.downloads)[carrier.filename]
        )
    except NotEnoughDisk as error:
        return Entry(name, version, NOT_KNOWN, str(error.args[0]), fact.use, fact.without, None)
    judged = judging.judge(path, target.device, search.torch, host=fact.host, apart=fact.apart)
    return Entry(name, version, judged.code, judged.reason, fact.use, fact.without, pin)


def _pins(found: Packages, tags: dict[Tag, int]) -> dict[str, FilePin]:
    """Of each project the wheel that the device takes first; without those that have none."""
    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(lambda package: _pin(package, tags), found))
    return {package["name"]: pin for package, pin in zip(found, chosen, strict=True) if pin}


def _pin(package: dict[str, Any], tags: dict[Tag, int]) -> FilePin | None:
    chosen = best_wheels(pins_of(package, "companion", frozenset(tags)), tags)
    return chosen[0] if chosen else None


def _row(package: dict[str, Any], pins: dict[str, FilePin]) -> dict[str, Any] | None:
    """The package with the one wheel that the device takes; its source where there is no wheel."""
    pin = pins.get(package["name"])
    row = {"name": package["name"], "version": package["version"]}
    if pin is None:
        return {**row, "sdist": package["sdist"]} if "sdist" in package else None
    wheel = {"name": pin.filename, "url": pin.url, "size": pin.size, "hashes": {"sha256": pin.sha256}}
    return {**row, "wheels": [wheel]}


def _kept(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "version": entry.version, "code": entry.code, "reason": entry.reason}
