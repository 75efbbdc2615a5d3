"""Fit the figures of costs.toml to the units that were really compiled: ``python benchmarks/fit_costs.py [--write]``.

The patterns of costs.toml are kept; their figures come from the journals that ``docs/evidence`` holds. CPU seconds of
the same unit differ between machines, so each machine has a pace: 1 is the first one's. Rates and paces are found in
turns: a rule's rate is the mean of its units' seconds at pace 1, a machine's pace is what its units took over what the
rates say. A rule that no journal has a unit of keeps its figures.

Printed: each build by the fitted table; and by a table fitted without that build, at the pace that its first units
show (`estimate.enough`), which is what `./inv build` knew on a machine that is new to it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from build_recipes.build.units import costs, estimate
from build_recipes.build.units.costs import Cost
from build_recipes.kit.data import write_atomic

PROJECT = Path(__file__).resolve().parent.parent
TABLE = PROJECT / "build_recipes/build/units/costs.toml"
TURNS = 50
SPARE = 1.02
"""Memory over the largest that was measured: two builds of one unit differ by as much."""

Units = Mapping[str, Cost]
"""What the units of a build took, in the order in which they ended."""


def measured(journal: Path) -> dict[str, Cost]:
    """The units of a journal that were compiled and not found in a cache."""
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    rows = [row for row in rows if not row.get("cached") and not row.get("code")]
    rows.sort(key=lambda row: row.get("ended", row.get("at_s", 0) + row["wall_s"]))
    return {row["unit"]: Cost(row["cpu_s"], row["rss_kib"] / 2**20) for row in rows}


def rates(
    builds: Mapping[str, Units], machines: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """CPU seconds of a unit by rule, and the pace of each machine; the first machine's is 1.

    :param builds: name to units.
    :param machines: name of a build to the machine that compiled it.
    """
    paces = {machines[name]: 1.0 for name in builds}
    rate: dict[str, float] = {}
    for _ in range(TURNS):
        seen: dict[str, list[float]] = defaultdict(list)
        for name, units in builds.items():
            for unit, cost in units.items():
                seen[costs.rule_of(unit).pattern].append(cost.seconds / paces[machines[name]])
        rate = {rule: sum(all_) / len(all_) for rule, all_ in seen.items()}
        for machine in list(paces)[1:]:
            own = [units for name, units in builds.items() if machines[name] == machine]
            took = sum(cost.seconds for units in own for cost in units.values())
            paces[machine] = took / sum(rate[costs.rule_of(unit).pattern] for units in own for unit in units)
    return rate, paces


def text_of(
    old: str, builds: Mapping[str, Units], machines: Mapping[str, str], rate: Mapping[str, float],
    paces: Mapping[str, float],
) -> str:  # fmt: skip
    """costs.toml with new figures."""
    at_one: dict[str, dict[str, list[Cost]]] = defaultdict(lambda: defaultdict(list))
    for name, units in builds.items():
        for unit, cost in units.items():
            pace = paces[machines[name]]
            at_one[costs.rule_of(unit).pattern][name].append(Cost(cost.seconds / pace, cost.gib))

    def figures(rule: str) -> tuple[str, str, str]:
        every = [cost for found in at_one[rule].values() for cost in found]
        low, high = min(cost.seconds for cost in every), max(cost.seconds for cost in every)
        of = ", ".join(f"{len(found)} of {name}" for name, found in at_one[rule].items())
        gib = math.ceil(10 * SPARE * max(cost.gib for cost in every)) / 10
        return str(max(1, round(rate[rule]))), f"{gib:.1f}", f"fitted: {of}; {low:.0f} to {high:.0f} s"

    def renew(match: re.Match[str]) -> str:
        rule = match.group(2) or "default"
        if rule not in rate:
            return match.group(0)
        seconds, gib, source = figures(rule)
        return f'{match.group(1)}cpu_s = {seconds}\ngib = {gib}\nsource = "{source}"\n'

    return re.sub(r'(\[default\]\n|pattern = "(.*)"\n)cpu_s = .*\ngib = .*\nsource = ".*"\n', renew, old)


def expected(units: Units, rate: Mapping[str, float]) -> float:
    """CPU seconds of units by rates at pace 1; a rule without a rate is as the table has it."""
    return sum(rate.get(costs.rule_of(unit).pattern, costs.expected(unit).seconds) for unit in units)


def main() -> None:
    builds = {
        name: measured(PROJECT / "docs/evidence" / name / "units.jsonl") for name in costs.table().measured
    }
    machines = {name: entry.machine for name, entry in costs.table().measured.items()}
    rate, paces = rates(builds, machines)
    print("pace:", ", ".join(f"{machine}: {pace:.2f}" for machine, pace in paces.items()))
    print(
        "\n| build | units | measured, CPU min | fitted | | fitted without it | |\n|---|---|---|---|---|---|---|"
    )
    for name, units in builds.items():
        took = sum(cost.seconds for cost in units.values())
        with_it = expected(units, rate) * paces[machines[name]]
        others, _ = rates({other: builds[other] for other in builds if other != name}, machines)
        first: dict[str, Cost] = {}
        for unit, cost in units.items():
            if estimate.enough(len(first), expected(first, others)):
                break
            first[unit] = cost
        own = sum(cost.seconds for cost in first.values()) / expected(first, others)
        without = expected(units, others) * own
        print(
            f"| {name} | {len(units)} | {took / 60:.0f} | {with_it / 60:.0f} | {100 * (with_it / took - 1):+.0f} % "
            f"| {without / 60:.0f} | {100 * (without / took - 1):+.0f} % |"
        )
    if "--write" in sys.argv[1:]:
        text = text_of(TABLE.read_text(), builds, machines, rate, paces)
        for machine, pace in paces.items():
            text = re.sub(rf'(machine = "{re.escape(machine)}", pace = )[\d.]+', rf"\g<1>{pace:.2f}", text)
        write_atomic(TABLE, text)


if __name__ == "__main__":
    main()
