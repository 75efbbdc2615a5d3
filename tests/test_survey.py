"""The survey's documents: what one machine ran stands beside what others ran, without their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from build_recipes.build import survey
from build_recipes.build.compiling import surveyed

ASKED = [("v0.20.0", "thor"), ("v0.12.0", "thor")]


def test_a_published_cell_stays_until_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: surveyed.Table = {}
    monkeypatch.setattr(surveyed, "table", lambda: kept)
    monkeypatch.setattr(surveyed, "write", kept.update)
    first = survey.Cell("v0.12.0", "thor", stage="done", units={"_C": ["a.cu.o", "b.cu.o"]}, cpu_s=600)
    survey.publish([first], ASKED, tmp_path)
    log = "CMake stopped (whole log: /home/me/build/v0.20.0/logs/configure.log):\n-- Building x"
    survey.publish([survey.Cell("v0.20.0", "thor", stage="configure", error=log, code=50)], ASKED, tmp_path)
    page = (tmp_path / "survey.md").read_text()
    assert "| v0.12.0 | 2 u, 10 min |" in page
    assert "stops at configure (50): CMake stopped\n" in page
    assert [row["tag"] for row in json.loads((tmp_path / "survey.json").read_text())] == [
        "v0.12.0",
        "v0.20.0",
    ]
    assert "/home/me" not in page + (tmp_path / "survey.json").read_text()
    first.units = {"_C": ["a.cu.o"]}
    survey.publish([first], ASKED, tmp_path)
    page = (tmp_path / "survey.md").read_text()
    assert "| v0.12.0 | 1 u, 10 min |" in page
    assert "stops [1]" in page
