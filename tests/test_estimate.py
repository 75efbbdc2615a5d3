"""What a build is expected to take: from the units of the tag, written before it starts, held against what it took."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from build_recipes.build.units import estimate, surveyed
from build_recipes.build.units.costs import add_line, expected
from build_recipes.build.units.costs import table as cost_table
from build_recipes.facts import device as devices

MLA, BINDINGS = "_C/csrc/attention/mla/sm100_cutlass_mla_kernel.cu.o", "_C/csrc/torch_bindings.cpp.o"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> surveyed.Table:
    rows: surveyed.Table = {
        "v0.12.0": {"11.0": {"_C": [MLA[3:], BINDINGS[3:]], "_flashmla_C": []}},
        "v0.20.0": {"11.0": {"_C": [MLA[3:]], "_fa": None}, "9.0": {"_C": [BINDINGS[3:]]}},
    }
    monkeypatch.setattr(surveyed, "table", lambda: rows)
    return rows


def test_a_tag_costs_what_its_own_units_cost(table: surveyed.Table, tmp_path: Path) -> None:
    tree = tmp_path / "build/tree"  # beside no other tree, whose units would tell this machine's pace
    made = estimate.before("v0.12.0", "0.12.0", "11.0", tree)
    assert made.units == 2
    assert made.cpu_s == expected(MLA).seconds + expected(BINDINGS).seconds
    assert made.gib == expected(MLA).gib
    assert estimate.before("v0.20.0", "0.20.0", "11.0", tree).unknown == ("_fa",)
    assert estimate.before("v0.12.0", "0.12.0", "11.0", tree, without=["_C"]).units == 0


def test_a_tag_that_was_not_surveyed_takes_the_next_older(table: surveyed.Table, tmp_path: Path) -> None:
    for version, tag in (("0.33.0", "v0.20.0"), ("0.14.0", "v0.12.0"), ("0.11.1", "v0.12.0")):
        assert estimate.before(f"v{version}", version, "11.0", tmp_path).basis.startswith(
            f"the units of {tag}"
        )
    assert estimate.before("v0.33.0", "0.33.0", "8.7", tmp_path).units > 0, "an architecture nobody surveyed"


def test_the_estimate_stands_before_the_build_and_is_held_against_it(tmp_path: Path) -> None:
    units = [MLA, BINDINGS]
    hoped = estimate.of_units(units, {}, "test")
    estimate.commit(tmp_path, hoped, units, 60)
    first = json.loads((tmp_path / estimate.NAME).read_text())
    assert first["cpu_s"] == hoped.cpu_s
    assert first["at"].endswith("+00:00")
    row = {"code": 0, "rss_kib": 1 << 20, "cached": False}
    add_line(tmp_path / "units.jsonl", {"unit": MLA, "cpu_s": 2 * expected(MLA).seconds, **row})
    add_line(tmp_path / "units.jsonl", {"unit": BINDINGS, "cpu_s": 0.1, **row, "cached": True})
    estimate.commit(tmp_path, estimate.of_units(units, {}, "later"), units, 60)
    assert json.loads((tmp_path / estimate.NAME).read_text()) == first, (
        "a build that goes on keeps its estimate"
    )
    entry = estimate.settle(tmp_path, units)
    assert entry["measured_units"] == 1, "one out of the compiler cache says nothing"
    assert "(-50 %)" in estimate.say_how_it_went(entry)


def test_a_machine_has_its_own_pace_once_it_has_compiled_enough(
    table: surveyed.Table, tmp_path: Path
) -> None:
    plain = estimate.before("v0.12.0", "0.12.0", "11.0", tmp_path / "new").cpu_s
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / estimate.NAME).write_text("{}")
    (tmp_path / "specialise-1").mkdir()  # its units are PTX for ptxas: no evidence for a compiler
    many = max(estimate.FEWEST, math.ceil(estimate.LEAST_S / expected("_C/csrc/x0.cu.o").seconds))
    for number in range(many):
        assert estimate.pace(tmp_path) == 1.0
        unit = f"_C/csrc/x{number}.cu.o"
        row = {"code": 0, "rss_kib": 1 << 20, "cached": False, "cpu_s": expected(unit).seconds / 2}
        add_line(tmp_path / "old/units.jsonl", {"unit": unit, **row})
        add_line(tmp_path / "specialise-1/units.jsonl", {"unit": unit, **row, "cpu_s": row["cpu_s"] / 3})
    assert estimate.pace(tmp_path) == pytest.approx(0.5)
    made = estimate.before("v0.12.0", "0.12.0", "11.0", tmp_path / "new")
    assert made.cpu_s == pytest.approx(plain / 2)
    assert "pace (0.50)" in made.basis


def test_the_table_that_is_shipped_can_be_read() -> None:
    found = surveyed.table()
    assert found
    for tag in found:
        for arch in found[tag]:
            units = surveyed.units_of(tag, arch) or {}
            assert all(
                name.startswith(f"{target}/") for target, names in units.items() for name in names or ()
            )
    arches = {entry.arch_list for entry in devices.devices().values()}
    assert {arch for row in found.values() for arch in row} <= arches


EVIDENCE = Path(__file__).resolve().parent.parent / "docs/evidence"


@pytest.mark.parametrize("build", cost_table().measured)
def test_each_recorded_build_took_what_is_estimated(build: str) -> None:
    """The table is fitted to these journals: this holds that it still describes them, not that it foretells others."""
    rows = [json.loads(line) for line in (EVIDENCE / build / "units.jsonl").read_text().splitlines()]
    assert len(rows) >= 150
    hoped = estimate.of_units([row["unit"] for row in rows], {}, "", cost_table().measured[build].pace)
    assert hoped.cpu_s == pytest.approx(sum(row["cpu_s"] for row in rows), rel=0.25)
    for row in rows:
        assert expected(row["unit"]).gib >= row["rss_kib"] / 2**20 - 0.05, row["unit"]


def test_every_journal_of_the_evidence_is_in_the_fit() -> None:
    assert {path.parent.name for path in EVIDENCE.glob("*/units.jsonl")} == set(cost_table().measured)
