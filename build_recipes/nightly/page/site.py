"""Write the site: the page and the feed it was made from, each in one step."""

from __future__ import annotations

from pathlib import Path

from build_recipes.kit.data import write_atomic
from build_recipes.nightly.events import Event
from build_recipes.nightly.page.render import render
from build_recipes.nightly.page.view import view


def write_site(title: str, events: list[Event], folder: Path, wheels_url: str = "") -> Path:
    """Write ``index.html`` and ``feed.jsonl``. Returns the page's path."""
    write_atomic(folder / "feed.jsonl", b"".join(event.line() + b"\n" for event in events))
    write_atomic(folder / "index.html", render(title, view(events), wheels_url))
    return folder / "index.html"
