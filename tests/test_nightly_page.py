"""The status page: what it says, and how a real browser takes it."""

from __future__ import annotations

import datetime
import itertools
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import nightly_history
import pytest
from chromium import chromium
from packaging.version import Version

from build_recipes.kit.data import parse_json
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly.extract import extract
from build_recipes.nightly.page import feeds, survey
from build_recipes.nightly.page.plots import OCTETS, SECONDS, Series, axis, lines, ticks
from build_recipes.nightly.page.rows import Drawing, Row, groups, install
from build_recipes.nightly.page.site import write_site
from build_recipes.nightly.page.verdict import verdict
from build_recipes.nightly.page.view import Run, view
from build_recipes.nightly.store import Store

WIDTHS = (390, 1280)
WHEELS = "https://example.org/w/"


def drawing(**more: Any) -> Drawing:
    return Drawing(nightly_history.NOW, **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    events = nightly_history.write(folder / "n.sqlite")
    how = drawing(wheels_url=WHEELS)
    return write_site("vLLM <nightly>", events, folder, how, site_url="https://example.org/nights")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """The lines of the page by job."""
    events = nightly_history.write(tmp_path_factory.mktemp("rows") / "n.sqlite")
    found = groups(view(events), drawing(wheels_url=WHEELS.rstrip("/")))
    return {f"{row.label}-{row.device}": row for group in found for row in group.rows}


def test_the_lines_are_the_newest_of_each_device_and_tag(tmp_path: Path) -> None:
    shown = view(nightly_history.write(tmp_path / "n.sqlite"))
    assert shown.labels == ["main", "v0.34.0", "v0.33.0", "v0.12.0-smoke", "v0.12.0"]
    found = groups(shown, drawing())
    assert [group.device for group in found] == ["thor", "orin", "spark", "gh200"], "as devices.toml has them"
    assert [row.label for row in found[0].rows] == shown.labels
    cell = shown.cells["v0.12.0", "thor"]
    assert cell.run and (cell.run.state, cell.run.id) == ("green", "v0.12.0-thor@13")
    new = shown.cells["v0.34.0", "thor"]
    assert new.run is None and new.running
    assert len(shown.days) == 14


def test_no_line_promises_more_than_was_shown(rows: dict[str, Row]) -> None:
    """Green is a whole wheel that the audit calls ready, and that a night confirmed lately."""
    assert (rows["main-thor"].shown.word, rows["main-thor"].shown.style) == ("ready", "good")
    assert rows["main-thor"].gpu == "no GPU ran this"
    assert rows["v0.12.0-thor"].gpu == "ran on a GPU: kernels, generate"
    unusable = rows["v0.33.0-orin"]
    assert (unusable.shown.word, unusable.shown.style, unusable.install) == ("not usable", "bad", "")
    assert {mark.style for mark in unusable.strip} == {"bad"}, "nor is a night of it green"
    small = rows["v0.12.0-smoke-thor"]
    assert (small.shown.word, small.shown.style, small.install) == ("smoke passed", "plain", "")
    assert small.wheel and not small.wheel.href and small.facts == [("audit", "not usable: a smoke build")]
    stale = rows["v0.12.0-spark"]
    assert (stale.shown.word, stale.shown.style, stale.age) == ("ready, stale", "wait", "8 days ago")
    assert [mark.style for mark in stale.strip] == ["good"] + ["skip"] * 5 + ["none"] * 8
    never = rows["v0.33.0-gh200"]
    assert never.shown.word == "not built" and never.reason.startswith("does not fit arm64-old: memory")
    smoke = Run(
        "r", label="v0.12.0-smoke", state="green", wheel={"name": "vllm-1+cu130.thor.smoke-a-b-c.whl"}
    )
    assert verdict(smoke).style == "plain" and verdict(smoke).word == "smoke passed"
    partial = Run("r", label="v1", state="green", wheel={"name": "vllm-1+cu130.thor.partial-a-b-c.whl"})
    partial.steps["audit"] = {"facts": {"devices": {"thor": {"verdict": "ready"}}}}
    assert verdict(partial).word == "partial" and verdict(partial).style == "plain"
    assert verdict(Run("r", label="v1", state="green")).word == "built, not audited"


def test_a_red_line_says_which_step_and_leads_to_its_log_and_run(rows: dict[str, Row], site: Path) -> None:
    red = rows["v0.33.0-spark"]
    assert red.shown.word == "failed in build" and red.reason == "build failed with exit code 52"
    assert red.failed and red.failed.href == "#run-v0-33-0-spark-13"
    text = site.read_text()
    assert 'id="run-v0-33-0-spark-13"' in text and "logs/v0.33.0-spark@13/build.log" in text
    leads = {name or one.text: one.href for name, one in red.links}
    assert leads == {
        "built by": f"https://github.com/owner/vllm-armory/commit/{'ab' * 20}",
        "run and logs": nightly_history.URL.format(4213),
    }
    main = dict(rows["main-thor"].links)["vLLM"]
    assert main.href == f"https://github.com/vllm-project/vllm/commit/0c0ffee{'0' * 33}"


def test_what_the_page_says_is_in_its_text(site: Path) -> None:
    text = site.read_text()
    assert "vLLM &lt;nightly&gt;" in text
    assert "FA2 is &lt;absent&gt;" in text and "_C/&lt;x&gt;.cu.o" in text
    assert "<b>" not in text, "log lines are text"
    assert "javascript:" not in text, "an address of a feed is followed only where it is one"
    assert "the kernel killed the compiler" in text
    assert "No known failure was recognised" in text
    assert 'href="https://example.org/w/vllm-v0.12.0/vllm-0.12.0%2Bcu130.thor-cp38' in text
    assert "21 names are missing in 30 places" in text, "as the log of verify-omni counts"
    assert "<script" not in text and "src=" not in text
    assert len(text) < 1_000_000


def test_the_line_to_install_one(rows: dict[str, Row]) -> None:
    name = rows["v0.12.0-thor"].wheel
    assert (
        name
        and rows["v0.12.0-thor"].install
        == f'pip install "{WHEELS}vllm-v0.12.0/{name.text.replace("+", "%2B")}"'
    )
    indexed = install(name.text, "", drawing(index_url="https://example.org/simple/"))
    assert indexed == 'pip install "vllm==0.12.0+cu130.thor" --extra-index-url https://example.org/simple/'
    assert install("vllm.whl", "", drawing()) == ""


def test_the_page_counts_what_the_log_counts() -> None:
    """Breaks that decide, as `invoke verify-omni` says them in its last line."""
    entry = {"module": "vllm.a", "name": "x", "file": "f", "line": 1, "kind": "missing-name", "tier": "entry",
             "guard": None, "chain": [], "moved_to": None}  # fmt: skip
    breaks = [entry, {**entry, "line": 2}, {**entry, "name": "y"}, {**entry, "tier": "platform"}]
    told = extract("omni", {"omni": "1", "verdict": "breaks", "breaks": breaks})
    assert (told["breaks"], told["counted"]) == (3, "2 names are missing in 3 places")


def test_an_empty_feed_makes_a_page(tmp_path: Path) -> None:
    text = write_site("x", [], tmp_path, drawing()).read_text()
    assert "Nothing has been built yet" in text
    assert "No job has failed" in text
    assert (tmp_path / "badges/all.svg").exists()


# -- feeds and badges ----------------------------------------------------------------------------


def test_feeds_tell_of_changes(site: Path) -> None:
    read = json.loads(site.with_name("feed.json").read_text())
    assert read["version"] == "https://jsonfeed.org/version/1.1"
    assert read["home_page_url"] == "https://example.org/nights/"
    tree = ElementTree.parse(site.with_name("feed.atom")).getroot()
    space = "{http://www.w3.org/2005/Atom}"
    entries = tree.findall(f"{space}entry")
    assert [one["id"] for one in read["items"]] == [one.findtext(f"{space}id") for one in entries]
    assert len({one["id"] for one in read["items"]}) == len(entries) > 20
    times = [one["date_published"] for one in read["items"]]
    assert times == sorted(times, reverse=True)
    assert tree.findtext(f"{space}updated") == times[0]
    for one in entries:
        assert one.findtext(f"{space}title") and one.findtext(f"{space}content")
        lead = one.find(f"{space}link")
        assert lead is not None and lead.get("href", "").startswith("https://example.org/nights/#")
    failed = next(one for one in read["items"] if one["title"] == "v0.33.0 for spark: failed in build")
    assert "build failed with exit code 52" in failed["content_text"]
    assert failed["url"] == "https://example.org/nights/#run-v0-33-0-spark-13"


def test_a_failure_that_stays_is_told_once(tmp_path: Path) -> None:
    with Store(tmp_path / "n.sqlite") as store:
        for number, state in enumerate(["red", "red", "green", "green", "red"]):
            run = f"j@{number}"
            store.record("started", run, "1", {"job": "v1-thor", "label": "v1", "device": "thor"})
            store.record(
                "ended", run, "", {"state": state, "wheel": {"name": "a.whl"} if state == "green" else {}}
            )
        shown = view([event for _, event in store.events()])
    assert [item.title.split(": ")[1] for item in feeds.items(shown, "")] == [
        "failed",
        "built, not audited",
        "failed",
    ]


def test_badges_say_what_the_line_says(site: Path) -> None:
    folder = site.parent / "badges"
    badge = json.loads((folder / "v0.33.0-orin.json").read_text())
    assert badge == {"schemaVersion": 1, "label": "v0.33.0 orin", "message": "not usable", "color": "red"}
    assert json.loads((folder / "v0.12.0-spark.json").read_text())["message"] == "ready, stale"
    assert json.loads((folder / "all.json").read_text())["color"] == "red"
    for path in folder.glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert int(root.get("width", "0")) > 60 and json.loads(path.with_suffix(".json").read_text())[
            "message"
        ] in (root.get("aria-label") or "")


def test_names_from_a_feed_cannot_leave_the_site(tmp_path: Path) -> None:
    now = [datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc)]
    with Store(tmp_path / "n.sqlite", clock=lambda: now[0]) as store:
        label = "../../v1<script>"
        store.record("started", "r", "1", {"job": f"{label}-../x", "label": label, "device": "../x"})
        store.record("ended", "r", "", {"state": "red", "reason": "\x1b[31m\u202e</style>"})
        events = [event for _, event in store.events()]
    events[1] = msgspec.structs.replace(events[1], time="../../../etc")
    page = write_site("t", events, tmp_path / "out/site", drawing())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["site"]
    assert {path.name for path in page.parent.iterdir()} == {
        "badges", "feed.atom", "feed.json", "feed.jsonl", "index.html", "nights",
    }  # fmt: skip
    assert "<script" not in page.read_text() and page.read_text().count("</style>") == 1
    ElementTree.parse(page.with_name("feed.atom"))


# -- plots ---------------------------------------------------------------------------------------


def test_ticks_are_round() -> None:
    for top in (0.3, 1, 7, 99, 436e6):
        marks = ticks(top)
        assert marks[-1] >= top
        assert 2 <= len(marks) <= 7
    assert ticks(0) == [0, 1]


@pytest.mark.parametrize("units", [SECONDS.units, OCTETS.units])
def test_labels_of_an_axis_are_right_and_differ(units: Sequence[tuple[float, str]]) -> None:
    sizes = {name: size for size, name in units}
    for top in (0, 1e-3, 0.04, 0.9, 1, 2.5, 59, 61, 119, 121, 600, 7199, 7201, 4e4, 1e6, 436e6, 3e9, 5e12):
        marks, labels = axis(top, units)
        assert len(set(labels)) == len(labels) == len(marks) >= 2, (top, labels)
        assert marks[-1] >= top * 0.999
        for mark, label in zip(marks, labels, strict=True):
            number, unit = label.split(" ")
            assert abs(float(number) * sizes[unit] - mark) <= marks[1] / 50, (top, label, mark)


def test_names_at_the_ends_of_lines_stand_apart() -> None:
    same = [Series(f"t{n}", [100.0, 100.0 + n]) for n in range(6)]
    drawn = lines("p", "t", ["2026-03-01", "2026-03-02"], same, SECONDS)
    places = sorted(line.label for line in drawn.lines)
    assert all(b - a >= 14.9 for a, b in itertools.pairwise(places))
    assert places[0] >= 0 and places[-1] <= drawn.height
    assert drawn.columns == [(drawn.columns[0][0], "03-01"), (drawn.columns[1][0], "03-02")]


def test_the_survey_is_read_as_it_is_published(tmp_path: Path) -> None:
    table = survey.read(PROJECT / "docs/survey.json")
    assert table.devices[:1] == ["thor"] and len(table.rows) >= 5
    tags = [tag for tag, _ in table.rows]
    assert "v0.12.0" in tags and tags == sorted(tags, key=lambda tag: Version(tag[1:]), reverse=True)
    (own,) = (cells for tag, cells in table.rows if tag == "v0.12.0")
    thor = next(
        row
        for row in parse_json((PROJECT / "docs/survey.json").read_text())
        if row["tag"] == "v0.12.0" and row["device"] == "thor"
    )
    assert own[0].text == f"150 units, {round(thor['cpu_s'] / 60)} CPU min"
    good = {
        "unit": "_C/a.cu.o",
        "codes": ["sm_110f"],
        "pair": "v0.12.0 thor",
        "ok": True,
        "seconds": 9.0,
        "error": "",
    }
    bad = {**good, "ok": False, "error": "a.cu(3): error: x"}
    for compiled, style, told in (
        ({"_C": good}, "plain", "one unit each of 1 module compiled"),
        ({"_C": bad, "_moe_C": good}, "bad", "_C does not compile: a.cu(3): error: x"),
    ):
        (tmp_path / "s.json").write_text(json.dumps([{**thor, "compiled": compiled}]))
        ((_, (entry,)),) = survey.read(tmp_path / "s.json").rows
        assert (entry.style, entry.title) == (style, told)
    (tmp_path / "s.json").write_text('[{"tag": 1}]')
    assert survey.read(tmp_path / "s.json").rows == survey.read(tmp_path / "none").rows == []


def test_every_night_is_in_the_archive(site: Path) -> None:
    text = (site.parent / "nights/2026-03.html").read_text()
    assert text.count("<h2 ") == 14 and "failed in build" in text
    assert "1 skipped" in text


def test_the_command_writes_the_site(places: Places) -> None:
    folder = places.wheels / "nightly"
    nightly_history.write(folder / "night.sqlite")
    invoke = Path(sys.executable).with_name("invoke")
    done = subprocess.run(
        [invoke, "page", "--json", "--site-url", "https://example.org/x"], cwd=PROJECT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert '"page"' in done.stdout
    assert (folder / "page/index.html").exists()
    assert (folder / "page/feed.jsonl").read_bytes() == (folder / "feed.jsonl").read_bytes()
    assert (
        json.loads((folder / "page/feed.json").read_text())["feed_url"] == "https://example.org/x/feed.json"
    )


# -- a real browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program, environment = chromium()
    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"], env={**environment} or None
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
    assert page.locator("table").first.locator("tbody tr").count() == 5
    assert "ready" in page.locator("table").first.inner_text()
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
        elif not link.startswith(("https://example.org/", "https://github.com/", "data:")):
            assert (site.parent / link).is_file(), link
    for wanted in re.findall(r'aria-labelledby="([^"]+)"|url\(#([^)]+)\)', site.read_text()):
        for name in " ".join(wanted).split():
            assert name in found.ids, name
