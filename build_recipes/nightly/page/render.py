"""The page itself: a grid, plots and failures, each with a text that says the same. pages/page.html draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from build_recipes.kit.console import duration, size
from build_recipes.kit.pages import page
from build_recipes.nightly.page import plots
from build_recipes.nightly.page.view import Run, View

SHOWN_FAILURES = 40
SHOWN_COLUMNS = 60
MARKS = {
    "green": "\N{CHECK MARK} green",
    "red": "\N{BALLOT X} red",
    "checkpointed": "\N{RIGHTWARDS ARROW} goes on next night",
    "interrupted": "! interrupted",
    "running": "\N{HORIZONTAL ELLIPSIS} running",
}


@dataclass(frozen=True)
class Figure:
    """A plot with its numbers as a table."""

    name: str
    title: str
    plot: plots.Plot | None
    """None where there is no value yet."""
    head: list[str]
    rows: list[list[str]]
    legend: list[str]
    words: str = ""


def render(title: str, shown: View, wheels_url: str = "") -> str:
    """The whole document.

    :param wheels_url: where wheels are downloaded from; without it their names are no links.
    """
    return page(
        "build_recipes.nightly.page",
        "page.html",
        title=title,
        shown=shown,
        updated=shown.updated or "never",
        summary=_summary(shown),
        wheels_url=wheels_url.rstrip("/"),
        history=_history(shown),
        failures=shown.failures[:SHOWN_FAILURES],
        older=len(shown.failures) - SHOWN_FAILURES,
        newest={cell.run.id for cell in shown.cells.values() if cell.run},
        marks=MARKS,
        colours=plots.COLOURS,
        details=_details,
        minute=_minute,
        size=lambda value: size(float(value)),
    )


def _summary(shown: View) -> str:
    states = [cell.run.state for cell in shown.cells.values() if cell.run]
    words = [f"{states.count(state)} {state}" for state in ("green", "red", "checkpointed", "interrupted")]
    words = [word for word in words if not word.startswith("0 ")]
    running = sum(1 for cell in shown.cells.values() if cell.running)
    if running:
        words.append(f"{running} running")
    return f"{', '.join(words) or 'nothing has been built yet'}."


# -- the grid ------------------------------------------------------------------------------------


def _details(run: Run) -> list[tuple[str, str]]:
    """What a cell says below its state, but for the wheel."""
    rows: list[tuple[str, str]] = []
    if run.build_s:
        facts = run.steps["build"].get("facts") or {}
        cached = (
            f" ({facts['cached']} of {facts.get('units', '?')} units cached)" if facts.get("cached") else ""
        )
        rows.append(("build", "up to date" if facts.get("up_to_date") else duration(run.build_s) + cached))
    for name, data in run.steps.items():
        word = _word(name, data)
        if word and name != "build":
            rows.append((name, word))
    rows.append(("when", _minute(run.ended or run.started)))
    if run.attempts > 1:
        rows.append(("nights", str(run.attempts)))
    return rows


def _minute(when: str) -> str:
    """``2026-11-20 03:14`` of a time stamp."""
    return when[:16].replace("T", " ")


def _word(name: str, data: dict[str, Any]) -> str:
    """The result of a step in a few words; empty where it is not worth a line."""
    facts = data.get("facts") or {}
    if name.startswith("omni") and facts:
        many = (
            f"{facts['breaks']} breaks"
            if facts.get("breaks")
            else str(facts.get("verdict", "")).replace("-", " ")
        )
        return f"{facts.get('omni')}: {many}"
    if name == "audit" and facts.get("devices"):
        return ", ".join(_judged(device, entry) for device, entry in facts["devices"].items())
    if name == "qualify" and facts.get("tiers"):
        return ", ".join(f"{tier} {state}" for tier, state in facts["tiers"].items())
    state = str(data.get("state", ""))
    return "" if state in ("passed", "not run") else state


def _judged(device: str, entry: dict[str, Any]) -> str:
    reasons = entry.get("reasons") or []
    return f"{device}: {entry.get('verdict')}" + (f" ({reasons[0]})" if reasons else "")


# -- history -------------------------------------------------------------------------------------


def _history(shown: View) -> list[Figure]:
    if not shown.finished:
        return []
    return [
        _by_night("build-time", "Build time", shown, lambda run: run.build_s / 60 or None, _minutes),
        _by_night("wheel-size", "Wheel size", shown, lambda run: run.wheel.get("size"), size),
        _nights(shown),
    ]


def _minutes(value: float) -> str:
    return f"{value:.0f} min" if value >= 10 or value == int(value) else f"{value:.1f} min"


def _by_night(
    name: str, title: str, shown: View, value: Callable[[Run], float | None], show: plots.Show
) -> Figure:
    """A line for each job that ever had a value, a column for each night."""
    nights = list(dict.fromkeys(run.night for run in shown.finished))[-SHOWN_COLUMNS:]
    points: dict[str, dict[str, float]] = {}
    for run in shown.finished:
        found = value(run)
        if found is not None and run.night in nights:
            points.setdefault(run.job, {})[run.night] = float(found)
    series = [
        plots.Series(job, [known.get(night) for night in nights]) for job, known in sorted(points.items())
    ]
    drawn = plots.lines(f"{name}-plot", f"{title} of each job by night", nights, series, show)
    rows = [
        [night, *("none" if (one := line.values[at]) is None else show(one) for line in series)]
        for at, night in enumerate(nights)
    ]
    names = [one.name for one in series]
    return Figure(name, title, drawn if series else None, ["night", *names], rows, names)


def _nights(shown: View) -> Figure:
    nights = shown.nights[-SHOWN_COLUMNS:]
    return Figure(
        "failing",
        "Failing nights",
        plots.bars("failing-plot", "Green and red jobs by night", nights),
        ["night", "green", "red"],
        [[night, str(green), str(red)] for night, green, red in nights],
        [],
        "Hatched: red jobs; plain: green ones.",
    )
