"""The pages: what there is now, the history, the failures, and a page for each month of nights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from build_recipes.kit.pages import page
from build_recipes.nightly.page import plots, verdict
from build_recipes.nightly.page.rows import Drawing, Group, Row, minute, safe
from build_recipes.nightly.page.survey import Survey
from build_recipes.nightly.page.view import Run, View

PACKAGE = "build_recipes.nightly.page"
SHOWN_FAILURES = 40
SHOWN_NIGHTS = 60


@dataclass(frozen=True)
class Figure:
    """A plot with its numbers as a table."""

    name: str
    title: str
    plot: plots.Plot
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Month:
    """A month of nights."""

    name: str
    """``2026-03``, which is its page's name, too."""
    nights: list[Day]
    good: int
    bad: int


@dataclass(frozen=True)
class Day:
    """One night, all its jobs."""

    day: str
    rows: list[tuple[str, str, str, str, str, str]]
    """Device, tag, style, word, reason and address of the workflow's run."""
    words: str


def index(title: str, shown: View, how: Drawing, survey: Survey, found: list[Group]) -> str:
    """What there is now."""
    rows = [row for group in found for row in group.rows]
    return page(
        PACKAGE,
        "index.html",
        title=title,
        updated=shown.updated,
        drawn=how.now.strftime("%Y-%m-%d %H:%M"),
        summary=summary(rows),
        groups=found,
        stale_days=how.stale_days,
        figures=figures(shown, found),
        nights=nights(shown),
        failures=shown.failures[:SHOWN_FAILURES],
        older=len(shown.failures) - SHOWN_FAILURES,
        newest={cell.run.id for cell in shown.cells.values() if cell.run},
        months=months(shown),
        survey=survey,
        minute=minute,
        safe=safe,
        colours=plots.COLOURS,
    )


def month(title: str, one: Month, others: Sequence[Month]) -> str:
    """A month of nights."""
    return page(PACKAGE, "month.html", title=title, month=one, others=others, colours=plots.COLOURS)


def summary(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """Style, word and number of what the lines come to."""
    count: dict[tuple[str, str], int] = {}
    for row in rows:
        word = "failed" if row.shown.word.startswith("failed") else row.shown.word
        count[row.shown.style, word] = count.get((row.shown.style, word), 0) + 1
    order = ("good", "bad", "wait", "plain")
    found = sorted(count.items(), key=lambda item: (order.index(item[0][0]), -item[1]))
    return [(style, word, number) for (style, word), number in found]


# -- history -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number of a run."""

    name: str
    value: Callable[[Run], float | None]
    scale: plots.Scale


MEASURES = (
    Measure("build time", lambda run: run.build_s, plots.SECONDS),
    Measure("wheel size", lambda run: run.wheel.get("size"), plots.OCTETS),
)


def figures(shown: View, found: Sequence[Group]) -> list[Figure]:
    """For each device that ever built something: build time and wheel size, a line for each tag."""
    drawn = [_by_night(shown, group.device, measure) for group in found for measure in MEASURES]
    return [figure for figure in drawn if figure]


def _by_night(shown: View, device: str, measure: Measure) -> Figure | None:
    """A line for each tag that ever had a value, a column for each night; None where none had. A tag has one colour
    in all plots."""
    runs = [run for run in shown.finished if run.device == device]
    days = list(dict.fromkeys(run.night for run in runs))[-SHOWN_NIGHTS:]
    points: dict[str, dict[str, float]] = {}
    for run in runs:
        got = measure.value(run)
        if got and run.night in days:
            points.setdefault(run.label, {})[run.night] = float(got)
    if not points:
        return None
    series = [
        plots.Series(label, [points[label].get(day) for day in days], number)
        for number, label in enumerate(shown.labels)
        if label in points
    ]
    title = f"{device}: {measure.name}"
    identifier = "".join(c if c.isalnum() else "-" for c in title)
    rows = [
        [day, *("none" if (one := line.values[at]) is None else measure.scale.show(one) for line in series)]
        for at, day in enumerate(days)
    ]
    return Figure(
        identifier,
        title,
        plots.lines(f"{identifier}-plot", title, days, series, measure.scale),
        ["night", *(one.name for one in series)],
        rows,
    )


def nights(shown: View) -> Figure | None:
    """A column for each night: jobs that came to something good, and those that did not."""
    counts = []
    for day in shown.days[-SHOWN_NIGHTS:]:
        styles = [style for _, _, style, _, _, _ in day_of(shown, day).rows]
        counts.append((day, styles.count("good") + styles.count("plain"), styles.count("bad")))
    if not counts:
        return None
    return Figure(
        "nights",
        "Jobs by night",
        plots.bars("nights-plot", "Good jobs, and failed or unusable ones, by night", counts),
        ["night", "good", "failed or not usable"],
        [[day, str(good), str(bad)] for day, good, bad in counts],
    )


def months(shown: View) -> list[Month]:
    """All nights by month, the newest first."""
    found: dict[str, list[Day]] = {}
    for day in reversed(shown.days):
        found.setdefault(day[:7], []).append(day_of(shown, day))
    return [
        Month(
            name,
            days,
            sum(style == "good" for day in days for _, _, style, _, _, _ in day.rows),
            sum(style == "bad" for day in days for _, _, style, _, _, _ in day.rows),
        )
        for name, days in found.items()
    ]


def day_of(shown: View, day: str) -> Day:
    """One night: every job that ran, and how many did not."""
    rows = []
    skipped = 0
    for (label, device), cell in sorted(shown.cells.items(), key=lambda item: (item[0][1], item[0][0])):
        night = cell.nights.get(day)
        if night is None:
            continue
        if night.run is None:
            skipped += 1
            continue
        run = night.run
        if night.state in ("green", "red"):
            word = verdict.verdict(run)
            rows.append((device, label, word.style, word.word, run.reason, safe(run.url)))
        else:
            rows.append((device, label, "wait", night.state, "", safe(run.url)))
    words = f"{len(rows)} jobs ran" + (f", {skipped} skipped" if skipped else "")
    return Day(day, rows, words)
