"""One line of the page for each device and tag: what it is, how old that is, and what to type to have it."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, urlsplit

from build_recipes.facts import versions
from build_recipes.facts.device import devices
from build_recipes.kit.console import duration, size
from build_recipes.nightly.page import verdict as verdicts
from build_recipes.nightly.page.verdict import Verdict, verdict
from build_recipes.nightly.page.view import Cell, Night, Run, View
from build_recipes.nightly.publishing.catalogue import release_tag

COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class Link:
    """A text, and where it leads; no address where there is none that may be followed."""

    text: str
    href: str = ""


@dataclass(frozen=True)
class Mark:
    """One night of a strip."""

    day: str
    style: str
    """``good``, ``bad``, ``wait``, ``plain``, ``skip`` or ``none``."""
    word: str
    href: str = ""


@dataclass(frozen=True)
class Row:
    """One line."""

    label: str
    device: str
    job: str
    shown: Verdict
    running: bool
    failed: Link | None
    """The step that failed, and its log excerpt in this page."""
    reason: str
    """Of the failure, or of not being built."""
    strip: list[Mark]
    strip_words: str
    gpu: str
    """Whether a GPU ran it; empty where nothing was built."""
    facts: list[tuple[str, str]]
    """Audit, vllm-omni, build: a name and what is said of it."""
    wheel: Link | None
    wheel_size: str
    install: str
    """A line to copy; empty where there is nothing to install."""
    when: str
    age: str
    stale: bool
    links: list[tuple[str, Link]]
    """Commits and the workflow's run."""
    badge: str
    """File name without its ending."""


@dataclass(frozen=True)
class Group:
    """The lines of one device."""

    device: str
    title: str
    rows: list[Row]


@dataclass(frozen=True)
class Drawing:
    """What a page is drawn with."""

    now: datetime.datetime
    wheels_url: str = ""
    """Where releases' files are downloaded from: below it come a release's tag and a file's name."""
    index_url: str = ""
    stale_days: int = 3
    strip: int = 14


def groups(shown: View, how: Drawing) -> list[Group]:
    """The lines by device, in the order of devices.toml; tags the newest first."""
    order = list(devices())
    names = sorted(shown.devices, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [
        Group(
            device,
            devices()[device].title if device in devices() else device,
            [
                row(shown, label, device, shown.cells[label, device], how)
                for label in shown.labels
                if (label, device) in shown.cells
            ],
        )
        for device in names
    ]


def row(shown: View, label: str, device: str, cell: Cell, how: Drawing) -> Row:
    """The line of a cell."""
    run, skip = cell.run, cell.skip
    job = run.job if run else f"{label}-{device}"
    if run:
        word = verdict(run)
    elif cell.running:
        word = verdict(cell.running)
    else:
        word = Verdict("not built", "plain", "\N{EN DASH}")
    reason = run.reason if run and run.state != "green" else ""
    if skip and not skip.green:
        reason = skip.reason
    days = age_days(cell.news, how.now)
    good, stale = run is not None and run.state == "green" and word.style != "bad", days > how.stale_days
    short = verdicts.size_word(run) if run else ""
    ready = good and word.style == "good"
    if stale and ready:
        word = Verdict(f"{word.word}, stale", "wait", verdicts.WAIT)
    marks = [mark(day, cell.nights.get(day)) for day in shown.days[-how.strip :]]
    wheel = str(run.wheel.get("name") or "") if run else ""
    release = f"{how.wheels_url}/{release_tag(label)}"
    address = f"{release}/{quote(wheel)}" if how.wheels_url and wheel and good and not short else ""
    return Row(
        label=label,
        device=device,
        job=job,
        shown=word,
        running=cell.running is not None and run is not None,
        failed=Link(str(run.failed.get("step") or "why"), f"#{run.anchor}")
        if run and run.state == "red"
        else None,
        reason=reason,
        strip=marks,
        strip_words=words_of(marks),
        gpu=verdicts.gpu(run) if run and run.state == "green" else "",
        facts=facts(run) if run else [],
        wheel=Link(wheel, safe(address)) if wheel else None,
        wheel_size=size(float(run.wheel.get("size") or 0)) if run and wheel else "",
        install=install(wheel, address, how) if ready else "",
        when=minute(cell.news),
        age=age(days),
        stale=stale,
        links=links(run) if run else [],
        badge=slug(job),
    )


def mark(day: str, night: Night | None) -> Mark:
    """One night of a cell."""
    if night is None:
        return Mark(day, "none", "not run")
    if night.run is None:
        same = night.reason.startswith("green already")
        return Mark(day, "skip" if same else "none", "unchanged" if same else f"not run: {night.reason}")
    if night.state in ("green", "red"):
        shown = verdict(night.run)
        return Mark(day, shown.style, shown.word, f"#{night.run.anchor}" if night.state == "red" else "")
    return Mark(day, "wait", night.state)


def words_of(marks: Sequence[Mark]) -> str:
    """A strip in a sentence."""
    names = {
        "good": "good",
        "bad": "bad",
        "wait": "unfinished",
        "plain": "other",
        "skip": "skipped",
        "none": "not run",
    }
    count = Counter(names[one.style] for one in marks)
    return f"last {len(marks)} nights: " + ", ".join(f"{number} {name}" for name, number in count.items())


def facts(run: Run) -> list[tuple[str, str]]:
    """What was found out about a run, a few words each."""
    rows = [
        ("audit", word + (f": {reason}" if reason else ""))
        for _, word, reason in verdicts.audits(run)
        if (word, reason) != ("ready", "")
    ]
    rows += [("vllm-omni", f"{version}: {said}") for version, said in verdicts.omni(run)]
    if run.build_s:
        got = run.steps["build"].get("facts") or {}
        cached = f", {got['cached']} of {got.get('units', '?')} units cached" if got.get("cached") else ""
        rows.append(("built in", "up to date" if got.get("up_to_date") else duration(run.build_s) + cached))
    if run.attempts > 1:
        rows.append(("nights", str(run.attempts)))
    return rows


def install(wheel: str, address: str, how: Drawing) -> str:
    """What to type to have a wheel; empty where it is nowhere to be had.

    The version names the device, so with an index no other build can be taken for it.
    """
    parts = wheel.split("-")
    if how.index_url and len(parts) > 2:
        return f'pip install "{parts[0]}=={parts[1]}" --extra-index-url {how.index_url}'
    return f'pip install "{address}"' if address else ""


def links(run: Run) -> list[tuple[str, Link]]:
    """The commits that ran and were built, and the workflow's run."""
    repository = safe(run.url).partition("/actions/runs/")[0] if "/actions/runs/" in run.url else ""
    rows = []
    if COMMIT.fullmatch(run.ref) and len(run.ref) == 40:
        rows.append(("vLLM", Link(run.ref[:9], f"{versions.facts().repository}/commit/{run.ref}")))
    if COMMIT.fullmatch(run.commit):
        rows.append(
            ("built by", Link(run.commit[:9], f"{repository}/commit/{run.commit}" if repository else ""))
        )
    if safe(run.url):
        rows.append(("", Link("run and logs", safe(run.url))))
    elif run.host:
        rows.append(("on", Link(run.host)))
    return rows


def safe(address: str) -> str:
    """An address that a page may lead to (https, with a host), else an empty text. Feeds come from other machines."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return address if parts.scheme in ("https", "http") and parts.hostname else ""


def slug(text: str) -> str:
    """A file's name for a job: nothing that a path or an address could take for something else, and no two jobs'."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip(".-")[:100]
    return plain if plain and plain == text else f"{plain or 'job'}-{sha256(text.encode()).hexdigest()[:8]}"


def minute(when: str) -> str:
    """``2026-11-20 03:14`` of a time stamp."""
    return when[:16].replace("T", " ")


def age_days(when: str, now: datetime.datetime) -> float:
    """Days since a time stamp; 0 where it is none or in the future."""
    try:
        then = datetime.datetime.fromisoformat(when.replace("Z", "+00:00"))
        return max(0.0, (now - then).total_seconds() / 86400)
    except (ValueError, TypeError):
        return 0.0


def age(days: float) -> str:
    """A number of days in words."""
    if days < 1:
        return f"{days * 24:.0f} h ago"
    return "1 day ago" if days < 2 else f"{days:.0f} days ago"
