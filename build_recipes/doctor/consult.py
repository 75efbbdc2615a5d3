"""``./inv doctor``: a machine, a device and a tag in; what is well and what is not out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_recipes.doctor import checks_build, checks_run
from build_recipes.doctor.asking import ask_machine
from build_recipes.doctor.case import Case, Finding
from build_recipes.doctor.machine import Machine, read_machine
from build_recipes.facts import device as device_table
from build_recipes.facts import versions
from build_recipes.kit.errors import CouldNotCheck, DoctorBlocker
from build_recipes.kit.paths import Places


@dataclass(frozen=True)
class Report:
    """What the doctor found."""

    machine: Machine
    device: str | None
    tag: str
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...] = ()
    """Checks that had nothing to go by: no tag, no device, another machine."""

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """What stops a build or a run."""
        return tuple(found for found in self.findings if found.status == "blocker")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "machine": self.machine.as_dict(),
            "device": self.device,
            "tag": self.tag,
            "findings": [found.as_dict() for found in self.findings],
            "left_out": list(self.left_out),
            "blockers": len(self.blockers),
        }


def consult(machine: Machine, device: str = "", tag: str = "", places: Places | None = None) -> Report:
    """Check a machine for a device (its own where none is given) and a vLLM tag.

    :param places: where it builds, if it is this machine.
    :raises UnknownDevice: no such device.
    :raises UnknownTag: no such tag; NotATag: it is none.
    """
    asked = device or machine.device
    name = device_table.canonical(asked) if asked else None
    entry = device_table.device(name) if name else None
    facts = versions.for_version(versions.check_known(tag)) if tag else None
    case = Case(machine, name, entry, tag, facts, places)
    found = {check: run(case) for check, run in (checks_run.CHECKS | checks_build.CHECKS).items()}
    left_out = tuple(
        check for check, one in found.items() if one is None and (check != "JetPack" or machine.tegra)
    )
    return Report(machine, name, tag, tuple(one for one in found.values() if one is not None), left_out)


def doctor(device: str, tag: str, root: str, python: str) -> Report:
    """What ``./inv doctor`` does.

    :param root: folder of another machine's files; this machine is asked where it is empty.
    :raises CouldNotCheck: there is no such folder.
    """
    if not root:
        places = Places.from_environment()
        return consult(ask_machine(Path(python) if python else None), device, tag, places)
    if not Path(root).is_dir():
        raise CouldNotCheck(
            f"{root} is not a folder", "give the root of a machine's files, such as tests/snapshots/thor"
        )
    return consult(read_machine(Path(root)), device, tag)


def check(report: Report) -> None:
    """Refuse a machine with blockers.

    :raises DoctorBlocker: names them; the first one's fix is the advice.
    """
    blockers = report.blockers
    if blockers:
        first = blockers[0]
        names = ", ".join(found.check for found in blockers)
        raise DoctorBlocker(
            f"{len(blockers)} blocker{'s' * (len(blockers) > 1)}: {names}", first.fix or "see above"
        )
