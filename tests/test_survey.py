"""The survey's documents: what one machine ran stands beside what others ran, without their folders."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages import configure as configuring
from build_recipes.build.survey import publish, walk
from build_recipes.build.survey.cells import Cell, keep, of_row, read
from build_recipes.build.survey.sampling import Sample
from build_recipes.build.units import costs, surveyed
from build_recipes.kit.errors import BadData
from build_recipes.kit.paths import Places

ASKED = [("v0.20.0", "thor"), ("v0.12.0", "thor")]


def test_a_published_cell_stays_until_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: surveyed.Table = {}
    monkeypatch.setattr(surveyed, "table", lambda: kept)
    monkeypatch.setattr(surveyed, "write", kept.update)
    first = Cell("v0.12.0", "thor", stage="done", units={"_C": ["a.cu.o", "b.cu.o"]})
    publish.publish([first], ASKED, tmp_path)
    log = "CMake stopped (whole log: /home/me/build/v0.20.0/logs/configure.log):\n-- Building x"
    publish.publish([Cell("v0.20.0", "thor", stage="configure", error=log, code=50)], ASKED, tmp_path)
    page = (tmp_path / "survey.md").read_text()
    each = costs.table().default.cpu_s / 60
    assert f"| v0.12.0 | 2 u, {2 * each:.0f} min |" in page
    assert "stops at configure (50): CMake stopped\n" in page
    assert [row["tag"] for row in json.loads((tmp_path / "survey.json").read_text())] == [
        "v0.12.0",
        "v0.20.0",
    ]
    assert "/home/me" not in page + (tmp_path / "survey.json").read_text()
    first.units = {"_C": ["a.cu.o"]}
    publish.publish([first], ASKED, tmp_path)
    page = (tmp_path / "survey.md").read_text()
    assert f"| v0.12.0 | 1 u, {each:.0f} min |" in page
    assert "stops [1]" in page


def test_a_cell_that_stops_names_what_it_stopped_over_and_where(tmp_path: Path) -> None:
    plan = make_plan(Request(tag="v0.33.0", device="gh200"), Places.from_environment())
    plan = replace(plan, tree=tmp_path)
    users = {name: ", ".join(plan.lock.tree(name).users) for name in ("cutlass", "flashkda")}
    cell = Cell("v0.33.0", "gh200", stage="configure", missing=users)
    log = tmp_path / "logs/configure.log"
    log.parent.mkdir()
    log.write_text(f"-- The VLLM_CUTLASS_SRC_DIR is set, using {tmp_path}/src/cutlass-left-out\n")
    assert walk.needed(plan, cell) == ["cutlass v4.7.1"], "not FlashKDA, which CMake never came to"
    log.write_text("-- no compiler\n")
    assert len(walk.needed(plan, cell)) == 2
    cell.stage, cell.modules = (
        "done",
        {"_flashkda_C": {"units": 0}, "_C_stable_libtorch": {"missing": "cutlass"}},
    )
    assert walk.needed(plan, cell) == ["cutlass v4.7.1"]


def test_cmakes_own_last_error_is_told_in_the_first_line(tmp_path: Path) -> None:
    lines = [
        "CMake Error at CMakeLists.txt:579 (message):",
        '  Machete generation failed.  Result: "1"',
        "",
        "  Check the log for details:",
        "",
        "-- Configuring incomplete, errors occurred!",
    ]
    assert configuring.where_stopped(lines) == (
        ' at CMakeLists.txt:579: Machete generation failed. Result: "1" Check the log for details:'
    )
    assert configuring.where_stopped(["Killed"]) == ""


def test_the_page_says_what_a_compiled_unit_took_and_what_did_not_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: surveyed.Table = {}
    monkeypatch.setattr(surveyed, "table", lambda: kept)
    monkeypatch.setattr(surveyed, "write", kept.update)
    good = Sample("_C/a.cu.o", ("sm_110f",), "v0.12.0 thor", True, 12.4, 1.94)
    bad = Sample("_C/a.cu.o", ("sm_87",), "v0.12.0 orin", False, 3.0, 0.5, "a.cu(3): error: no such thing")
    thor = Cell("v0.12.0", "thor", stage="done", units={"_C": ["a.cu.o"]}, compiled={"_C": good})
    same = dataclasses.replace(thor, tag="v0.20.0")
    orin = dataclasses.replace(thor, device="orin", compiled={"_C": bad})
    publish.publish([thor, same, orin], ASKED, tmp_path)
    page = (tmp_path / "survey.md").read_text()
    assert "| v0.12.0 | _C | 12 s, 1.9 GiB | fails [1] |" in page
    assert "| v0.20.0 | _C | = 12 s, 1.9 GiB | - |" in page
    assert "1. _C/a.cu.o does not compile: a.cu(3): error: no such thing" in page
    rows = json.loads((tmp_path / "survey.json").read_text())
    assert of_row(rows[0]).compiled == {"_C": good}
    publish.publish([], ASKED, tmp_path)
    assert (tmp_path / "survey.md").read_text() == page, "what another machine ran stays"
    (tmp_path / "survey.json").write_text("[{torn")
    with pytest.raises(BadData, match="its cells would be lost"):
        publish.publish([thor], ASKED, tmp_path)


def test_a_cell_is_tried_until_each_module_was(tmp_path: Path) -> None:
    cell = Cell("v0.12.0", "thor", stage="done")
    cell.modules = {
        "_C": {"units": 3},
        "triton_kernels": {"units": 0},
        "qutlass": {"units": 2, "missing": "cutlass"},
    }
    assert cell.untried == ["_C"]
    cell.compiled["_C"] = Sample("_C/a.cu.o", (), "", True, 1.0)
    assert cell.untried == []
    keep(cell, tmp_path / "a.json")
    assert read(tmp_path / "a.json") == cell
    row = {**json.loads((tmp_path / "a.json").read_text()), "compiled": {"_C": ""}, "new": 1}
    assert of_row(row).untried == ["_C"], "a row of an older version"


def test_a_time_box_that_is_over_begins_no_cell(places: Places) -> None:
    assert walk.walk(["v0.12.0"], ["thor"], walk.Survey(places, deadline=0.0)) == []
