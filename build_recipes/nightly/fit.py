"""Whether a job ends on a runner: simulated from what its units cost, before anything runs there.

Hours and memory come from the broker's rule on the expected cost of each unit, disk from the sizes of the plan's
files. A CPU second is taken for the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from build_recipes.build import disk
from build_recipes.build.plan import Plan
from build_recipes.build.preview import OVERHEAD_S
from build_recipes.build.request import parse_duration
from build_recipes.build.units import simulate, surveyed
from build_recipes.build.units.broker import RESERVE_GIB
from build_recipes.build.units.costs import Cost, expected
from build_recipes.facts import versions
from build_recipes.facts.device import device as device_named
from build_recipes.nightly.config import LAST_STEPS, Runner

SMOKE = {"smoke/unit": Cost(120.0, 3.0)}
"""What a smoke build compiles."""


@dataclass(frozen=True)
class Fit:
    """A job on a runner."""

    units: int
    cpu_s: float
    """CPU seconds of all units."""
    boxes: tuple[float, ...]
    """Seconds of each night it takes; the units of the nights before come out of the compiler cache."""
    gib: float
    """Peak memory of its compilers and the rest of the system, GiB."""
    disk_gb: float
    """Peak on disk, GB of 10^9 bytes; 0 where no lock says what is fetched."""
    drops: bool
    """Its disk holds no downloads beside what is unpacked of them: the build removes them."""
    lacks: tuple[str, ...]
    """What the runner has too little of, in words."""
    basis: str
    """Whose units were counted."""

    @property
    def seconds(self) -> float:
        """Of all nights."""
        return sum(self.boxes)


def units_of(tag: str, device: str, *, smoke: bool = False) -> tuple[dict[str, Cost], str]:
    """The units of a tag for a device with their costs, and whose they are."""
    if smoke:
        return SMOKE, "a smoke build"
    known = versions.facts().releases
    version = tag.removeprefix("v")
    version = version if version in known else known[-1]
    modules, basis = surveyed.likely(tag, version, device_named(device).arch_list)
    return {unit: expected(unit) for units in modules.values() for unit in units}, basis


def judge(
    plan: Plan | None, tag: str, device: str, runner: Runner, *, cache_gb: float, smoke: bool = False
) -> Fit:
    """Simulate a job on a runner.

    :param plan: None for a tag without a lock, whose downloads are not known.
    :param cache_gb: what the compiler cache may take there.
    """
    units, basis = units_of(tag, device, smoke=smoke)
    box_s = parse_duration(runner.time_box)
    course = simulate.run(
        units, cores=runner.cores, memory_gib=runner.memory_gib, box_s=box_s * (1 - LAST_STEPS) - OVERHEAD_S
    )
    room = runner.memory_gib - RESERVE_GIB
    lacks = [
        f"memory: {unit} takes {cost.gib:g} GiB, and {room:.1f} of its {runner.memory_gib:g} are free"
        for unit, cost in sorted(units.items())
        if cost.gib > room
    ]
    lacks += [
        f"time: {unit} takes {units[unit].seconds / 60:.0f} min, and one night has {runner.time_box}"
        for unit in course.left
    ]
    taken, drops = 0.0, False
    if plan:
        if not plan.torch_existing and not disk.picked(plan)["torch"]:
            python = ".".join(map(str, plan.host.python))
            lacks.append(f"Python {python}: the lock has no torch {plan.torch.version} for it")
        rest = cache_gb + disk.own_bytes() / 1e9
        kept, dropped = (disk.from_nothing(plan, drop=drop) / 1e9 + rest for drop in (False, True))
        drops = bool(runner.disk_gb) and kept > runner.disk_gb
        taken = dropped if drops else kept
        if drops and dropped > runner.disk_gb:
            lacks.append(f"disk: the build takes {dropped:.1f} GB, and it has {runner.disk_gb:g}")
    return Fit(
        len(units), sum(cost.seconds for cost in units.values()),
        tuple(seconds + OVERHEAD_S for seconds in course.boxes), round(course.gib + RESERVE_GIB, 1),
        round(taken, 1), drops, tuple(lacks), basis,
    )  # fmt: skip
