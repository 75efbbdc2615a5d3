"""The survey's documents: what one machine ran stands beside what others ran, without their folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from build_recipes.build import survey
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages import configure as configuring
from build_recipes.build.units import costs, surveyed
from build_recipes.kit.paths import Places

ASKED = [("v0.20.0", "thor"), ("v0.12.0", "thor")]


def test_a_published_cell_stays_until_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: surveyed.Table = {}
    monkeypatch.setattr(surveyed, "table", lambda: kept)
    monkeypatch.setattr(surveyed, "write", kept.update)
    first = survey.Cell("v0.12.0", "thor", stage="done", units={"_C": ["a.cu.o", "b.cu.o"]})
    survey.publish([first], ASKED, tmp_path)
    log = "CMake stopped (whole log: /home/me/build/v0.20.0/logs/configure.log):\n-- Building x"
    survey.publish([survey.Cell("v0.20.0", "thor", stage="configure", error=log, code=50)], ASKED, tmp_path)
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
    survey.publish([first], ASKED, tmp_path)
    page = (tmp_path / "survey.md").read_text()
    assert f"| v0.12.0 | 1 u, {each:.0f} min |" in page
    assert "stops [1]" in page


def test_a_cell_that_stops_names_what_it_stopped_over_and_where(tmp_path: Path) -> None:
    plan = make_plan(Request(tag="v0.33.0", device="gh200"), Places.from_environment())
    plan = replace(plan, tree=tmp_path)
    users = {name: ", ".join(plan.lock.tree(name).users) for name in ("cutlass", "flashkda")}
    cell = survey.Cell("v0.33.0", "gh200", stage="configure", missing=users)
    log = tmp_path / "logs/configure.log"
    log.parent.mkdir()
    log.write_text(f"-- The VLLM_CUTLASS_SRC_DIR is set, using {tmp_path}/src/cutlass-left-out\n")
    assert survey.needed(plan, cell) == ["cutlass v4.7.1"], "not FlashKDA, which CMake never came to"
    log.write_text("-- no compiler\n")
    assert len(survey.needed(plan, cell)) == 2
    cell.stage, cell.modules = (
        "done",
        {"_flashkda_C": {"units": 0}, "_C_stable_libtorch": {"missing": "cutlass"}},
    )
    assert survey.needed(plan, cell) == ["cutlass v4.7.1"]


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
