"""The audit: does a wheel keep its promise, and what does it mean on each device?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build_recipes.audit import coverage as verdict
from build_recipes.audit import findings, origin, subject
from build_recipes.audit.closure import Closure, Library, close
from build_recipes.audit.coverage import FamilyOnDevice
from build_recipes.audit.families import family_table
from build_recipes.audit.findings import Finding
from build_recipes.audit.promise import Promise
from build_recipes.audit.scan import Module, scan
from build_recipes.facts import architectures
from build_recipes.facts.device import Device, canonical, device, devices
from build_recipes.formats import abi
from build_recipes.formats.wheel import Distribution, incomplete
from build_recipes.kit.console import counted
from build_recipes.kit.errors import AuditFailed, NotAWheel

READY, SLOW_START, NOT_USABLE = "ready", "runs with JIT", "not usable"


@dataclass(frozen=True)
class OnDevice:
    """The verdict for one device."""

    device: str
    verdict: str
    """``ready``, ``runs with JIT`` or ``not usable``."""
    reasons: tuple[str, ...]
    """Why it is not usable, or what is slow or missing."""
    families: dict[str, FamilyOnDevice]


@dataclass(frozen=True)
class Audit:
    """Everything one audit found; `as_dict` is its JSON."""

    wheel: str
    """File name, or the folder of an installed copy."""
    version: str
    size: int
    """Bytes of its members as they are packed."""
    tags: tuple[str, ...]
    """Tags of the file name."""
    glibc: str
    """Least glibc the modules ask for."""
    requires_torch: str
    modules: tuple[Module, ...]
    closure: Closure | None
    """None where no libraries were given to close against."""
    devices: dict[str, OnDevice]
    findings: tuple[Finding, ...]
    incomplete: str = ""
    """``partial`` or ``smoke`` where its version says that it is not the whole."""
    parts: dict[str, int] = field(default_factory=dict)
    """Part of the wheel to its packed bytes, largest first."""

    def failing(self, allowed: Iterable[str] = ()) -> tuple[Finding, ...]:
        """Errors that are not accepted by their id."""
        accepted = set(allowed)
        return tuple(one for one in self.findings if one.severity == "error" and one.id not in accepted)

    def check(self, allowed: Iterable[str] = ()) -> None:
        """Refuse the wheel where an error is left.

        :raises AuditFailed: naming the findings; the advice names the ids to allow.
        """
        left = self.failing(allowed)
        if left:
            raise AuditFailed(
                f"{self.wheel} does not keep its promise:\n"
                + "\n".join(f"  [{one.id}] {one.text}" for one in left),
                left[0].advice + "; or accept it: " + " ".join(f"--allow {one.id}" for one in left),
            )

    def check_devices(self, names: Sequence[str], allowed: Iterable[str] = ()) -> None:
        """Refuse the wheel where a named device (of its own CPU, where none is named) cannot use it.

        :raises AuditFailed: with the reasons; ``--allow unusable:DEVICE`` accepts one.
        """
        machines = {module.machine for module in self.modules}
        wanted = [canonical(name) for name in names] or [
            name for name in self.devices if device(name).machine in machines
        ]
        accepted = set(allowed)
        bad = [
            self.devices[name]
            for name in wanted
            if self.devices[name].verdict == NOT_USABLE and f"unusable:{name}" not in accepted
        ]
        if bad:
            raise AuditFailed(
                f"{self.wheel} cannot be used on {', '.join(one.device for one in bad)}: {bad[0].reasons[0]}",
                f"./inv advise --tag v{self.version.split('+')[0]} --device {bad[0].device}",
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "wheel": self.wheel,
            "version": self.version,
            "incomplete": self.incomplete,
            "size": self.size,
            "tags": list(self.tags),
            "glibc": self.glibc,
            "requires_torch": self.requires_torch,
            "parts": self.parts,
            "modules": [_module(module) for module in self.modules],
            "closure": dataclasses.asdict(self.closure) if self.closure else None,
            "devices": {name: dataclasses.asdict(one) for name, one in self.devices.items()},
            "findings": [dataclasses.asdict(one) for one in self.findings],
        }


def _module(module: Module) -> dict[str, Any]:
    return {
        "path": module.path,
        "size": module.size,
        "packed": module.packed,
        "machine": module.machine,
        "torch_abi": module.torch_abi,
        "needed": list(module.needed),
        "runpath": list(module.runpath),
        "cuda": list(module.cuda),
        "symbol_versions": {library: list(names) for library, names in module.version_needs.items()},
        "ops": list(module.ops),
        "units": len(module.units),
        "code": {name: {"entries": count, "bytes": size} for name, (count, size) in module.code.items()},
        "broken": module.broken,
    }


def audit_wheel(
    wheel: Path,
    names: Sequence[str] = (),
    *,
    libraries: Sequence[Library] | None = None,
    promise: Promise | None = None,
) -> Audit:
    """Audit one vLLM wheel, or the copy of vLLM installed in a folder.

    :param names: devices to judge it for; all that are known where it is empty.
    :param libraries: what symbols are resolved against (torch's and CUDA's libraries); no closure for None.
    :param promise: what the build that made it said.
    :raises NotAWheel: no wheel, a damaged one, or another project's.
    :raises UnsafeArchive: a bomb, or members that climb out.
    :raises UnknownDevice: no such device.
    """
    with subject.opened(wheel) as opened:
        return audit_distribution(opened, names, libraries=libraries, promise=promise)


def audit_distribution(
    opened: Distribution,
    names: Sequence[str] = (),
    *,
    libraries: Sequence[Library] | None = None,
    promise: Promise | None = None,
) -> Audit:
    """Audit a wheel that is open; see `audit_wheel`."""
    asked = {canonical(name): device(name) for name in names} or devices()
    if promise:
        asked = {promise.device: device(promise.device)} | asked if names else asked
    if opened.name != "vllm":
        raise NotAWheel(f"{opened.path.name} is a wheel of {opened.name}, not of vllm", "give a vLLM wheel")
    seen = scan(opened, architectures.loading(one.number for one in asked.values()))
    closure = None
    if libraries is not None:
        closure = close({module.path: module for module in seen.modules}, libraries)
    found = [
        *findings.completeness(opened),
        *findings.archive(opened, seen),
        *findings.platform(opened, seen.modules),
        *findings.linkage(opened, seen.modules, closure),
    ]
    if promise:
        kept = list(findings.promised(opened, seen.modules, promise))
        ids = {one.id for one in kept}
        found = [one for one in found if one.id not in ids] + kept
    there = {promise.device: promise.newest_glibc} if promise else {}
    had = origin.families(opened)
    judged = {
        name: judge(name, one, seen.modules, found, glibc=there.get(name), source=had)
        for name, one in asked.items()
    }
    return Audit(
        wheel=opened.path.name,
        version=opened.version,
        size=sum(member.compress_size for member in opened.members.values()),
        tags=opened.file_tags(),
        glibc=".".join(map(str, findings.glibc(seen.modules))),
        requires_torch=findings.torch_pin(opened),
        modules=seen.modules,
        closure=closure,
        devices=judged,
        findings=tuple(found),
        incomplete=incomplete(opened.version),
        parts=_parts(opened),
    )


def _parts(wheel: Distribution) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, member in wheel.members.items():
        part = (
            name
            if re.search(r"\.so(\.\d+)*$", name) or member.compress_size > 4_000_000
            else "Python and data"
        )
        sizes[part] = sizes.get(part, 0) + member.compress_size
    return dict(sorted(sizes.items(), key=lambda row: -row[1]))


def judge(
    name: str,
    entry: Device,
    modules: Sequence[Module],
    found: Sequence[Finding],
    *,
    glibc: tuple[int, ...] | None = None,
    source: Mapping[str, int] | None = None,
) -> OnDevice:
    """The verdict for one device.

    :param glibc: of its system, where that is known better than from the table.
    :param source: see `coverage.families`.
    """
    families = verdict.families(modules, entry, source)
    against = [one.text for one in found if one.severity == "error" and one.breaks]
    unresolved = [one for one in found if one.id.startswith("closure:")]
    if len(unresolved) > 2:
        against = [text for text in against if text not in {one.text for one in unresolved}]
        modules_lost = ", ".join(one.id.partition(":")[2] for one in unresolved)
        against.append(f"would not import for missing symbols: {modules_lost}")
    stems = {findings.stem(module.path) for module in modules}
    for names in family_table().required:
        if not stems.intersection(names):
            against.append(f"has no {' or '.join(names)} module, and every model calls it")
    machines = {module.machine for module in modules if module.machine}
    if machines and machines != {entry.machine}:
        against.append(f"made for {' and '.join(sorted(machines))}, the device has {entry.machine}")
    for major in sorted({major for module in modules for major in module.cuda}):
        if not verdict.takes_cuda(entry, major):
            against.append(f"links CUDA {major}; the device runs CUDA {entry.cuda}")
    system = glibc or abi.version(entry.glibc)
    if system < findings.glibc(modules):
        needed, has = (".".join(map(str, version)) for version in (findings.glibc(modules), system))
        against.append(f"needs glibc {needed}, the device's system has {has}")
    lacking = [
        _title(family) for family, one in families.items() if one.status == verdict.ABSENT and _core(family)
    ]
    if lacking:
        against.append(f"no code for sm_{entry.number}: {', '.join(lacking)}")
    if against:
        return OnDevice(name, NOT_USABLE, tuple(against), families)
    slow = [family for family, one in families.items() if one.status == verdict.JIT]
    notes = [one.text for one in found if one.id in ("partial", "smoke")]
    if slow:
        units = sum(families[family].jit_units for family in slow)
        driver = max(
            (families[family].driver for family in slow), key=lambda text: tuple(map(int, text.split(".")))
        )
        notes.append(
            f"first start compiles {counted(units, 'unit')} ({', '.join(map(_title, slow))});"
            f" driver for CUDA {driver} or newer"
        )
    gone = [_title(family) for family, one in families.items() if one.status == verdict.ABSENT]
    if gone:
        notes.append(f"not there: {', '.join(gone)}")
    return OnDevice(name, SLOW_START if slow else READY, tuple(notes), families)


def _title(family: str) -> str:
    return family_table().family[family].title


def _core(family: str) -> bool:
    return family_table().family[family].core
