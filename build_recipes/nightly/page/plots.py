"""Where a plot's lines, bars and labels stand; plot.html draws them as inline SVG.

A plot is small enough to be read on a phone: a few lines, each named at its end, and labels of the axis that differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from build_recipes.kit.console import duration, size

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 34
LETTER, LONGEST = 7.4, 18
"""Width of a letter of a line's name, and how many are shown of it."""
LINE = 15
"""Height of a label, so that no two stand in each other."""
COLOURS = 6
"""Line styles of the style sheet: ``line-0`` to ``line-5``; more series take them again with another mark."""

Show = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line: a value for each column, None where there is none."""

    name: str
    values: Sequence[float | None]
    style: int = 0
    """Number of its line style."""


@dataclass(frozen=True)
class Line:
    """A drawn series; coordinates in units of the picture."""

    name: str
    path: str
    """Of an SVG path; empty for a single point."""
    points: list[tuple[float, float]]
    label: float
    """y of its name, right of the plot."""
    style: int


@dataclass(frozen=True)
class Bar:
    """A column of two parts: y and height of each, None where there is none."""

    x: float
    wide: float
    green: tuple[float, float] | None
    red: tuple[float, float] | None


@dataclass(frozen=True)
class Plot:
    """Everything the template needs to draw one plot."""

    name: str
    """Identifier, unique in the page."""
    title: str
    summary: str
    """What the plot says, in words."""
    rules: list[tuple[float, str]]
    """Grid lines: y and label."""
    columns: list[tuple[float, str]]
    """Labels below: x and text."""
    lines: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    foot: int = HEIGHT - BOTTOM + 20


def ticks(top: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least ``top``."""
    if top <= 0:
        return [0, 1]
    rough = top / count
    scale = 10 ** math.floor(math.log10(rough))
    step = next(nice * scale for nice in (1, 2, 2.5, 5, 10) if nice * scale >= rough * 0.999)
    return [step * n for n in range(math.ceil(top / step * 0.999) + 1)]


def axis(top: float, units: Sequence[tuple[float, str]]) -> tuple[list[float], list[str]]:
    """Marks of an axis and their labels, which all differ: one unit, and as many decimals as the step needs.

    :param units: from the smallest: how much one of it is, and its name.
    """
    one, unit = next(((one, unit) for one, unit in reversed(units) if top >= 2 * one), units[0])
    marks = ticks(top / one)
    decimals = next((n for n in range(12) if len({f"{mark:.{n}f}" for mark in marks}) == len(marks)), 12)
    while any(abs(float(f"{mark:.{decimals}f}") - mark) > marks[1] / 100 for mark in marks) and decimals < 12:
        decimals += 1
    return [mark * one for mark in marks], [f"{mark:.{decimals}f} {unit}" for mark in marks]


@dataclass(frozen=True)
class Scale:
    """How a value is written."""

    units: Sequence[tuple[float, str]]
    """Of an axis, see `axis`."""
    show: Show
    """One value as people read it."""


SECONDS = Scale(((1.0, "s"), (60.0, "min"), (3600.0, "h")), duration)
OCTETS = Scale(((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB")), size)


def lines(name: str, title: str, columns: Sequence[str], series: Sequence[Series], scale: Scale) -> Plot:
    """A line for each series; a gap where a value is missing."""
    known = [value for one in series for value in one.values if value is not None]
    marks, labels = axis(max(known, default=0), scale.units)
    summary = "; ".join(f"{one.name}: last {scale.show(_last(one))}" for one in series if _last(one))
    names = [one.name if len(one.name) <= LONGEST else f"{one.name[: LONGEST - 1]}\u2026" for one in series]
    right = WIDTH - RIGHT - round(max(map(len, names), default=0) * LETTER)
    ends: list[tuple[float, int]] = []
    drawn: list[tuple[str, list[tuple[float, float]]]] = []
    for number, one in enumerate(series):
        points = [
            (round(_x(column, len(columns), right), 1), _y(value, marks[-1]))
            for column, value in enumerate(one.values)
            if value is not None
        ]
        path = " ".join(f"{'L' if index else 'M'}{x} {y}" for index, (x, y) in enumerate(points))
        drawn.append((path if len(points) > 1 else "", points))
        if points:
            ends.append((points[-1][1], number))
    places = dict(
        zip((number for _, number in sorted(ends)), apart([y for y, _ in sorted(ends)]), strict=True)
    )
    return Plot(
        name, title, summary or "no values yet",
        [(_y(mark, marks[-1]), label) for mark, label in zip(marks, labels, strict=True)], _labels(columns, right),
        right=right,
        lines=[
            Line(names[number], path, points, places.get(number, 0.0), one.style)
            for number, (one, (path, points)) in enumerate(zip(series, drawn, strict=True))
        ],
    )  # fmt: skip


def apart(wanted: Sequence[float], least: float = LINE) -> list[float]:
    """Heights near the wanted ones (ascending) that are at least so far from each other, within the plot."""
    placed: list[float] = []
    for y in wanted:
        placed.append(max(y, placed[-1] + least) if placed else max(y, TOP))
    bottom = float(HEIGHT - 4)
    for number in reversed(range(len(placed))):
        placed[number] = min(placed[number], bottom)
        bottom = placed[number] - least
    return [round(y, 1) for y in placed]


def bars(name: str, title: str, nights: Sequence[tuple[str, int, int]]) -> Plot:
    """A column for each night: good below, bad (hatched) above."""
    most = max((green + red for _, green, red in nights), default=0)
    marks = [mark for mark in ticks(most) if mark == int(mark)] or [0, 1]
    if most > marks[-1]:
        marks.append(marks[-1] + 1)
    bad = sum(1 for _, _, red in nights if red)
    wide = round(min(28.0, (WIDTH - LEFT - RIGHT) / max(len(nights), 1) * 0.7), 1)
    drawn = []
    for number, (_, green, red) in enumerate(nights):
        zero, middle, top = (_y(value, marks[-1]) for value in (0, green, green + red))
        drawn.append(
            Bar(
                round(_x(number, len(nights)) - wide / 2, 1),
                wide,
                (middle, round(zero - middle, 1)) if green else None,
                (top, round(middle - top, 1)) if red else None,
            )
        )
    return Plot(
        name,
        title,
        f"{bad} of {len(nights)} nights had a red job",
        [(_y(mark, marks[-1]), str(int(mark))) for mark in marks],
        _labels([night for night, _, _ in nights]),
        bars=drawn,
    )


def _x(column: int, columns: int, right: int = WIDTH - RIGHT) -> float:
    return LEFT + (right - LEFT) * (column + 0.5) / max(columns, 1)


def _y(value: float, top: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top), 1)


def _labels(columns: Sequence[str], right: int = WIDTH - RIGHT, most: int = 3) -> list[tuple[float, str]]:
    """A few columns' labels, the first and the last among them: month and day of a date."""
    count = min(most, len(columns))
    chosen = sorted({round(n * (len(columns) - 1) / max(count - 1, 1)) for n in range(count)})
    return [
        (round(_x(number, len(columns), right), 1), columns[number].removeprefix("20")[3:])
        for number in chosen
    ]


def _last(one: Series) -> float:
    return next((value for value in reversed(one.values) if value is not None), 0.0)
