"""Badges: one SVG and one JSON (shields.io's endpoint schema, version 1) for each job, and one for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from build_recipes.kit.console import one_line
from build_recipes.kit.pages import page
from build_recipes.nightly.page.rows import Group

COLOURS = {"good": ("brightgreen", "#2f7d32"), "bad": ("red", "#b3261e"), "wait": ("orange", "#9a5b00")}
OTHER = ("lightgrey", "#5f6670")
WIDE = 6.6
"""Width of a character of 11 px, on the average."""


@dataclass(frozen=True)
class Badge:
    """What a badge says."""

    name: str
    """File name without its ending."""
    label: str
    message: str
    style: str

    def as_json(self) -> bytes:
        """For shields.io: ``https://img.shields.io/endpoint?url=...``."""
        colour = COLOURS.get(self.style, OTHER)[0]
        return (
            json.dumps({"schemaVersion": 1, "label": self.label, "message": self.message, "color": colour})
            + "\n"
        ).encode()

    def as_svg(self) -> bytes:
        """Itself, without anybody's server."""
        left, right = (round(len(text) * WIDE + 12) for text in (self.label, self.message))
        colour = COLOURS.get(self.style, OTHER)[1]
        return page(
            "build_recipes.nightly.page", "badge.svg", badge=self, left=left, right=right, colour=colour
        ).encode()


def badges(found: list[Group]) -> Iterator[Badge]:
    """A badge for each line, and ``all``."""
    rows = [row for group in found for row in group.rows]
    for row in rows:
        yield Badge(
            row.badge,
            one_line(f"{row.label} {row.device}", 60),
            one_line(row.shown.word, 60),
            row.shown.style,
        )
    good = sum(row.shown.style == "good" for row in rows)
    bad = any(row.shown.style == "bad" for row in rows)
    overall = "bad" if bad else "good" if rows and good == len(rows) else "wait"
    yield Badge("all", "nightly wheels", f"{good} of {len(rows)} ready", overall)
