"""What runs beside a vLLM wheel on a device: every project pinned by hash, every companion judged by its wheel.

uv resolves what the wheel requires, for the device's system and Python, with the torch that the wheel was built
against. The result is a pylock.toml (PEP 751) beside the locks; pip and uv install from it, hashes checked.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from build_recipes.audit.exports import libraries
from build_recipes.build.plan import choose_torch
from build_recipes.delivery import judge as judging
from build_recipes.facts import device as devices
from build_recipes.facts.device import Device
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import paths
from build_recipes.kit.data import Model, load_toml, parse_toml, write_atomic
from build_recipes.kit.errors import BadData, CouldNotCheck, NetworkError
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import FilePin, best_wheels, load_lock, tags_for
from build_recipes.sources.registry import PYPI, content_length, file_pins, packages
from build_recipes.sources.resolve import compile_requirements, file_name, fits

NO_WHEEL, NOT_KNOWN, LEFT_OUT = "no wheel", "not known", "left out"
TORCH_TRIES = 12
"""Versions of a project that are tried, newest first, until one was built for this torch."""


class Companion(Model, frozen=True):
    """A table of companions.toml; its head documents the keys."""

    use: str
    without: str
    same_as: str = ""
    index: str = ""
    of_cuda: bool = False
    ask: bool = False


class Facts(Model, frozen=True):
    """companions.toml."""

    python: str
    companion: dict[str, Companion]


@functools.cache
def facts() -> Facts:
    """companions.toml, read once."""
    return load_toml(Path(__file__).with_name("companions.toml"), Facts)


@dataclass(frozen=True)
class Entry:
    """One companion of a vLLM on a device."""

    name: str
    version: str
    """Empty where none was chosen."""
    code: str
    """As `judge.Judged.code`; or ``no wheel`` (none for this CPU: to be built), ``left out`` (its requirements
    contradict vLLM's), ``not known`` (its index does not answer)."""
    reason: str
    use: str
    without: str
    """What follows for vLLM where it does not run."""
    file: FilePin | None

    @property
    def runs(self) -> bool:
        """Whether it is in the set that is installed."""
        return self.code in judging.RUNS


@dataclass(frozen=True)
class Target:
    """What is resolved for."""

    subject: str
    """Requirement that names vLLM: ``vllm==0.12.0``, or ``vllm @ file:///...whl``."""
    label: str
    """For file names and people: ``v0.12.0``."""
    torch: str
    cuda: str
    """CUDA of torch, ``13.0``."""
    device_name: str
    device: Device
    python: tuple[int, int]

    @property
    def platform(self) -> str:
        """The device's system, as uv names it."""
        return f"{self.device.machine}-manylinux_{self.device.glibc.replace('.', '_')}"


@dataclass(frozen=True)
class Companions:
    """The whole set."""

    target: Target
    entries: tuple[Entry, ...]
    locked: tuple[FilePin, ...]
    """Every wheel that is installed beside vLLM, companions and all else."""
    unbuilt: tuple[str, ...]
    """Projects of the set that come as source only, ``name==version``."""
    path: Path
    """The pylock.toml."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "vllm": self.target.label,
            "device": self.target.device_name,
            "torch": self.target.torch,
            "python": "{}.{}".format(*self.target.python),
            "companions": [
                {**asdict(one), "file": _plain(one.file), "runs": one.runs} for one in self.entries
            ],
            "locked": [_plain(pin) for pin in self.locked],
            "unbuilt": list(self.unbuilt),
            "path": str(self.path),
        }


def _plain(pin: FilePin | None) -> dict[str, Any] | None:
    keys = ("project", "version", "filename", "url", "sha256", "size")
    return {key: getattr(pin, key) for key in keys} if pin else None


def target_of(tag: str, wheel: Path | None, device_name: str, python: str = "") -> Target:
    """What to resolve for: a wheel with its own requirements, else the official wheel's of a tag.

    :raises CouldNotCheck: the wheel names no torch.
    :raises ArmoryError: no such device; no lock of the tag.
    """
    name = devices.canonical(device_name)
    asked = _two(python or facts().python)
    if wheel is None:
        torch = choose_torch(load_lock(tag), "")
        version = tag.removeprefix("v")
        return Target(f"vllm=={version}", tag, torch.version, torch.cuda, name, devices.device(name), asked)
    with Wheel(wheel) as opened:
        lines = [Requirement(line) for line in opened.requires]
    pins = [str(line.specifier) for line in lines if canonicalize_name(line.name) == "torch"]
    if not pins or not pins[0].startswith("=="):
        raise CouldNotCheck(f"{wheel.name} names no torch version", "./inv audit WHEEL says what it needs")
    found = parse_wheel_filename(wheel.name)[1]
    public = found.public
    cuda = next((pin.cuda for pin in load_lock(f"v{public}").torch if pin.version == pins[0][2:]), "13.0")
    label = f"v{found}"
    return Target(
        f"vllm @ {wheel.resolve().as_uri()}", label, pins[0][2:], cuda, name, devices.device(name), asked
    )


def lock_file(target: Target) -> str:
    """Name of the pylock.toml of a target; PEP 751 allows no further dot in it."""
    system = "{}-{}{}".format(target.device_name, *target.python)
    return f"pylock.{target.label.replace('.', '_')}-{system}.toml"


def companions(target: Target, places: Places, *, fresh: bool = False) -> Companions:
    """The companions of a target: read from its lock where one is, else resolved and locked.

    :param fresh: resolve again.
    :raises NetworkError: an index does not answer, or nothing fits vLLM's requirements.
    """
    name = lock_file(target)
    folders = [folder / "companions" for folder in paths.lock_folders()]
    path = next((there / name for there in folders if (there / name).is_file()), None)
    if path is None or fresh:
        path = folders[0] / name
        write_atomic(path, _resolve(target, places))
    return _read(target, path)


def _two(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


# -- resolving -----------------------------------------------------------------------------------


def _resolve(target: Target, places: Places) -> str:
    """The text of a new lock."""
    tags = tags_for(target.device.machine, target.python, _two(target.device.glibc))
    ranked = frozenset(tags)
    out: dict[str, Entry] = {}
    indexes: dict[str, str] = {}
    for name, fact in facts().companion.items():
        indexes[name], why, code = _index_of(name, fact, target, ranked)
        if not indexes[name]:
            out[name] = Entry(name, "", code, why, fact.use, fact.without, None)
    with contextlib.ExitStack() as stack:
        torch = libraries(target.torch, target.device.machine, places, stack)
        found = _compiled(target, out, {}, indexes)
        pins = _pins(found, tags)
        entries = _judged(target, found, pins, torch, places)
        wrong = [one for one in entries if judging.OTHER_TORCH in one.reason]
        if wrong:
            bounds: dict[str, str] = {}
            for one in wrong:
                version = _built_for(target, one, tags, torch, places)
                if version:
                    bounds[one.name] = version
                else:
                    why = f"none of its newest versions was built for torch {target.torch} ({one.reason})"
                    out[one.name] = Entry(one.name, "", judging.ABSENT, why, one.use, one.without, None)
            found = _compiled(target, out, bounds, indexes)
            pins = _pins(found, tags)
            entries = _judged(target, found, pins, torch, places)
    entries += [out[name] for name in facts().companion if name in out]
    absent = {one.name for one in entries if not one.runs}
    document = {
        "lock-version": "1.0",
        "created-by": "vllm-armory",
        "requires-python": f"=={target.python[0]}.{target.python[1]}.*",
        "packages": [row for package in found if (row := _row(package, pins)) and row["name"] not in absent],
        "tool": {"vllm-armory": {"torch": target.torch, "companions": [_kept(one) for one in entries]}},
    }
    return tomli_w.dumps(document)


def _index_of(name: str, fact: Companion, target: Target, tags: frozenset[Any]) -> tuple[str, str, str]:
    """The index that has a wheel for the device; else why none has, and the code that says so."""
    why, code = "", NO_WHEEL
    machine = target.device.machine
    for index in filter(None, (PYPI, fact.index.format(cuda=target.cuda.replace(".", "")))):
        try:
            files = packages(name, index)
        except NetworkError as error:
            if index != PYPI:
                why, code = str(error.args[0]), NOT_KNOWN
            continue
        if any(fits(file.filename, tags) for file in files):
            return index, "", ""
        why = f"no wheel for {machine}, Python {target.python[0]}.{target.python[1]} on {index}: build it"
    return "", why or f"no index has it: {PYPI}", code


def _compiled(
    target: Target, out: dict[str, Entry], bounds: dict[str, str], indexes: dict[str, str]
) -> list[dict[str, Any]]:
    """The packages of the set. What contradicts vLLM's requirements is put into ``out``."""
    known = facts().companion
    overrides = [f"torch=={target.torch}"]
    # their own metadata name the one torch they fit; vLLM's pins go with vLLM's torch
    overrides += [name for name in ("torchvision", "torchaudio") if name not in out]
    overrides += [f"{name} ; python_version < '3'" for name in out]

    def run(asked: Sequence[str]) -> list[dict[str, Any]]:
        constraints = [f"{name}=={version}" for name, version in bounds.items()]
        others = {indexes[name.split("=")[0]] for name in asked if name.split("=")[0] in indexes} - {PYPI}
        return compile_requirements(
            [target.subject, *asked], constraints, target.python, next(iter(others), PYPI),
            overrides=overrides, platform=target.platform,
        )  # fmt: skip

    asked = [
        f"{name}=={target.cuda}.*" if fact.of_cuda else name
        for name, fact in known.items()
        if fact.ask and name not in out and not fact.same_as
    ]
    try:
        found = run(asked)
    except NetworkError:
        found = run([])
        kept: list[str] = []
        for name in asked:  # one at a time: which of them is it?
            try:
                found = run([*kept, name])
                kept.append(name)
            except NetworkError as error:
                fact = known[name := name.partition("=")[0]]
                out[name] = Entry(name, "", LEFT_OUT, str(error.args[0])[-300:], fact.use, fact.without, None)
        asked = kept
    for name, fact in known.items():
        version = next((one["version"] for one in found if one["name"] == fact.same_as), "")
        if not fact.same_as or name in out or not version:
            continue
        try:
            found = run([*asked, f"{name}=={version}"])
            asked.append(f"{name}=={version}")
        except NetworkError:
            why = f"{indexes[name]} has no {name} {version}, the version of {fact.same_as}"
            out[name] = Entry(name, "", NO_WHEEL, why, fact.use, fact.without, None)
    return [package for package in found if package["name"] != "vllm"]


def _judged(
    target: Target,
    found: list[dict[str, Any]],
    pins: dict[str, FilePin],
    torch: Sequence[Any],
    places: Places,
) -> list[Entry]:
    rows = {package["name"]: package for package in found}
    entries = []
    for name, fact in facts().companion.items():
        if name not in rows:
            continue
        pin = pins.get(name)
        version = rows[name]["version"]
        if pin is None:
            why = f"{name} {version} has no wheel for {target.device.machine}: build it"
            entries.append(Entry(name, version, NO_WHEEL, why, fact.use, fact.without, None))
            continue
        path = fetch_files([pin], places.downloads)[pin.filename]
        judged = judging.judge(path, target.device, torch)
        entries.append(Entry(name, version, judged.code, judged.reason, fact.use, fact.without, pin))
    return entries


def _built_for(
    target: Target, entry: Entry, tags: dict[Any, int], torch: Sequence[Any], places: Places
) -> str:
    """The newest version of a project, older than ``entry``, that was built for the torch; empty for none."""
    older: set[Version] = set()
    for file in packages(entry.name):
        with contextlib.suppress(InvalidVersion):
            version = Version(file.version or "")
            if version < Version(entry.version) and not version.is_prerelease:
                older |= {version} if fits(file.filename, frozenset(tags)) else set()
    for version in sorted(older, reverse=True)[:TORCH_TRIES]:
        pins = best_wheels(file_pins(entry.name, str(version), "companion", frozenset(tags)), tags)
        path = fetch_files(pins, places.downloads)[pins[0].filename]
        if judging.judge(path, target.device, torch).code in judging.RUNS:
            return str(version)
    return ""


def _pins(found: Sequence[dict[str, Any]], tags: dict[Any, int]) -> dict[str, FilePin]:
    """Of each project the wheel that the device takes first; without those that have none."""
    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(lambda package: _pin(package, tags), found))
    return {package["name"]: pin for package, pin in zip(found, chosen, strict=True) if pin}


def _pin(package: dict[str, Any], tags: dict[Any, int]) -> FilePin | None:
    pins = [
        FilePin(
            project=str(canonicalize_name(package["name"])), version=package["version"], filename=file_name(wheel),
            url=wheel["url"], sha256=wheel["hashes"]["sha256"], size=wheel.get("size") or 0, group="companion",
        )
        for wheel in package.get("wheels", [])
        if fits(file_name(wheel), frozenset(tags))
    ]  # fmt: skip
    chosen = best_wheels(pins, tags)
    if not chosen:
        return None
    pin = chosen[0]
    return msgspec.structs.replace(pin, size=pin.size or content_length(pin.url))


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


# -- reading -------------------------------------------------------------------------------------


def _read(target: Target, path: Path) -> Companions:
    try:
        document = parse_toml(path.read_text(encoding="utf-8"))
        rows = {package["name"]: package for package in document["packages"]}
        pins = {
            name: FilePin(
                project=name, version=package["version"], filename=wheel["name"], url=wheel["url"],
                sha256=wheel["hashes"]["sha256"], size=wheel["size"], group="companion",
            )
            for name, package in rows.items()
            for wheel in package.get("wheels", [])
        }  # fmt: skip
        known = facts().companion
        entries = tuple(
            Entry(one["name"], one["version"], one["code"], one["reason"], known[one["name"]].use,
                  known[one["name"]].without, pins.get(one["name"]))
            for one in document["tool"]["vllm-armory"]["companions"]
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(
            f"{path} is not right: {error}", "remove it; ./inv companions makes it again"
        ) from error
    unbuilt = tuple(f"{name}=={package['version']}" for name, package in rows.items() if "sdist" in package)
    return Companions(target, entries, tuple(pins.values()), unbuilt, path)
