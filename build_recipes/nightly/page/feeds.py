"""What changed, for people who want to be told: a JSON Feed (jsonfeed.org, 1.1) and an Atom feed (RFC 4287)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from build_recipes.kit.pages import page
from build_recipes.nightly.page.verdict import Verdict, verdict
from build_recipes.nightly.page.view import Run, View

MOST = 100
"""Items of a feed, the newest."""


@dataclass(frozen=True)
class Item:
    """One thing to be told: a job came to something else than before, or there is another wheel."""

    id: str
    title: str
    text: str
    time: str
    link: str
    tags: list[str]


def items(shown: View, site_url: str) -> list[Item]:
    """The newest first. A job that fails again in the same step is no news."""
    seen: dict[str, tuple[str, str]] = {}
    found = []
    for run in shown.finished:
        word = verdict(run)
        now = (word.word, str(run.wheel.get("sha256") or run.wheel.get("name") or ""))
        if seen.get(run.job) != now:
            found.append(_item(run, word, site_url))
        seen[run.job] = now
    return found[::-1][:MOST]


def _item(run: Run, word: Verdict, site_url: str) -> Item:
    lines = [run.reason] if run.reason else []
    lines += [f"{name}: {run.failed[name]}" for name in ("cause", "fix") if run.failed.get(name)]
    lines += [f"wheel: {run.wheel['name']}"] if run.wheel.get("name") else []
    lines += [f"run: {run.url}"] if run.url else []
    return Item(
        f"urn:vllm-armory:run:{hashlib.sha256(run.id.encode()).hexdigest()[:32]}",
        f"{run.label} for {run.device}: {word.word}",
        "\n".join(lines) or word.word,
        run.ended,
        f"{site_url}/#{run.anchor if run.state == 'red' else 'now'}" if site_url else "",
        [run.device, run.label, word.word],
    )


def json_feed(title: str, found: list[Item], site_url: str) -> bytes:
    """The JSON Feed."""
    rows = [
        {
            "id": item.id, "title": item.title, "content_text": item.text, "date_published": item.time,
            "tags": item.tags, **({"url": item.link} if item.link else {}),
        }
        for item in found
    ]  # fmt: skip
    head = {"version": "https://jsonfeed.org/version/1.1", "title": title, "language": "en"}
    where = {"home_page_url": f"{site_url}/", "feed_url": f"{site_url}/feed.json"} if site_url else {}
    return (json.dumps({**head, **where, "items": rows}, indent=1, ensure_ascii=True) + "\n").encode()


def atom(title: str, found: list[Item], site_url: str) -> bytes:
    """The Atom feed."""
    updated = found[0].time if found else "1970-01-01T00:00:00Z"
    own = f"urn:vllm-armory:feed:{hashlib.sha256(f'{title}|{site_url}'.encode()).hexdigest()[:32]}"
    return page(
        "build_recipes.nightly.page", "feed.atom.xml", title=title, items=found, site_url=site_url, own=own,
        updated=updated,
    ).encode()  # fmt: skip
