"""Which of the things that a log reports is the one to look at, and which known failure it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from build_recipes.diagnosis.events import Event
from build_recipes.diagnosis.excerpts import around
from build_recipes.diagnosis.prefix import strip
from build_recipes.diagnosis.signatures import Rule

_KINDS = {"cause": 0, "hint": 1, "symptom": 2}
_LONGEST = 8000
"""Characters of one report that signatures are held against."""

STRONG, GENERIC, MUTED, LATE, LOGGED, HINT, UNIT, WRAPPER = 0.0, 0.5, 0.95, 1.0, 1.5, 1.8, 2.0, 3.0
"""Ranks: says what went wrong; the same by a tool that is not known; the same in a mere warning; a consequence; one
record of a log; may be harmless; a part that failed; an outer one."""


@dataclass
class Candidate:
    """One report, or one line that a signature fits, and how much it tells."""

    rank: float
    line: int
    text: str
    event: Event | None
    rule: Rule | None
    rule_line: int = 0
    rule_text: str = ""
    also: list[tuple[Rule, int, str]] = field(default_factory=list)
    """Other signatures that fit in the same report."""
    unsure: bool = False
    """It stands outside of the part that failed, and its tool is not known."""


def candidates(
    found: list[Event], hits: dict[str, tuple[Rule, int, str]], rules: Iterable[Rule]
) -> list[Candidate]:
    """All reports and all signatures that fit outside of them, the one to look at first."""
    every = tuple(rules)
    inside: set[int] = set()
    made = []
    for event in found:
        inside |= event.numbers
        made.append(_of_event(event, every))
    fitted = {one.rule.signature.id for one in made if one.rule}
    for rule, line, text in hits.values():
        if line in inside or rule.quoted or rule.signature.id in fitted:
            continue
        rank = {"cause": STRONG, "hint": HINT, "symptom": LATE}[rule.signature.kind]
        if rank < HINT and strip(text).level in ("debug", "info", "warning"):
            rank = max(rank, MUTED)
        made.append(Candidate(rank, line, text, None, rule, line, text))
    hidden = {name for one in made if one.rule for name in one.rule.signature.hides}
    made.sort(key=lambda one: (_rank(one, hidden), one.unsure, one.line))
    return made


def _rank(one: Candidate, hidden: set[str]) -> float:
    if one.rule and one.rule.signature.id in hidden:
        return max(one.rank, LATE)
    return one.rank


def _of_event(event: Event, rules: tuple[Rule, ...]) -> Candidate:
    rank = {
        "error": STRONG if event.tool else GENERIC,
        "after": LATE,
        "logged": LOGGED,
        "unit": UNIT,
        "wrapper": WRAPPER,
    }[event.role]
    made = Candidate(
        rank,
        event.line.number,
        event.line.shown.strip(),
        event,
        None,
        unsure=not event.unit and event.tool == "",
    )
    best: tuple[int, int, int, Rule, int, str] | None = None
    lines = [(0 if at == 0 else 1, line) for at, line in enumerate(event.heads)] + [
        (2, line) for line in event.body
    ]
    whole = "\n".join(line.text for _, line in lines)[:_LONGEST]
    joined = " ".join(whole.split())
    fits: list[tuple[int, int, int, Rule, int, str]] = []
    for rule in rules:
        kind = _KINDS[rule.signature.kind]
        if rule.quoted and not any(rule.quoted.search(text) for text in event.quoted.values()):
            continue
        if not any(needle in whole or " ".join(needle.split()) in joined for needle in rule.needles):
            continue
        for place, line in lines:
            if any(needle in line.text for needle in rule.needles) and (
                match := rule.pattern.search(line.text)
            ):
                fits.append((kind, place, rule.order, rule, line.number, around(line.shown, match)))
                break
        else:
            if match := rule.pattern.search(joined):
                fits.append((kind, 1, rule.order, rule, event.line.number, around(joined, match)))
    hidden = {name for fit in fits for name in fit[3].signature.hides}
    shown = [fit for fit in fits if fit[3].signature.id not in hidden] or fits
    best = min(shown, key=lambda fit: fit[:3], default=None)
    if best is not None:
        made.rule, made.rule_line, made.rule_text = best[3:]
        made.unsure = False
        made.also = [fit[3:] for fit in sorted(fits, key=lambda fit: fit[:3]) if fit is not best]
        word = best[3].signature.kind
        if word == "cause":
            made.rank = STRONG if event.role in ("error", "after", "logged") else 0.9
        elif word == "symptom" and made.rank < LATE:
            made.rank = LATE
        elif word == "hint" and made.rank > HINT:
            made.rank = HINT
    return made
