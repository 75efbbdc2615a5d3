"""The status page: what it says, and how a real browser takes it."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nightly_history
import pytest
from chromium import chromium

from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly.page.plots import ticks
from build_recipes.nightly.page.render import render
from build_recipes.nightly.page.site import write_site
from build_recipes.nightly.page.view import view

WIDTHS = (360, 1280)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    return write_site(
        "vLLM <nightly>", nightly_history.write(folder / "n.sqlite"), folder, "https://example.org/w/"
    )


def test_the_grid_shows_the_newest_of_each_cell(tmp_path: Path) -> None:
    shown = view(nightly_history.write(tmp_path / "n.sqlite"))
    assert shown.labels == ["main", "v0.34.0", "v0.33.0", "v0.12.0"]
    assert shown.devices == ["orin", "spark", "thor"]
    cell = shown.cells["v0.12.0", "thor"]
    assert cell.run and cell.run.state == "green"
    assert cell.run.id == "v0.12.0-thor@13"
    assert shown.cells["main", "spark"].run.state == "checkpointed"  # type: ignore[union-attr]
    new = shown.cells["v0.34.0", "thor"]
    assert new.run is None and new.running
    red = {night for night, _, red in shown.nights if red}
    assert red == {run.night for run in shown.failures}
    assert len(shown.nights) == 14


def test_what_the_page_says_is_in_its_text(site: Path) -> None:
    text = site.read_text()
    assert "vLLM &lt;nightly&gt;" in text
    assert "FA2 is &lt;absent&gt;" in text
    assert "<b>" not in text, "log lines are text"
    assert "the kernel killed the compiler" in text
    assert "No known failure was recognised" in text
    assert 'href="https://example.org/w/vllm-v0.12.0+cu130.thor-cp38' in text
    assert "<script" not in text
    assert len(text) < 1_000_000


def test_an_empty_feed_makes_a_page(tmp_path: Path) -> None:
    text = render("x", view([]))
    assert "nothing has been built yet" in text
    assert "No job has failed" in text


def test_ticks_are_round() -> None:
    for top in (0.3, 1, 7, 99, 436e6):
        marks = ticks(top)
        assert marks[-1] >= top
        assert 2 <= len(marks) <= 7
    assert ticks(0) == [0, 1]


def test_the_command_writes_page_and_feed(places: Places) -> None:
    folder = places.wheels / "nightly"
    nightly_history.write(folder / "night.sqlite")
    invoke = Path(sys.executable).with_name("invoke")
    done = subprocess.run([invoke, "page", "--json"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert '"page"' in done.stdout
    assert (folder / "page/index.html").exists()
    assert (folder / "page/feed.jsonl").read_bytes() == (folder / "feed.jsonl").read_bytes()


# -- a real browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program, environment = chromium()
    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"], env=environment or None
        )
        yield opened
        opened.close()


def photograph(page: Any, path: Path) -> None:
    """A picture of the whole page; once more where the browser's compositor gave none (seen on a busy machine)."""
    from playwright.sync_api import Error

    try:
        page.screenshot(path=str(path), full_page=True)
    except Error as error:
        if "Unable to capture screenshot" not in str(error):
            raise
        page.screenshot(path=str(path), full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_finds_nothing_wrong(
    browser: Any, site: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    """No console message, no failed request, no accessibility violation, nothing wider than the window."""
    import axe_playwright_python

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.goto(site.as_uri())
    for details in page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot = tmp_path / "page.png"
    photograph(page, shot)
    assert struct.unpack(">I", shot.read_bytes()[16:20]) == (width,)
    assert shot.stat().st_size > 50_000
    (axe,) = Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")
    page.evaluate(axe.read_text() + "; null")
    result = page.evaluate("axe.run()")
    assert result["violations"] == [], [
        (one["id"], [node["html"][:200] for node in one["nodes"]]) for one in result["violations"]
    ]
    assert len(result["passes"]) > 20
    assert said == []
    context.close()


def test_it_is_read_without_javascript_and_walked_by_keyboard(browser: Any, site: Path) -> None:
    from playwright.sync_api import expect

    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())
    assert page.locator("table").first.locator("tbody tr").count() == 4
    assert "green" in page.locator("table").first.inner_text()
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the results")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))  # the driver hears of it after the key
    closed = page.locator("details:not([open]) > summary").first
    closed.focus()
    before = page.locator("details[open]").count()
    page.keyboard.press("Enter")
    expect(page.locator("details[open]")).to_have_count(before + 1)
    context.close()


class Links(HTMLParser):
    """Every address and every identifier of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)


def test_links_resolve_and_identifiers_are_unique(site: Path) -> None:
    found = Links()
    found.feed(site.read_text())
    assert len(found.ids) == len(set(found.ids))
    for link in found.links:
        if link.startswith("#"):
            assert link[1:] in found.ids, link
        elif not link.startswith(("https://example.org/", "data:")):
            assert (site.parent / link).is_file(), link
    for wanted in re.findall(r'aria-labelledby="([^"]+)"|url\(#([^)]+)\)', site.read_text()):
        for name in " ".join(wanted).split():
            assert name in found.ids, name
