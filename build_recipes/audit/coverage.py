"""What a wheel's device code means for one device: native, JIT, absent, or not needed, per kernel family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from build_recipes.audit.families import family_table
from build_recipes.audit.scan import Module, Target, Unit
from build_recipes.facts import architectures
from build_recipes.facts.device import Device

NATIVE, JIT, ABSENT, NOT_NEEDED = "native", "jit", "absent", "not needed"


@dataclass(frozen=True)
class FamilyOnDevice:
    """One kernel family on one device; counts are kernels."""

    status: str
    """``native``, ``jit``, ``absent`` or ``not needed``."""
    native: int
    jit: int
    absent: int
    empty: int
    """Kernels whose SASS loads and only exits; they count as absent."""
    jit_units: int
    """Translation units the driver has to compile at first use."""
    driver: str
    """Least CUDA version of a driver that compiles the PTX, empty where there is none to compile."""


def loads(target: Target, device: Device) -> bool:
    """Whether SASS for a target loads on a device."""
    return architectures.loads(target.arch, target.suffix, device.number)


def compiles(target: Target, device: Device) -> bool:
    """Whether a driver can compile PTX for a target to the device."""
    return architectures.compiles(target.arch, target.suffix, device.number)


def best(unit: Unit, device: Device) -> Target | None:
    """The SASS the driver would take for a device; None where it has none."""
    fitting = [target for target in unit.targets if target.kind == "sass" and loads(target, device)]
    return max(fitting, key=lambda target: (target.arch, target.suffix), default=None)


def families(
    modules: Iterable[Module], device: Device, source: Mapping[str, int] | None = None
) -> dict[str, FamilyOnDevice]:
    """Every kernel family the modules hold, as it stands on a device, in the order of families.toml.

    :param source: kernels of each family in the wheel that this one was made from: what is gone is absent.
    """
    tally: dict[str, list[int]] = {}
    driver: dict[str, tuple[int, ...]] = {}
    for unit in (unit for module in modules for unit in module.units):
        sass = best(unit, device)
        text = [target for target in unit.targets if target.kind == "ptx" and compiles(target, device)]
        newest = max(text, key=lambda target: target.arch, default=None)
        for family, count in unit.families.items():
            row = tally.setdefault(family, [0, 0, 0, 0, 0])
            if sass is not None:
                real, empty = unit.targets[sass].get(family, (0, 0))
                row[0] += real
                row[2] += count - real
                row[3] += empty
            elif newest is not None:
                row[1] += count
                row[4] += 1
                least = family_table().ptx.get(newest.isa, newest.isa)
                driver[family] = max(driver.get(family, ()), tuple(map(int, least.split("."))))
            else:
                row[2] += count
    for family, count in (source or {}).items():
        tally.setdefault(family, [0, 0, count, 0, 0])
    found = {}
    for family in family_table().family:
        if family in tally:
            native, jit, absent, empty, units = tally[family]
            status = JIT if jit else NATIVE if native else ABSENT
            if not family_table().family[family].needed(device.number):
                status = NOT_NEEDED
            least = ".".join(map(str, driver.get(family, ())))
            found[family] = FamilyOnDevice(status, native, jit, absent, empty, units, least)
    return found


def has_sass(module: Module, device: Device) -> int:
    """Units of a module with SASS that loads on a device and has at least one kernel with code."""
    count = 0
    for unit in module.units:
        target = best(unit, device)
        if target is not None and any(real for real, _ in unit.targets[target].values()):
            count += 1
    return count


def runs(module: Module, device: Device) -> bool:
    """Whether any device code of a module loads on a device, or can be compiled for it."""
    return any(
        compiles(target, device) if target.kind == "ptx" else loads(target, device)
        for unit in module.units
        for target in unit.targets
    )


def takes_cuda(device: Device, major: int) -> bool:
    """Whether libraries of a CUDA major run on a device."""
    return any(SpecifierSet(device.cuda).contains(f"{major}.{minor}") for minor in range(10))
