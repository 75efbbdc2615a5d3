"""nightly.toml as frozen values: what is built at night, where, and by which commands."""

from __future__ import annotations

import dataclasses
import os
import string
from pathlib import Path
from typing import Literal

import msgspec

from build_recipes.build.request import parse_duration
from build_recipes.facts.device import device as device_named
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import BadData, UnknownDevice, UsageError
from build_recipes.kit.host import Host

HOME = Path(__file__).resolve().parent
VARIABLE = "VLLM_ARMORY_NIGHT"
LAST_STEPS = 0.1
"""Part of the remaining time that a build leaves to the steps after it."""
PLACEHOLDERS = frozenset({"tag", "ref", "device", "omni", "cache", "time_box", "tree", "wheel"})


class Tags(Model, frozen=True):
    """Which tags of vLLM are built."""

    newest: int = 0
    """How many of the newest releases."""
    always: list[str] = msgspec.field(default_factory=list)
    """Release tags that are always built."""
    main: bool = False
    """Whether the main branch is built as well."""


class Omni(Model, frozen=True):
    """Which releases of vllm-omni each tag is checked with."""

    newest: int = 0
    always: list[str] = msgspec.field(default_factory=list)


class Target(Model, frozen=True):
    """A device that wheels are built for."""

    name: str
    runners: list[str]
    """Runners that may build them; the first enabled one does."""


class Runner(Model, frozen=True):
    """A kind of machine that jobs run on."""

    name: str
    labels: list[str]
    """What GitHub Actions' ``runs-on`` takes."""
    machine: str
    """``uname -m``."""
    cores: int
    memory_gib: float
    time_box: str
    """How long a job may take there, such as ``5h20m``."""
    enabled: bool
    disk_gb: float = 0
    """Room on its disk before a job begins, GB of 10^9 bytes; 0: not known, not judged."""
    hours: float = 0
    """After which the service ends a job; 0: never."""
    glibc: str = ""
    """Of its system, ``2.39``; where it is not given, that of the machine that resolves the matrix."""
    python: str = ""
    """That a workflow sets up there, ``3.12``; where it is not given, as `glibc`."""
    source: str = ""
    """Where these numbers come from."""

    def host(self) -> Host:
        """The runner as the machine that compiles."""
        this = Host.this()
        return dataclasses.replace(
            this,
            machine=self.machine,
            cores=self.cores,
            memory_gib=self.memory_gib,
            glibc=_pair(self.glibc) or this.glibc,
            python=_pair(self.python) or this.python,
        )

    @property
    def hosted(self) -> bool:
        """A machine that begins empty: its compiler cache comes from GitHub's, and goes there."""
        return "self-hosted" not in self.labels


def _pair(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


class Page(Model, frozen=True):
    """The status page."""

    stale_days: int = 3
    """Days without news after which a result is called stale."""
    strip: int = 14
    """Nights that a line shows."""


class Cache(Model, frozen=True):
    """GitHub's cache, which the jobs of all hosted runners share."""

    quota_gb: float = 10
    """For a repository, GB of 10^9 bytes."""
    generations: int = 2
    """Of a device that are there at the same time: the one that jobs read, and the one that is saved after them."""
    source: str = ""


class Step(Model, frozen=True):
    """One command of a job."""

    name: str
    command: list[str]
    """Words after ``./inv``, with placeholders."""
    when: Literal["always", "unlocked", "release", "main", "device"] = "always"
    each: Literal["", "omni"] = ""
    gate: bool = False
    """A failure makes the job red and ends it."""


class Publish(Model, frozen=True):
    """What is published, and how long it stays."""

    main: int = 7
    """Wheels of main that are kept for each device, the newest."""
    releases: int = 0
    """Versions of vLLM whose wheels are kept, the newest; 0 keeps all."""
    incomplete: bool = False
    """Also smoke and partial wheels: for rehearsals, into a repository of one's own."""


class Config(Model, frozen=True):
    """The whole file."""

    title: str
    tags: Tags
    device: list[Target]
    runner: list[Runner]
    step: list[Step]
    omni: Omni = msgspec.field(default_factory=Omni)
    cache: Cache = msgspec.field(default_factory=Cache)
    page: Page = msgspec.field(default_factory=Page)
    publish: Publish = msgspec.field(default_factory=Publish)
    suffix: str = ""
    """Ends every job's id; keeps jobs of another size (smoke) apart from the real ones."""

    def runners_of(self, target: Target) -> list[Runner]:
        """The enabled runners that may build for a device, the first choice first."""
        by_name = {entry.name: entry for entry in self.runner}
        return [by_name[name] for name in target.runners if by_name[name].enabled]

    def cache_gb(self, runner: Runner) -> float:
        """What the compiler cache of a device may take on a runner, GB: all devices' fit into the quota together, and
        at most a tenth of the disk; 0 where the machine keeps one of its own."""
        if not runner.hosted:
            return 0
        by_name = {entry.name: entry for entry in self.runner}
        shared = [t for t in self.device if any(by_name[name].hosted for name in t.runners)]
        share = self.cache.quota_gb / (max(1, len(shared)) * self.cache.generations)
        return int(10 * min(share, runner.disk_gb / 10 or share)) / 10

    @property
    def smoke(self) -> bool:
        """Whether the builds are smoke builds."""
        return any("--smoke" in step.command for step in self.step)


def find(name: str = "") -> Path:
    """The file a name means: a path, or one beside this module; by default the environment's, else nightly.

    :raises UsageError: there is none.
    """
    wanted = name or os.environ.get(VARIABLE) or "nightly"
    for path in (HOME / f"{wanted}.toml", Path(wanted)):
        if path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in HOME.glob("*.toml")))
    raise UsageError(
        f"there is no nightly configuration {wanted}", f"--config with one of {known}, or a file"
    )


def load(path: Path) -> Config:
    """Read and check a configuration.

    :raises BadData: broken TOML, an unknown key, device, runner or placeholder, or a name given twice.
    """
    config = load_toml(path, Config)
    for fault in _faults(config):
        raise BadData(f"{path} is not right: {fault}", "correct the file, or restore it with git")
    return config


def _faults(config: Config) -> list[str]:
    faults = []
    runners = [entry.name for entry in config.runner]
    targets = [entry.name for entry in config.device]
    faults += [f"runner {name} is there twice" for name in runners if runners.count(name) > 1]
    faults += [f"device {name} is there twice" for name in targets if targets.count(name) > 1]
    for entry in config.runner:
        try:
            box = parse_duration(entry.time_box)
        except UsageError as error:
            faults.append(f"runner {entry.name}: {error.args[0]}")
            continue
        if box <= 0 or entry.cores <= 0:
            faults.append(f"runner {entry.name}: a time box and a number of cores are above zero")
        faults += [
            f"runner {entry.name}: {text} is not a version such as 2.39"
            for text in (entry.glibc, entry.python)
            if text and not _pair(text)
        ]
        if entry.hours and box > entry.hours * 3600:
            faults.append(
                f"runner {entry.name}: a time box of {entry.time_box} is longer than a job may be there"
            )
    for target in config.device:
        try:
            device_named(target.name)
        except UnknownDevice as error:
            faults.append(str(error.args[0]))
        faults += [f"{target.name}: no runner is called {n}" for n in target.runners if n not in runners]
    for step in config.step:
        if not step.command:
            faults.append(f"step {step.name} has no command")
        names = {
            field for word in step.command for _, field, _, _ in _fields(word, faults, step.name) if field
        }
        faults += [f"step {step.name}: {{{name}}} means nothing" for name in sorted(names - PLACEHOLDERS)]
    if config.publish.main < 1 or config.publish.releases < 0:
        faults.append("[publish] main is one or more, releases zero or more")
    if config.tags.newest < 0 or config.omni.newest < 0:
        faults.append("newest is a number of releases, zero or more")
    return faults


def _fields(word: str, faults: list[str], step: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(word))
    except ValueError as error:
        faults.append(f"step {step}: {word}: {error}")
        return []
