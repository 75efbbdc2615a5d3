"""Compiles in control groups of this machine, by a real compiler; what plan, doctor and broker make of the memory."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from test_limits import GIB, NINJA, group, inside, limit

from build_recipes.build.units import drive, graph
from build_recipes.build.units.broker import RESERVE_GIB, Broker
from build_recipes.build.units.costs import add_line, expected, learned, read_journal
from build_recipes.build.units.progress import Progress
from build_recipes.kit.paths import PACKAGE

__all__ = ["group"]  # a fixture

NUMBERS = 600_000
"""Of an array's initial values: 130 MiB of g++ and a second."""


def project(folder: Path, units: dict[str, int]) -> None:
    """A ninja project of real C++ units; a unit's number says how many values g++ has to hold at once."""
    launcher = f"{sys.executable} -I -S {PACKAGE / 'build/units/unit.py'}"
    rules = [f"rule cc\n  command = {launcher} g++ -c $in -o $out\n"]
    for name, count in units.items():
        values = ",".join(str(number * 7919 % 100003) for number in range(count))
        (folder / f"{name}.cpp").write_text(f"int {name}[] = {{{values}}};\n")
        rules.append(f"build CMakeFiles/mod.dir/{name}.o: cc {name}.cpp\n")
    (folder / "build.ninja").write_text("\n".join(rules))


def compile_here(folder: Path) -> None:
    """What a build does with its units, with what this tree has learned; says how it ended."""
    names = [f"CMakeFiles/mod.dir/{path.stem}.o" for path in sorted(folder.glob("*.cpp"))]
    units, journal = graph.read_graph(folder, NINJA, names), folder / "units.jsonl"
    broker = Broker(folder / ".broker.sock", 2, journal, history=learned(journal))
    done = drive.drive(
        units, broker, Progress(names, {}), env=dict(os.environ), log=folder / "log", deadline=None
    )
    print(json.dumps([done.ok, done.oom, broker.machine.oom_kills()]))


def compiled(group: Path, folder: Path) -> list[Any]:
    """Whether all is there, whether the kernel ended something, and how often it did in this group."""
    words = "import sys; sys.path.insert(0, 'tests')\nfrom pathlib import Path\nimport test_small_memory\n"
    said = inside(group, words + f"test_small_memory.compile_here(Path({str(folder)!r}))")
    result: list[Any] = json.loads(said.splitlines()[-1])
    return result


@pytest.mark.parametrize(("gib", "together"), [(4, False), (8, True)])
def test_plan_doctor_and_broker_see_the_same_memory(
    group: Path, tmp_path: Path, gib: int, together: bool
) -> None:
    """Two units that are expected to take 2 GiB each: one after the other in 4 GiB, both at once in 8."""
    limit(group, gib * GIB)
    project(tmp_path, {"one": NUMBERS, "two": NUMBERS})
    for name in ("one", "two"):
        row = {"unit": f"mod/{name}.o", "code": 0, "cpu_s": 9.0, "rss_kib": 2 << 20}
        add_line(tmp_path / "units.jsonl", row)
    assert (gib >= 2 * 2 + RESERVE_GIB) == together
    assert compiled(group, tmp_path) == [True, False, 0]
    assert [row["alone"] for row in list(read_journal(tmp_path / "units.jsonl"))[2:]] == [not together] * 2

    words = (
        "import contextlib, runpy, sys; sys.argv[1:] = {}\n"
        "with contextlib.suppress(SystemExit):\n"  # a full disk stops the doctor, too; it is not asked for here
        "    runpy.run_module('build_recipes', run_name='__main__')"
    )
    asked = ["--tag", "v0.12.0", "--device", "thor", "--json"]
    plan = json.loads(inside(group, words.format(["plan", *asked])))
    findings = json.loads(inside(group, words.format(["doctor", *asked])))["findings"]
    (memory,) = (finding for finding in findings if finding["check"] == "memory")
    assert plan["host"]["memory_gib"] == gib
    assert memory["seen"].startswith(f"{gib}.0 GiB")
    assert memory["status"] == "warning", "no machine is sent away: the unit is tried alone"
    assert plan["estimate"]["short_of_memory"].startswith(memory["follows"])


def test_a_unit_that_does_not_fit_is_tried_once_a_command_and_forgotten_when_it_does(
    group: Path, tmp_path: Path
) -> None:
    """g++ says 1 when the kernel ends its compiler proper: only the kernel's count tells what happened."""
    limit(group, 128 << 20)
    project(tmp_path, {"large": 2 * NUMBERS})
    journal = tmp_path / "units.jsonl"
    for tries in (1, 2, 3):
        assert compiled(group, tmp_path) == [False, True, tries]
        *_, row = read_journal(journal)
        assert (row["code"], row["killed"], row["oom"], row["alone"]) == (1, False, True, True)
        assert learned(journal)["mod/large.o"].gib == pytest.approx(expected("mod/large.o").gib * 4 / 3)
    limit(group, GIB)
    assert compiled(group, tmp_path) == [True, False, 3]
    assert 0.128 < learned(journal)["mod/large.o"].gib < 1
