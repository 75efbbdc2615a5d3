"""What runs beside a vLLM wheel on a device: every project pinned by hash, every companion judged by its wheel.

uv resolves what the wheel requires, for the device's system and Python, with the torch that the wheel was built
against. The result is a pylock.toml (PEP 751) beside the locks; pip and uv install from it, hashes checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from build_recipes.build.plan import choose_torch
from build_recipes.delivery import judge as judging
from build_recipes.facts import device as devices
from build_recipes.facts.device import Device
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import paths
from build_recipes.kit.data import Model, load_json, load_toml, parse_toml, write_atomic
from build_recipes.kit.errors import BadData, CouldNotCheck, UsageError
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.sources.lockfile import FilePin, load_lock

NO_WHEEL, NOT_KNOWN, LEFT_OUT = "no wheel", "not known", "left out"
RECORD = ".built.json"
"""How the record of a companion that was built here ends."""


class Companion(Model, frozen=True):
    """A table of companions.toml; its head documents the keys."""

    use: str
    without: str
    same_as: str = ""
    index: str = ""
    ask: bool = False
    asks: str = ""
    code: str = ""
    apart: str = ""
    host: bool = False
    vital: bool = False


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


class Built(Model, frozen=True):
    """A companion that was built here, and what it was made from; lies beside its wheel."""

    name: str
    version: str
    wheel: str
    """File name."""
    sha256: str
    code: str
    """As `Entry.code`."""
    reason: str
    device: str
    torch: str
    python: str
    """Minor version."""
    sdist: str
    """SHA-256 of the source."""
    build: dict[str, str]
    """Wheels of the build environment, by file name: SHA-256."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {key: getattr(self, key) for key in self.__struct_fields__}

    def path(self, places: Places) -> Path:
        """The file of this record."""
        return places.wheels / f"{self.wheel.removesuffix('.whl')}{RECORD}"


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
    built: dict[Path, str] = field(default_factory=dict)
    """Wheels of the set that were built here, with their SHA-256."""

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
            "built": {path.name: digest for path, digest in self.built.items()},
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
        from build_recipes.delivery.resolving import resolve

        path = folders[0] / name
        write_atomic(path, resolve(target, places))
    return _with_built(_read(target, path), places)


def _two(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,4})(\.\d{1,4})?", text, re.ASCII)
    if found is None:
        raise UsageError(f"--python {text[:40]!r} is no minor version of Python", "--python 3.12")
    return int(found[1]), int(found[2])


# -- reading -------------------------------------------------------------------------------------


class _Row(TypedDict):
    name: str
    version: str
    code: str
    reason: str


def _read(target: Target, path: Path) -> Companions:
    try:
        document = parse_toml(path.read_text(encoding="utf-8"))
        rows = {package["name"]: package for package in document["packages"]}
        pins = {
            name: msgspec.convert({
                "project": name, "version": package["version"], "filename": wheel["name"], "url": wheel["url"],
                "sha256": wheel["hashes"]["sha256"], "size": wheel["size"], "group": "companion",
            }, FilePin)
            for name, package in rows.items()
            for wheel in package.get("wheels", [])
        }  # fmt: skip
        known = facts().companion
        entries = tuple(
            Entry(one["name"], one["version"], one["code"], one["reason"], known[one["name"]].use,
                  known[one["name"]].without, pins.get(one["name"]))
            for one in msgspec.convert(document["tool"]["vllm-armory"]["companions"], list[_Row])
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(
            f"{path} is not right: {error}", "remove it; ./inv companions makes it again"
        ) from error
    unbuilt = tuple(f"{name}=={package['version']}" for name, package in rows.items() if "sdist" in package)
    return Companions(target, entries, tuple(pins.values()), unbuilt, path)


def _with_built(found: Companions, places: Places) -> Companions:
    """The set with what was built here for it; a wheel that is not as its record says is passed over."""
    target, python = found.target, "{}.{}".format(*found.target.python)
    built: dict[str, Built] = {}
    for path in sorted(places.wheels.glob(f"*{RECORD}")):
        with contextlib.suppress(BadData, OSError):
            one = load_json(path, Built)
            wheel = places.wheels / Path(one.wheel).name
            fits = (one.device, one.torch, one.python) == (target.device_name, target.torch, python)
            if fits and wheel.is_file() and file_sha256(wheel) == one.sha256:
                built[one.name] = one
    entries = tuple(
        dataclasses.replace(entry, version=made.version, code=made.code, reason=made.reason)
        if entry.code == NO_WHEEL and (made := built.get(entry.name))
        else entry
        for entry in found.entries
    )
    files = {places.wheels / one.wheel: one.sha256 for one in built.values()}
    unbuilt = tuple(line for line in found.unbuilt if line.partition("==")[0] not in built)
    return dataclasses.replace(found, entries=entries, unbuilt=unbuilt, built=files)
