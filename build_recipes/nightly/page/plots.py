"""Plots as inline SVG: drawn once, read without JavaScript, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from build_recipes.nightly.page.markup import Markup, el

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 16, 44
COLOURS = 6
"""Line styles of the style sheet: ``line-0`` to ``line-5``; more series take them again with another mark."""


@dataclass(frozen=True)
class Series:
    """One line: a value for each column, None where there is none."""

    name: str
    values: Sequence[float | None]


def ticks(top: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least ``top``."""
    if top <= 0:
        return [0, 1]
    rough = top / count
    scale = 10 ** math.floor(math.log10(rough))
    step = next(nice * scale for nice in (1, 2, 2.5, 5, 10) if nice * scale >= rough * 0.999)
    return [step * n for n in range(math.ceil(top / step * 0.999) + 1)]


def _x(column: int, columns: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (column + 0.5) / max(columns, 1)


def _y(value: float, top: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top), 1)


def _frame(
    name: str, title: str, summary: str, *, columns: Sequence[str], marks: list[float], show: Callable[[float], str]
) -> list[Markup]:  # fmt: skip
    """Title, description, grid lines and labels."""
    parts = [el("title", title, id=f"{name}-title"), el("desc", summary, id=f"{name}-desc")]
    for mark in marks:
        y = _y(mark, marks[-1])
        parts.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(el("text", show(mark), x=LEFT - 8, y=y + 4, text_anchor="end"))
    every = max(1, math.ceil(len(columns) / 8))
    for number, column in enumerate(columns):
        if number % every == 0:
            x = round(_x(number, len(columns)), 1)
            parts.append(el("text", column, x=x, y=HEIGHT - BOTTOM + 20, text_anchor="middle"))
    return parts


def _svg(name: str, parts: list[Markup]) -> Markup:
    return el(
        "svg",
        parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        class_="plot",
    )


def lines(
    name: str, title: str, columns: Sequence[str], series: Sequence[Series], show: Callable[[float], str]
) -> Markup:
    """A line for each series; a gap where a value is missing.

    :param name: identifier, unique in the page.
    :param show: a value as people read it.
    """
    known = [value for one in series for value in one.values if value is not None]
    marks = ticks(max(known, default=0))
    summary = "; ".join(f"{one.name}: last {show(_last(one))}" for one in series if _last(one))
    parts = _frame(name, title, summary or "no values yet", columns=columns, marks=marks, show=show)
    for number, one in enumerate(series):
        style = f"line-{number % COLOURS}"
        points = [
            (round(_x(column, len(columns)), 1), _y(value, marks[-1]))
            for column, value in enumerate(one.values)
            if value is not None
        ]
        path = " ".join(f"{'L' if index else 'M'}{x} {y}" for index, (x, y) in enumerate(points))
        if len(points) > 1:
            parts.append(el("path", d=path, class_=f"line {style}"))
        parts += [_mark(number, x, y, style) for x, y in points]
    return _svg(name, parts)


def _last(one: Series) -> float:
    return next((value for value in reversed(one.values) if value is not None), 0.0)


def _mark(number: int, x: float, y: float, style: str) -> Markup:
    """A point; its shape tells series apart without colour."""
    size = 4
    shapes = [
        lambda: el("circle", cx=x, cy=y, r=size, class_=f"mark {style}"),
        lambda: el("rect", x=x - size, y=y - size, width=2 * size, height=2 * size, class_=f"mark {style}"),
        lambda: el("path", d=f"M{x} {y - 5}l5 9h-10z", class_=f"mark {style}"),
        lambda: el("path", d=f"M{x} {y - 5}l5 5l-5 5l-5 -5z", class_=f"mark {style}"),
    ]
    return shapes[number % len(shapes)]()


def legend_mark(number: int) -> Markup:
    """The mark of a series for the legend."""
    mark = _mark(number, 8, 8, f"line-{number % COLOURS}")
    return el("svg", mark, viewBox="0 0 16 16", class_="key", aria_hidden="true")


def bars(name: str, title: str, nights: Sequence[tuple[str, int, int]]) -> Markup:
    """A column for each night: green below, red (hatched) above."""
    marks = ticks(max((green + red for _, green, red in nights), default=0))
    marks = [mark for mark in marks if mark == int(mark)] or [0, 1]
    if max((green + red for _, green, red in nights), default=0) > marks[-1]:
        marks.append(marks[-1] + 1)
    bad = sum(1 for _, _, red in nights if red)
    parts = _frame(
        name,
        title,
        f"{bad} of {len(nights)} nights had a red job",
        columns=[night for night, _, _ in nights],
        marks=marks,
        show=lambda value: str(int(value)),
    )
    parts.insert(2, _hatch(name))
    wide = min(36.0, (WIDTH - LEFT - RIGHT) / max(len(nights), 1) * 0.7)
    for number, (_, green, red) in enumerate(nights):
        x = round(_x(number, len(nights)) - wide / 2, 1)
        zero, middle, top = (_y(value, marks[-1]) for value in (0, green, green + red))
        if green:
            parts.append(
                el("rect", x=x, y=middle, width=wide, height=round(zero - middle, 1), class_="bar green")
            )
        if red:
            height = round(middle - top, 1)
            parts.append(el("rect", x=x, y=top, width=wide, height=height, class_="bar red"))
            parts.append(el("rect", x=x, y=top, width=wide, height=height, fill=f"url(#{name}-hatch)"))
    return _svg(name, parts)


def _hatch(name: str) -> Markup:
    stroke = el("path", d="M0 6L6 0", class_="hatch")
    return el(
        "defs", el("pattern", stroke, id=f"{name}-hatch", width=6, height=6, patternUnits="userSpaceOnUse")
    )
