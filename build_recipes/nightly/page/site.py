"""Write the site: the pages, the feeds, the badges and the results they were made from, each file in one step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from build_recipes.kit import paths
from build_recipes.kit.data import write_atomic
from build_recipes.nightly.events import Event, utc_now
from build_recipes.nightly.page import badges, feeds, render, survey
from build_recipes.nightly.page.rows import Drawing, groups, safe
from build_recipes.nightly.page.view import view


def write_site(
    title: str, events: list[Event], folder: Path, how: Drawing | None = None, *, site_url: str = ""
) -> Path:
    """Write ``index.html``, ``nights/MONTH.html``, ``badges/``, ``feed.json``, ``feed.atom`` and ``feed.jsonl``, which
    is all events. Returns the page's path.

    :param how: with what it is drawn; by default without links to wheels.
    :param site_url: where the site will be; feeds lead there.
    """
    how = how or Drawing(utc_now())
    how = dataclasses.replace(how, wheels_url=safe(how.wheels_url).rstrip("/"), index_url=safe(how.index_url))
    site_url = safe(site_url).rstrip("/")
    shown = view(events)
    found = groups(shown, how)
    write_atomic(folder / "feed.jsonl", b"".join(event.line() + b"\n" for event in events))
    for badge in badges.badges(found):
        write_atomic(folder / f"badges/{badge.name}.svg", badge.as_svg())
        write_atomic(folder / f"badges/{badge.name}.json", badge.as_json())
    told = feeds.items(shown, site_url)
    write_atomic(folder / "feed.json", feeds.json_feed(title, told, site_url))
    write_atomic(folder / "feed.atom", feeds.atom(title, told, site_url))
    months = render.months(shown)
    for month in months:
        write_atomic(folder / f"nights/{month.name}.html", render.month(title, month, months))
    table = survey.read(paths.PROJECT / "docs/survey.json")
    write_atomic(folder / "index.html", render.index(title, shown, how, table, found))
    return folder / "index.html"
