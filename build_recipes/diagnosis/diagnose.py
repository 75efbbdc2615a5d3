"""What went wrong, from a log: the known failures in it, the first cause first.

Reads logs of builds, of pip, of a vLLM start. A log is read once, in blocks, so memory stays flat; each block
is searched for a few literal texts before any regex is tried.
"""

from __future__ import annotations

import collections
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_recipes.diagnosis.signatures import Index, Rule, known_index, plain
from build_recipes.kit.errors import CouldNotCheck

BLOCK = 1 << 20
"""Bytes read at a time. A line longer than this is looked at in pieces."""
TAIL = 20
"""Lines of a failing unit, or of the log's end, that are kept."""
_WIDTH = 400
"""Longest text of a finding, characters."""
_LONGEST = 4000
"""Longest line that is kept in a tail, bytes."""
_RANK = {"cause": 0, "hint": 0, "symptom": 1}
_UNIT_ENDS = re.compile(
    rb"^(?:\S+Z |#\d+ [\d.]+ +)?[ \t]*(?:\[\d+/\d+\] |ninja: |g?make: \*\*\*)", re.MULTILINE
)


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
    """Whether it is the one to look at: the first cause. At most one is."""


@dataclass(frozen=True)
class Diagnosis:
    """What a log says."""

    findings: tuple[Finding, ...]
    """Known failures, the first cause first, then what follows from it."""
    unknown: bool
    """Something failed, and no signature says what."""
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
        """The first cause, if one is known."""
        return self.findings[0] if self.findings else None

    @property
    def failed(self) -> bool:
        """Whether the log shows a failure, known or not."""
        return bool(self.findings) or self.unknown

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return asdict(self)


def diagnose(lines: Iterable[str | bytes], index: Index | None = None) -> Diagnosis:
    """Diagnose lines (with or without their newline) or whole pieces of text.

    :param index: of the signatures to look for; the project's where it is not given.
    """
    return _Reader(index or known_index()).read(_blocks(lines))


def diagnose_file(path: Path | str, index: Index | None = None) -> Diagnosis:
    """Diagnose a file, or standard input for ``-``.

    :raises CouldNotCheck: the file cannot be read, or is not text.
    """
    reader = _Reader(index or known_index())
    if str(path) == "-":
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
            return reader.read(_text_only(_chunks(stream.read), "standard input"))
    try:
        with Path(path).open("rb", buffering=0) as stream:
            return reader.read(_text_only(_chunks(stream.read), str(path)))
    except OSError as error:
        raise CouldNotCheck(
            f"{path} cannot be read: {error.strerror}", "give the path of a log, or - for standard input"
        ) from error


class _Reader:
    """One pass over one log."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._found: dict[str, tuple[Rule, int, str]] = {}
        self._failed = False
        self._unit: str | None = None
        self._unit_tail: collections.deque[str] | None = None
        self._unit_open = False
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL)
        self._lines = 0
        self._open_line = False
        self._octets = 0

    def read(self, blocks: Iterable[bytes]) -> Diagnosis:
        for block in blocks:
            self._block(block)
        return self._conclude()

    def _block(self, block: bytes) -> None:
        counted_to, line = 0, self._lines + 1
        if self._unit_open:
            self._collect(block, 0)
        for start, end, rules in self._index.candidates(block):
            line += block.count(b"\n", counted_to, start)
            counted_to = start
            text = plain(block[start:end])
            for rule in rules:
                match = rule.pattern.search(text)
                if match is None:
                    continue
                if rule.signature.kind == "wrapper":
                    self._wrapper(match, block, end)
                else:
                    self._found.setdefault(rule.signature.id, (rule, line, _around(text, match)))
        self._lines += block.count(b"\n")
        self._open_line = not block.endswith(b"\n")
        self._octets += len(block)
        self._tail.extend(plain(raw[-_LONGEST:]) for raw in block.rstrip(b"\n").rsplit(b"\n", TAIL)[-TAIL:])

    def _wrapper(self, match: re.Match[str], block: bytes, end: int) -> None:
        self._failed = True
        unit = next((value for value in match.groupdict().values() if value), None)
        if unit and self._unit is None:
            self._unit = unit
            self._unit_tail = collections.deque(maxlen=TAIL)
            self._unit_open = True
            self._collect(block, end + 1)

    def _collect(self, block: bytes, start: int) -> None:
        """Keep the last lines of the failing unit's output, which ends where the next unit begins."""
        assert self._unit_tail is not None
        stop = _UNIT_ENDS.search(block, start)
        piece = block[start : stop.start() if stop else len(block)].rstrip(b"\n")
        if piece:
            self._unit_tail.extend(plain(raw[-_LONGEST:]) for raw in piece.rsplit(b"\n", TAIL)[-TAIL:])
        self._unit_open = stop is None

    def _conclude(self) -> Diagnosis:
        for text in self._tail:
            self._failed = self._failed or any(rule.pattern.search(text) for rule in self._index.at_end)
        kinds = {rule.signature.kind for rule, _, _ in self._found.values()}
        failed = self._failed or bool(kinds - {"hint"})
        shown = self._found if failed else {}
        hidden = {name for rule, _, _ in shown.values() for name in rule.signature.hides}
        ordered = sorted(
            shown.values(),
            key=lambda found: (
                found[0].signature.id in hidden,
                _RANK[found[0].signature.kind],
                found[1],
                found[0].order,
            ),
        )
        findings = tuple(_finding(*found, primary=place == 0) for place, found in enumerate(ordered))
        unknown = failed and not findings
        tail = self._unit_tail if self._unit_tail else self._tail
        return Diagnosis(
            findings,
            unknown,
            self._unit,
            tuple(tail) if unknown else (),
            self._lines + self._open_line,
            self._octets,
        )


def _finding(rule: Rule, line: int, text: str, *, primary: bool) -> Finding:
    known_as = rule.signature
    return Finding(known_as.id, line, text, known_as.cause, known_as.fix, tuple(known_as.sources), primary)


def _around(text: str, match: re.Match[str]) -> str:
    """The line, or the part of a very long one that holds the match."""
    if len(text) <= _WIDTH:
        return text.strip()
    start = max(0, match.start() - _WIDTH // 4)
    return f"...{text[start : start + _WIDTH]}..."


def _blocks(lines: Iterable[str | bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        raw = line.encode("utf-8", "replace") if isinstance(line, str) else line
        raw = raw if raw.endswith(b"\n") else raw + b"\n"
        gathered.append(raw)
        size += len(raw)
        if size >= BLOCK:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _chunks(read: Any) -> Iterator[bytes]:
    """Blocks that end at a line's end, except where one line is longer than a block."""
    rest = b""
    while piece := read(BLOCK):
        cut = piece.rfind(b"\n") + 1
        if not cut and len(rest) + len(piece) < BLOCK:
            rest += piece
            continue
        if not cut:
            yield rest + piece
            rest = b""
            continue
        yield rest + piece[:cut]
        rest = piece[cut:]
    if rest:
        yield rest


def _text_only(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Pass blocks on; refuse a first block that is no text."""
    first = next(blocks, b"")
    head = first[:65536]
    if head.count(0) > len(head) // 50 or head.startswith(
        (b"\x1f\x8b", b"PK\x03\x04", b"\x7fELF", b"\x28\xb5\x2f\xfd")
    ):
        raise CouldNotCheck(
            f"{name} is not text (first bytes {head[:4].hex(' ')}, {head.count(0)} NULs in {len(head)})",
            "unpack or convert it first (zcat, zstdcat, iconv -f UTF-16), or give the log itself",
        )
    if first:
        yield first
    yield from blocks
