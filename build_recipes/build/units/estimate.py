"""What a compile is expected to take, said before it starts and held against what it took.

Before a tree is configured its units are those of the survey (the tag's own, else the nearest release's); after
that they are the graph's. A unit costs what this tree measured, else what costs.toml says at this machine's pace.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from build_recipes.build.units import surveyed
from build_recipes.build.units.costs import Cost, expected, learned
from build_recipes.kit.data import parse_json, write_atomic

NAME = "estimate.json"
"""In the build tree: what was expected before the first unit, and what it took."""


@dataclass(frozen=True)
class Estimate:
    """What a set of units is expected to cost."""

    units: int
    cpu_s: float
    """CPU seconds of all units."""
    gib: float
    """Peak memory of the heaviest unit, GiB."""
    modules: dict[str, float]
    """Target to CPU seconds."""
    basis: str
    """Where the units and their costs come from."""
    heaviest: str = ""
    """That unit; empty where it is not known."""
    unknown: tuple[str, ...] = ()
    """Targets whose units are not known: what they take comes on top."""
    pace: float = 1.0
    """Of this machine against costs.toml."""


FEWEST, LEAST_S = 8, 600
"""Units, and CPU seconds expected of them, that a machine must have compiled before its pace is believed: the first
that end are the smallest and say little of the others (benchmarks/fit_costs.py)."""


def enough(units: float, hoped_s: float) -> bool:
    """Whether so many units tell a machine's pace."""
    return units >= FEWEST and hoped_s >= LEAST_S


def pace(build: Path) -> float:
    """What units took on this machine, in all its build trees, over what costs.toml says of them: 0.6 is a machine
    that needs 60 % of the seconds. 1 where too few were compiled.

    A build tree has its estimate (`commit`); what `specialise` keeps beside it does not: those units are PTX.

    :param build: folder of the build trees.
    """
    took = hoped = count = 0.0
    for estimate in build.glob(f"*/{NAME}"):
        for unit, cost in learned(estimate.with_name("units.jsonl")).items():
            took, hoped, count = took + cost.seconds, hoped + expected(unit).seconds, count + 1
    return min(max(took / hoped, 0.2), 5.0) if enough(count, hoped) else 1.0


def of_units(units: Iterable[str], history: dict[str, Cost], basis: str, pace: float = 1.0) -> Estimate:
    """The cost of units by `costs.unit_name`.

    :param history: what units took in this tree.
    :param pace: this machine's, for units that this tree has not compiled.
    """
    modules: dict[str, float] = {}
    costs = {
        unit: history[unit] if unit in history else Cost(expected(unit).seconds * pace, expected(unit).gib)
        for unit in units
    }
    if pace != 1:
        basis += f", at this machine's pace ({pace:.2f})"
    for unit, cost in costs.items():
        target = unit.partition("/")[0]
        modules[target] = modules.get(target, 0.0) + cost.seconds
    heaviest = max(costs, key=lambda unit: costs[unit].gib, default="")
    return Estimate(
        len(costs), sum(modules.values()), costs[heaviest].gib if heaviest else 0.0,
        {target: round(seconds) for target, seconds in sorted(modules.items())}, basis, heaviest, pace=round(pace, 3),
    )  # fmt: skip


def before(
    tag: str,
    version: str,
    arch_list: str,
    tree: Path | None = None,
    *,
    only: Iterable[str] = (),
    without: Iterable[str] = (),
) -> Estimate:
    """The cost of a tag's modules for a device before there is a configured tree.

    :param tree: build tree, for what it and those beside it measured before.
    :param only: targets to count, less ``without``; all where there are none.
    """
    found, whose = surveyed.likely(tag, version, arch_list)
    own = surveyed.units_of(*surveyed.nearest(tag, version, arch_list)) or {}
    asked = (set(only) or set(own)) - set(without)
    history = learned(tree / "units.jsonl") if tree else {}
    basis = f"the units of {whose}" if found else "nothing: no survey is here"
    basis += ", this tree's own figures" if history else ", costs.toml"
    made = of_units(
        (unit for target, units in found.items() if target in asked for unit in units),
        history, basis, pace(tree.parent) if tree else 1.0,
    )  # fmt: skip
    return replace(made, unknown=tuple(sorted(asked - set(found))))


def commit(tree: Path, made: Estimate, units: Iterable[str], wall_s: float) -> None:
    """Write down what is expected, unless it stands there for the same units: a build that goes on keeps the
    estimate that it began with.

    :param wall_s: seconds on this machine's cores.
    """
    names = sorted(units)
    seal = hashlib.sha256("\n".join(names).encode()).hexdigest()
    if read(tree).get("seal") == seal:
        return
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    write_atomic(
        tree / NAME,
        json.dumps({"at": now, "seal": seal, "wall_s": round(wall_s), **asdict(made)}, indent=1) + "\n",
    )


def settle(tree: Path, units: Iterable[str]) -> dict[str, object]:
    """Hold the estimate against what the units took in this tree, and write that beside it.

    Only units that were compiled here count: one out of the compiler cache says nothing.
    """
    names = set(units)
    took = {unit: cost for unit, cost in learned(tree / "units.jsonl").items() if unit in names}
    entry = read(tree)
    factor = entry.get("pace", 1.0)
    expected_s = sum(expected(unit).seconds for unit in took) * (factor if isinstance(factor, float) else 1.0)
    entry |= {
        "measured_units": len(took),
        "measured_cpu_s": round(sum(cost.seconds for cost in took.values())),
        "expected_of_measured_cpu_s": round(expected_s),
    }
    write_atomic(tree / NAME, json.dumps(entry, indent=1) + "\n")
    return entry


def read(tree: Path) -> dict[str, object]:
    """What stands in the tree; empty where nothing does."""
    try:
        entry = parse_json((tree / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entry if isinstance(entry, dict) else {}


def say_how_it_went(entry: Mapping[str, object]) -> str:
    """One line: estimate against measurement."""
    measured, hoped = float(str(entry["measured_cpu_s"])), float(str(entry["expected_of_measured_cpu_s"]))
    if not measured or not hoped:
        return "no unit was compiled here, so the estimate was not tried"
    return (
        f"{entry['measured_units']} of {entry.get('units', '?')} units compiled here took {measured / 60:.0f} CPU "
        f"minutes; {hoped / 60:.0f} had been expected ({100 * (hoped / measured - 1):+.0f} %)"
    )
