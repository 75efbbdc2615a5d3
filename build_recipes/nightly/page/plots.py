"""Where a plot's lines, bars and labels stand; the page's template draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 16, 44
COLOURS = 6
"""Line styles of the style sheet: ``line-0`` to ``line-5``; more series take them again with another mark."""

Show = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line: a value for each column, None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """A drawn series; coordinates in units of the picture."""

    path: str
    """Of an SVG path; empty for a single point."""
    points: list[tuple[float, float]]


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


def lines(name: str, title: str, columns: Sequence[str], series: Sequence[Series], show: Show) -> Plot:
    """A line for each series; a gap where a value is missing.

    :param show: a value as people read it.
    """
    known = [value for one in series for value in one.values if value is not None]
    marks = ticks(max(known, default=0))
    summary = "; ".join(f"{one.name}: last {show(_last(one))}" for one in series if _last(one))
    drawn = []
    for one in series:
        points = [
            (round(_x(column, len(columns)), 1), _y(value, marks[-1]))
            for column, value in enumerate(one.values)
            if value is not None
        ]
        path = " ".join(f"{'L' if index else 'M'}{x} {y}" for index, (x, y) in enumerate(points))
        drawn.append(Line(path if len(points) > 1 else "", points))
    return Plot(name, title, summary or "no values yet", _rules(marks, show), _labels(columns), lines=drawn)


def bars(name: str, title: str, nights: Sequence[tuple[str, int, int]]) -> Plot:
    """A column for each night: green below, red (hatched) above."""
    most = max((green + red for _, green, red in nights), default=0)
    marks = [mark for mark in ticks(most) if mark == int(mark)] or [0, 1]
    if most > marks[-1]:
        marks.append(marks[-1] + 1)
    bad = sum(1 for _, _, red in nights if red)
    wide = min(36.0, (WIDTH - LEFT - RIGHT) / max(len(nights), 1) * 0.7)
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
        _rules(marks, lambda value: str(int(value))),
        _labels([night for night, _, _ in nights]),
        bars=drawn,
    )


def _x(column: int, columns: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (column + 0.5) / max(columns, 1)


def _y(value: float, top: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top), 1)


def _rules(marks: Sequence[float], show: Show) -> list[tuple[float, str]]:
    return [(_y(mark, marks[-1]), show(mark)) for mark in marks]


def _labels(columns: Sequence[str]) -> list[tuple[float, str]]:
    every = max(1, math.ceil(len(columns) / 8))
    return [
        (round(_x(number, len(columns)), 1), column)
        for number, column in enumerate(columns)
        if number % every == 0
    ]


def _last(one: Series) -> float:
    return next((value for value in reversed(one.values) if value is not None), 0.0)
