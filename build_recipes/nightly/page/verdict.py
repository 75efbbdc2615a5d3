"""What a run came to, in a word that promises no more than was shown: a green run whose wheel is not usable, or is a
smoke build, is not called green."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from build_recipes.formats.wheel import incomplete
from build_recipes.nightly.page.view import Run

GPU_TIERS = ("kernels", "generate")
"""Tiers of `invoke qualify` that run vLLM's code on a GPU."""


@dataclass(frozen=True)
class Verdict:
    """A word and how it looks."""

    word: str
    style: str
    """``good``, ``bad``, ``wait`` or ``plain``: a class of the style sheet, and the colour of the badge."""
    mark: str
    """A sign before the word, so that it is not told by its colour alone."""


GOOD, BAD, WAIT, ON, PLAIN = "\N{CHECK MARK}", "\N{BALLOT X}", "!", "\N{RIGHTWARDS ARROW}", "\N{BLACK CIRCLE}"


def verdict(run: Run) -> Verdict:
    """The word for a run."""
    if run.state == "red":
        step = str(run.failed.get("step") or "")
        return Verdict(f"failed in {step}" if step else "failed", "bad", BAD)
    if run.state == "checkpointed":
        return Verdict("goes on next night", "wait", ON)
    if run.state == "interrupted":
        return Verdict("interrupted", "wait", WAIT)
    if run.state != "green":
        return Verdict("running", "plain", "\N{HORIZONTAL ELLIPSIS}")
    audited, short = audits(run), size_word(run)
    if short == "smoke":
        return Verdict("smoke passed", "plain", PLAIN)
    if any(word == "not usable" for _, word, _ in audited):
        return Verdict("not usable", "bad", BAD)
    if short:
        return Verdict(short, "plain", PLAIN)
    if not audited:
        return Verdict("built, not audited", "wait", WAIT)
    slow = next((word for _, word, _ in audited if word != "ready"), "")
    return Verdict(slow or "ready", "good", GOOD)


def size_word(run: Run) -> str:
    """``smoke`` or ``partial``; empty for a whole wheel."""
    parts = str(run.wheel.get("name") or "").split("-")
    word = incomplete(parts[1]) if len(parts) > 2 else ""
    return word or ("smoke" if run.label.endswith("-smoke") else "")


def audits(run: Run) -> list[tuple[str, str, str]]:
    """Device, verdict and first reason of the audit."""
    facts = run.steps.get("audit", {}).get("facts") or {}
    return [
        (str(device), str(entry.get("verdict")), str((entry.get("reasons") or [""])[0]))
        for device, entry in (facts.get("devices") or {}).items()
    ]


def gpu(run: Run) -> str:
    """Whether a GPU ran what was built, in words."""
    tiers: dict[str, Any] = (run.steps.get("qualify", {}).get("facts") or {}).get("tiers") or {}
    passed = [name for name in GPU_TIERS if tiers.get(name) == "passed"]
    return f"ran on a GPU: {', '.join(passed)}" if passed else "no GPU ran this"


def omni(run: Run) -> list[tuple[str, str]]:
    """Each vllm-omni that was tried, and what came of it, in the log's own count."""
    rows = []
    for name, data in run.steps.items():
        facts = data.get("facts") or {}
        if name.split(" ")[0] != "omni" or not facts:
            continue
        said = str(facts.get("counted") or "")
        if facts.get("breaks") and not said:
            said = f"{facts['breaks']} breaks"
        rows.append((str(facts.get("omni")), said or str(facts.get("verdict", "")).replace("-", " ")))
    return rows
