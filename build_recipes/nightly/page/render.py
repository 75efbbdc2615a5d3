"""The page itself: a grid, plots and failures, each with a text that says the same."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from build_recipes.kit.console import duration, size
from build_recipes.nightly.page import plots
from build_recipes.nightly.page.markup import Markup, el, join
from build_recipes.nightly.page.view import Cell, Run, View

HERE = Path(__file__).resolve().parent
SHOWN_FAILURES = 40
SHOWN_COLUMNS = 60
MARKS = {
    "green": "\N{CHECK MARK} green",
    "red": "\N{BALLOT X} red",
    "checkpointed": "\N{RIGHTWARDS ARROW} goes on next night",
    "interrupted": "! interrupted",
    "running": "\N{HORIZONTAL ELLIPSIS} running",
}


def render(title: str, shown: View, wheels_url: str = "") -> str:
    """The whole document.

    :param wheels_url: where wheels are downloaded from; without it their names are no links.
    """
    template = string.Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=join([title]),
        updated=shown.updated or "never",
        updated_text=shown.updated.replace("T", " ").replace("Z", " UTC") or "never",
        summary=_summary(shown),
        grid=_grid(shown, wheels_url),
        history=_history(shown),
        failures=_failures(shown),
    )


def _summary(shown: View) -> Markup:
    states = [cell.run.state for cell in shown.cells.values() if cell.run]
    words = [f"{states.count(state)} {state}" for state in ("green", "red", "checkpointed", "interrupted")]
    words = [word for word in words if not word.startswith("0 ")]
    running = sum(1 for cell in shown.cells.values() if cell.running)
    if running:
        words.append(f"{running} running")
    return join([", ".join(words) or "nothing has been built yet", "."])


# -- the grid ------------------------------------------------------------------------------------


def _grid(shown: View, wheels_url: str) -> Markup:
    head = el("tr", el("th", "tag", scope="col"), [el("th", name, scope="col") for name in shown.devices])
    rows = [
        el(
            "tr",
            el("th", label, scope="row"),
            [_cell(shown.cells.get((label, name)), label, name, wheels_url) for name in shown.devices],
        )
        for label in shown.labels
    ]
    caption = el("caption", "The newest result of each tag on each device")
    return _scrolling("grid", "tags and devices", el("table", caption, el("thead", head), el("tbody", rows)))


def _cell(cell: Cell | None, label: str, device: str, wheels_url: str) -> Markup:
    if cell is None:
        return el("td", el("span", "never built", class_="quiet"))
    parts = []
    if cell.running:
        parts.append(el("p", el("span", MARKS["running"], class_="state running"), class_="first"))
    run = cell.run
    if run is not None:
        badge: Markup = el("span", MARKS.get(run.state, run.state), class_=f"state {run.state}")
        if run.state == "red":
            badge = el("a", badge, href=f"#{run.anchor}", aria_label=f"red: why {label} failed for {device}")
        parts.append(el("p", badge, class_="first"))
        parts.append(el("dl", [_pair(name, value) for name, value in _details(run, wheels_url)]))
    return el("td", parts)


def _pair(name: str, value: Markup | str) -> Markup:
    return el("div", el("dt", name), el("dd", value))


def _details(run: Run, wheels_url: str) -> list[tuple[str, Markup | str]]:
    rows: list[tuple[str, Markup | str]] = []
    if run.wheel:
        name = str(run.wheel.get("name", ""))
        link = el("a", name, href=f"{wheels_url.rstrip('/')}/{name}") if wheels_url else el("span", name)
        rows.append(
            ("wheel", join([size(float(run.wheel.get("size", 0))), " ", el("span", link, class_="file")]))
        )
    if run.build_s:
        facts = run.steps["build"].get("facts") or {}
        cached = (
            f" ({facts['cached']} of {facts.get('units', '?')} units cached)" if facts.get("cached") else ""
        )
        rows.append(("build", "up to date" if facts.get("up_to_date") else duration(run.build_s) + cached))
    for name, data in run.steps.items():
        word = _word(name, data)
        if word and name != "build":
            rows.append((name, word))
    rows.append(("when", run.ended[:16].replace("T", " ") or run.started[:16].replace("T", " ")))
    if run.attempts > 1:
        rows.append(("nights", str(run.attempts)))
    return rows


def _word(name: str, data: dict[str, Any]) -> str:
    """The result of a step in a few words; empty where it is not worth a line."""
    facts = data.get("facts") or {}
    if name.startswith("omni") and facts:
        many = (
            f"{facts['breaks']} breaks"
            if facts.get("breaks")
            else str(facts.get("verdict", "")).replace("-", " ")
        )
        return f"{facts.get('omni')}: {many}"
    if name == "audit" and facts.get("devices"):
        return ", ".join(_judged(device, entry) for device, entry in facts["devices"].items())
    if name == "qualify" and facts.get("tiers"):
        return ", ".join(f"{tier} {state}" for tier, state in facts["tiers"].items())
    state = str(data.get("state", ""))
    return "" if state in ("passed", "not run") else state


def _judged(device: str, entry: dict[str, Any]) -> str:
    reasons = entry.get("reasons") or []
    return f"{device}: {entry.get('verdict')}" + (f" ({reasons[0]})" if reasons else "")


# -- history -------------------------------------------------------------------------------------


def _history(shown: View) -> Markup:
    if not shown.finished:
        return el("p", "No job has ended yet.", class_="quiet")
    return join(
        [
            _plot("build-time", "Build time", shown, lambda run: run.build_s / 60 or None, _minutes),
            _plot("wheel-size", "Wheel size", shown, lambda run: run.wheel.get("size"), size),
            _nights(shown),
        ]
    )


def _minutes(value: float) -> str:
    return f"{value:.0f} min" if value >= 10 or value == int(value) else f"{value:.1f} min"


def _plot(
    name: str, title: str, shown: View, value: Callable[[Run], float | None], show: Callable[[float], str]
) -> Markup:
    """A line for each job that ever had a value, a column for each night."""
    nights = list(dict.fromkeys(run.night for run in shown.finished))[-SHOWN_COLUMNS:]
    points: dict[str, dict[str, float]] = {}
    for run in shown.finished:
        found = value(run)
        if found is not None and run.night in nights:
            points.setdefault(run.job, {})[run.night] = float(found)
    series = [
        plots.Series(job, [known.get(night) for night in nights]) for job, known in sorted(points.items())
    ]
    heading = el("h3", title, id=name)
    if not series:
        return el("section", heading, el("p", "No values yet.", class_="quiet"), aria_labelledby=name)
    legend = el(
        "ul",
        [el("li", plots.legend_mark(number), " ", one.name) for number, one in enumerate(series)],
        class_="legend",
    )
    drawn = plots.lines(f"{name}-plot", f"{title} of each job by night", nights, series, show)
    rows = [
        el("tr", el("th", night, scope="row"), [el("td", _number(one.values[at], show)) for one in series])
        for at, night in enumerate(nights)
    ]
    head = el("tr", el("th", "night", scope="col"), [el("th", one.name, scope="col") for one in series])
    return _figure(
        name,
        title,
        heading,
        [legend, _scrolling(f"{name}-box", f"plot: {title}", drawn)],
        head=head,
        rows=rows,
    )


def _number(value: float | None, show: Callable[[float], str]) -> str:
    return "none" if value is None else show(value)


def _nights(shown: View) -> Markup:
    nights = shown.nights[-SHOWN_COLUMNS:]
    heading = el("h3", "Failing nights", id="failing")
    drawn = plots.bars("failing-plot", "Green and red jobs by night", nights)
    rows = [
        el("tr", el("th", night, scope="row"), el("td", green), el("td", red)) for night, green, red in nights
    ]
    head = el("tr", [el("th", name, scope="col") for name in ("night", "green", "red")])
    words = el("p", "Hatched: red jobs; plain: green ones.", class_="quiet")
    return _figure(
        "failing",
        "Failing nights",
        heading,
        [words, _scrolling("failing-box", "plot: failing nights", drawn)],
        head=head,
        rows=rows,
    )


def _figure(
    name: str, title: str, heading: Markup, drawn: list[Markup], *, head: Markup, rows: list[Markup]
) -> Markup:
    table = el("table", el("caption", f"{title} by night"), el("thead", head), el("tbody", rows))
    numbers = el(
        "details",
        el("summary", f"{title} in numbers"),
        _scrolling(f"{name}-numbers", f"{title} in numbers", table),
    )
    return el("section", heading, drawn, numbers, aria_labelledby=name)


# -- failures ------------------------------------------------------------------------------------


def _failures(shown: View) -> Markup:
    if not shown.failures:
        return el("p", "No job has failed.", class_="quiet")
    newest = {cell.run.id for cell in shown.cells.values() if cell.run}
    parts = [_failure(run, is_open=run.id in newest) for run in shown.failures[:SHOWN_FAILURES]]
    left = len(shown.failures) - SHOWN_FAILURES
    if left > 0:
        parts.append(el("p", f"{left} older failures are in the feed.", class_="quiet"))
    return join(parts)


def _failure(run: Run, *, is_open: bool) -> Markup:
    inner = [el("p", run.reason or "no reason was recorded"), *map(_failed_step, run.failed_steps())]
    where = el("p", f"run {run.id} on {run.host}, compiler cache: {run.cache}", class_="quiet")
    summary = el("summary", f"{run.job}, {run.ended[:16].replace('T', ' ')} UTC")
    return el("details", summary, inner, where, id=run.anchor, open=is_open)


def _failed_step(data: dict[str, Any]) -> Markup:
    name = str(data.get("step", ""))
    findings = data.get("findings") or []
    words = [
        pair
        for one in findings
        for pair in (
            _pair("cause", f"{one.get('cause')} ({one.get('id')})"),
            _pair("what to do", str(one.get("fix"))),
        )
    ]
    diagnosis = (
        el("dl", words) if words else el("p", "No known failure was recognised in the log.", class_="quiet")
    )
    command = el("p", el("code", " ".join(map(str, data.get("command") or []))))
    excerpt = el("pre", el("code", "\n".join(map(str, data.get("excerpt") or ["(no output)"]))))
    code = data.get("exit")
    return el(
        "section",
        el("h3", f"{name}: exit code {code}" if code is not None else name),
        command,
        diagnosis,
        _scrolling("", f"last lines of {name}", excerpt),
    )


def _scrolling(name: str, label: str, content: Markup) -> Markup:
    """A box that scrolls sideways by keyboard, too."""
    return el("div", content, id=name or None, class_="scroll", role="group", aria_label=label, tabindex=0)
