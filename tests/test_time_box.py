"""A time box wastes little: simulated on the recorded costs of real builds, and on a real small one."""

from __future__ import annotations

import heapq
import time
from pathlib import Path
from typing import Any

import pytest
from test_compiling import Project

from build_recipes.build.units import box as boxes
from build_recipes.build.units.box import Box, grace_of
from build_recipes.build.units.costs import Cost, expected, read_journal
from build_recipes.kit.errors import UsageError
from build_recipes.kit.paths import PROJECT


def simulate(
    units: dict[str, float], known: dict[str, Cost], cores: int, box_s: float, *, careful: bool
) -> tuple[float, float, int]:
    """Build units in boxes, the longest first; core seconds used, core seconds lost, boxes.

    :param units: unit to the wall seconds that it really takes.
    :param known: what is expected of it.
    :param careful: the rule of the project; else a unit starts while the clock runs, and the box ends sharp.
    """
    left = sorted(units, key=lambda unit: -known[unit].seconds)
    used = lost = 0.0
    rounds = 0
    ratios: list[float] = []
    while left and rounds < 500:
        rounds += 1
        box = Box(box_s, grace_of(box_s), ratios)
        now, waiting = 0.0, list(left)
        running: list[Any] = []
        while True:
            for unit in list(waiting):
                if len(running) == cores:
                    break
                if now < box_s and (not careful or box.fits(now, known[unit].seconds)):
                    waiting.remove(unit)
                    heapq.heappush(running, (now + units[unit], now, unit))
            if not running:
                break
            ends, began, unit = running[0]
            limit = box_s + box.grace if careful and box.nearly(box_s, began, known[unit].seconds) else box_s
            if ends > limit:
                heapq.heappop(running)
                stopped = max(box_s, began)
                used, lost = used + stopped - began, lost + stopped - began
                now = max(now, stopped)
                continue
            heapq.heappop(running)
            now, used = ends, used + ends - began
            box.learn(known[unit].seconds, ends - began)
            left.remove(unit)
    return used, lost, rounds


def recorded(build: str) -> dict[str, float]:
    rows = read_journal(PROJECT / "docs/evidence" / build / "units.jsonl")
    return {row["unit"]: row["wall_s"] for row in rows if row["code"] == 0 and not row["cached"]}


@pytest.mark.parametrize(
    ("build", "cores"), [("thor-v0.12.0", 2), ("h200-v0.12.0", 64), ("h200-v0.12.0/2026-11-20", 64)]
)
@pytest.mark.parametrize("minutes", [6, 9, 15, 30])
def test_on_recorded_costs_a_box_loses_next_to_nothing(build: str, cores: int, minutes: int) -> None:
    units = recorded(build)
    assert len(units) > 100
    known = {unit: expected(unit) for unit in units}
    box_s = minutes * 60.0
    if max(units.values()) > box_s:
        pytest.skip("a unit is longer than the box")
    used, lost, rounds = simulate(units, known, cores, box_s, careful=True)
    before, lost_before, rounds_before = simulate(units, known, cores, box_s, careful=False)
    print(
        f"{build} {minutes} min: lost {lost / used:.1%} in {rounds} boxes, "
        f"before {lost_before / before:.1%} in {rounds_before}"
    )
    assert rounds < 500 and lost / used <= 0.03
    assert lost <= lost_before


def test_a_box_shorter_than_the_longest_unit_is_refused_with_the_number() -> None:
    history = {"_C/long.cu.o": Cost(500.0, 1.0), "_C/short.cu.o": Cost(5.0, 1.0)}
    with pytest.raises(UsageError, match=r"long\.cu\.o takes about 8 min 20 s") as caught:
        boxes.check(360, list(history), history)
    assert caught.value.advice == "--time-box 11m or more"
    boxes.check(360, ["_C/short.cu.o"], history)
    boxes.check(0, list(history), history)
    boxes.check(360, [], {})


def test_what_is_worth_waiting_for_is_reckoned_with_what_units_really_took() -> None:
    box = Box(100.0, 20.0)
    assert box.fits(50.0, 50.0) and not box.fits(51.0, 50.0)
    assert box.nearly(100.0, 50.0, 65.0), "15 s are left, the grace is 20"
    assert not box.nearly(100.0, 50.0, 75.0)
    for _ in range(5):
        box.learn(10.0, 20.0)
    assert not box.fits(50.0, 50.0) and box.fits(50.0, 25.0)
    assert not box.nearly(100.0, 50.0, 65.0)
    assert not box.nearly(1000.0, 500.0, 1.0), (
        "of a unit that outlasts all that was expected nothing is known"
    )


def test_at_the_end_of_a_real_box_what_ends_in_the_grace_is_kept(tmp_path: Path) -> None:
    project = Project(tmp_path, {"near": "int a;\n", "far": "int b;\n"})
    text = (tmp_path / "build.ninja").read_text()
    slow = "sh -c 'case $$0 in *near*) sleep 6;; *) sleep 60;; esac; exec g++ \"$$@\" $$0' $in "
    (tmp_path / "build.ninja").write_text(
        text.replace(" g++ -fPIC -O2", f" {slow}-fPIC -O2").replace("-c $in", "-c")
    )
    history = {"mod/near.cpp.o": Cost(2, 0.1), "mod/far.cpp.o": Cost(2, 0.1)}
    began = time.monotonic()
    outcome = project.run(history=history, deadline=began + 5, grace=5)
    assert time.monotonic() - began < 17
    assert outcome.timed_out and outcome.finished == 1
    assert [row["unit"] for row in read_journal(project.journal) if row["code"] == 0] == ["mod/near.cpp.o"]
    assert list(outcome.lost) == ["mod/far.cpp.o"]
    assert "1 were ended unfinished" in boxes.cost_of(outcome.lost)
