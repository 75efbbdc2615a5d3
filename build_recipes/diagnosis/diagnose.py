"""What went wrong, from a log: the report to look at, who made it, and the known failure that it is.

Reads logs of builds, of package managers, of containers, of a vLLM start. A log is read once, in blocks, and what is
kept of it is bounded (`excerpts`); then its reports are understood (`events`) and weighed (`choose`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from build_recipes.diagnosis import blocks, grammar, subject
from build_recipes.diagnosis.choose import LOGGED, MUTED, Candidate, candidates
from build_recipes.diagnosis.events import Event, events
from build_recipes.diagnosis.excerpts import Excerpts, collect
from build_recipes.diagnosis.prefix import Line, strip
from build_recipes.diagnosis.signatures import Index, known_index
from build_recipes.kit.errors import CouldNotCheck

BLOCK = blocks.BLOCK
_CONTEXT = 12
"""Lines of context, at most."""
_WIDTH = 400
"""Longest line of a report, characters."""

State = Literal["healthy", "known", "unknown", "unfinished"]
"""Nothing failed; it failed and the cause is known; it failed and is not known; no error, and no end either."""


@dataclass(frozen=True)
class Finding:
    """A known failure in a log."""

    id: str
    line: int
    """Number of the first line that shows it, from 1."""
    text: str
    """That line."""
    cause: str
    fix: str
    sources: tuple[str, ...]
    primary: bool
    """Whether it is the one to look at. At most one is."""


@dataclass(frozen=True)
class Report:
    """The report to look at, known or not."""

    line: int
    """Its number, from 1."""
    text: str
    """That line, without what wraps it."""
    tool: str
    """Who said it: ``nvcc``, ``cmake``, ``python``, ``nccl``; empty where it cannot be told."""
    phase: str
    """``prepare``, ``configure``, ``compile``, ``link``, ``start``, ``run``, or empty."""
    package: str
    """The package at fault, where something tells."""
    unit: str
    """The part of the build that failed: an object file, a docker step."""
    source: str
    """The process that said it (``EngineCore``)."""
    context: tuple[str, ...]
    """Lines that belong to it, in the log's order, itself among them."""
    look: str
    """Where to look; true of all that this tool reports."""
    send: str
    """What to send to those who know more."""


@dataclass(frozen=True)
class Diagnosis:
    """What a log says."""

    state: State
    report: Report | None
    """The report to look at; None for a log without one."""
    findings: tuple[Finding, ...]
    """Known failures. The first is the cause where it is `primary`; others follow from it, or stand beside it."""
    unit: str | None
    """The first unit that failed: an object file, a package, a CMake file."""
    tail: tuple[str, ...]
    """Last lines of that unit's output, or of the log, where the failure is unknown."""
    lines: int
    """Lines read."""
    octets: int
    """Bytes read."""

    @property
    def primary(self) -> Finding | None:
        """The cause, if it is known."""
        return self.findings[0] if self.findings and self.findings[0].primary else None

    @property
    def failed(self) -> bool:
        """Whether the log shows a failure, known or not."""
        return self.state in ("known", "unknown")

    @property
    def unknown(self) -> bool:
        """Something failed, and no signature says what."""
        return self.state == "unknown"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {"state": self.state, "unknown": self.unknown, **asdict(self)}


def diagnose(lines: Iterable[str | bytes], index: Index | None = None) -> Diagnosis:
    """Diagnose lines (with or without their newline) or whole pieces of text.

    :param index: of the signatures to look for; the project's where it is not given.
    """
    index = index or known_index()
    return _conclude(collect(blocks.of_lines(lines), index), index)


def diagnose_file(path: Path | str, index: Index | None = None) -> Diagnosis:
    """Diagnose a file, or standard input for ``-``.

    :raises CouldNotCheck: the file cannot be read, or is not text.
    """
    index = index or known_index()
    if str(path) == "-":
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
            read = blocks.text_only(blocks.of_stream(stream.read), "standard input")
            return _conclude(collect(read, index), index)
    try:
        with Path(path).open("rb", buffering=0) as stream:
            return _conclude(
                collect(blocks.text_only(blocks.of_stream(stream.read), str(path)), index), index
            )
    except OSError as error:
        raise CouldNotCheck(
            f"{path} cannot be read: {error.strerror}", "give the path of a log, or - for standard input"
        ) from error


def _conclude(kept: Excerpts, index: Index) -> Diagnosis:
    runs = list(kept.read())
    found = events(runs)
    weighed = candidates(found, kept.hits, index.rules)
    ending = [strip(text) for text in kept.tail]
    well = any(grammar.ends_well(line.text) for line in ending[-8:]) or _running(ending)
    if not _failed(weighed, well):
        state: State = "healthy" if well else "unfinished"
        tail = tuple(kept.tail)[-3:] if state == "unfinished" else ()
        return Diagnosis(state, None, (), None, tail, kept.lines, kept.octets)
    first = weighed[0]
    findings = _findings(weighed, first)
    known = bool(findings) and findings[0].primary
    unit = (first.event.unit if first.event else "") or next(
        (event.unit for event in found if event.unit), None
    )
    report = _report(first, runs, unit, found)
    tail = () if known else tuple(kept.unit_tail or kept.tail)
    return Diagnosis("known" if known else "unknown", report, findings, unit, tail, kept.lines, kept.octets)


def _failed(weighed: list[Candidate], well: bool) -> bool:
    if not weighed:
        return False
    if not well:
        return any(one.event is not None or one.rank < LOGGED for one in weighed)
    return any(
        one.rank not in (LOGGED, MUTED) and not (one.rule and one.rule.signature.kind == "hint")
        for one in weighed
    )


def _running(ending: list[Line]) -> bool:
    """Whether a log ends in the records of a server at work."""
    records = [line for line in ending[-5:] if line.text]
    if records and records[-1].text.lower().startswith(("waiting for", "still waiting")):
        return False
    return bool(records) and all(line.level in ("info", "debug", "warning") for line in records)


def _findings(weighed: list[Candidate], first: Candidate) -> tuple[Finding, ...]:
    told: dict[str, Finding] = {}
    for one in weighed:
        fits = [(one.rule, one.rule_line, one.rule_text), *one.also] if one.rule else []
        for at, (rule, line, text) in enumerate(fits):
            known, primary = rule.signature, one is first and at == 0
            told.setdefault(
                known.id,
                Finding(known.id, line, text, known.cause, known.fix, tuple(known.sources), primary),
            )
    return tuple(told.values())


def _report(first: Candidate, runs: list[list[Line]], unit: str | None, found: list[Event]) -> Report:
    event = first.event
    if event is None:
        assert first.rule is not None
        line = strip(first.text, first.line)
        said = grammar.classify(line.text)
        event = Event(said.tool if said else "", "error", line, said.phase if said else "", [line])
    phase = first.rule.signature.phase if first.rule else event.phase
    family = grammar.family(event.tool)
    context = _context(event, runs)
    name = (first.rule.signature.package if first.rule else "") or subject.package(event)
    name = name or subject.around(context, phase, found)
    return Report(
        event.line.number,
        event.line.text[:_WIDTH],
        event.tool,
        phase,
        name,
        event.unit or unit or "",
        event.line.source,
        tuple(context),
        family.look,
        family.send,
    )


def _context(event: Event, runs: list[list[Line]]) -> list[str]:
    """A few lines that belong to a report, in the log's order."""
    own = event.numbers
    at = event.line.number
    near = [
        line
        for run in runs
        for line in run
        if line.source == event.line.source and at - 4 <= line.number <= at + 8
    ]
    chosen = {
        line.number: line for line in near if line.text and (line.number in own or abs(line.number - at) <= 3)
    }
    for line in event.heads:
        chosen[line.number] = line
    return [chosen[number].shown[:_WIDTH] for number in sorted(chosen)][:_CONTEXT]
