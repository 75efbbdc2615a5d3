"""The parts of a log that are worth reading: lines that may report something, and what stands around them.

A log is read once, in blocks, and what is kept of it is bounded. A block is searched for a few words that every
report of an error has; where none stands, nothing is looked at closely.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from build_recipes.diagnosis.prefix import Line, plain, strip
from build_recipes.diagnosis.signatures import Index, Rule

TAIL = 20
"""Lines of a failing unit, or of the log's end, that are kept."""
_BEFORE, _AFTER = 40, 30
"""Lines kept around a line that may report something."""
_LONGEST = 4000
"""Longest line that is kept, bytes."""
_MOST, _LAST = 3 << 20, 1 << 20
"""Bytes kept from the first reports on, and of the last ones where there are more."""
_ENOUGH = 200_000
"""Reports after which only signatures are looked for."""
_SEARCHED = 1 << 16
"""Bytes of one line that are looked at."""
_CARRY = 1 << 16
"""Bytes of a block that are kept for what stands before the next block's first report."""

_UNIT = re.compile(rb"\bFAILED: (?!\[code=75\])[^\n]*\n")
_UNIT_ENDS = re.compile(
    rb"^(?:\S+Z |#\d+ [\d.]+ +)?[ \t]*(?:\[\d+/\d+\] |ninja: |g?make: \*\*\*)", re.MULTILINE
)
_SUSPECT = re.compile(
    rb"""[Ee]rror(?:\x1b\[[\d;]*[mK])*(?:\[\w+\])?[ :(] | [a-z\])]Error\b | ERROR | \b[A-Z]\w*Error\b | xception\b
    | [Ff]atal[ :] | FATAL | FAIL(?:ED|URE)?\b | \b[Ff]ailed\b | \b[Kk]illed\b | Aborted | Segmentation
    | Illegal[ ]in | Bus[ ]error | ot[ ]found\b | o[ ]such[ ]file | enied\b | ERR! | \*\*\*[ ] | CRITICAL
    | [ ]File[ ]"[^"]+",[ ]line | Traceback[ ]\(m | \bOutOf | imed[ ]out | refused | undefined[ ]ref | \bOOM
    | No[ ]route[ ] | unreachable\b | [Ee]rror['")\]]?[ ]*$ | panicked | NCCL[ ]WARN | (?:^|[ |])E:[ ] | \xc3\x97[ ]
    | what\(\): | Xid
    | \bexit(?:ed)?[ ](?:code|status)[ :]+[1-9]
    | \b[Cc]annot[ ](?:open|find|allocate|connect|import|load|be|create|execute|read|write|access|install|stat|fork
      |use|get|provide)""",
    re.VERBOSE,
)


@dataclass
class Excerpts:
    """What was kept of a log."""

    lines: int = 0
    octets: int = 0
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    """Number of the first line, and whole lines, in order."""
    last: collections.deque[tuple[int, bytes]] = field(default_factory=collections.deque)
    """The same for the last reports, once `pieces` is full."""
    hits: dict[str, tuple[Rule, int, str]] = field(default_factory=dict)
    """Signatures by id: the first line that one of them fits, and that line."""
    tail: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=TAIL))
    """The log's last lines."""
    unit_tail: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=TAIL))
    """The last lines of what the first unit that failed said."""

    def read(self) -> Iterator[list[Line]]:
        """The kept parts as lines, each a run without a gap."""
        run: list[Line] = []
        for first, raw in (*self.pieces, *self.last):
            if run and first != run[-1].number + 1:
                yield run
                run = []
            rows = raw.split(b"\n")
            rows = rows[:-1] if not rows[-1] else rows
            run.extend(strip(plain(_cut(row)), first + at) for at, row in enumerate(rows))
        if run:
            yield run


def collect(blocks: Iterable[bytes], index: Index) -> Excerpts:
    """Read a log.

    :param blocks: of whole lines, except where one line is longer than a block.
    """
    collector = _Collector(index)
    for block in blocks:
        collector.block(block)
    return collector.finish()


class _Collector:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._kept = Excerpts()
        self._carry = b""
        self._after = 0
        """Lines still wanted from the next block."""
        self._kept_to = 0
        """Number of the last line that is kept."""
        self._size = 0
        self._last_size = 0
        self._open = False
        self._reports = 0
        self._unit: bool | None = None
        """Whether the first failed unit still speaks; None before there is one."""

    def block(self, block: bytes) -> None:
        kept = self._kept
        first = kept.lines + 1
        if self._after:
            end = _forward(block, 0, self._after)
            self._after -= block.count(b"\n", 0, end)
            self._keep(first, block[:end])
        found = self._reported(block, first)
        if found or self._unit:
            self._unit_says(block)
        marks = sorted(found)
        counted, line = 0, first
        for start in marks:
            line += block.count(b"\n", counted, start)
            counted = start
            self._around(block, start, line)
        kept.lines += block.count(b"\n")
        kept.octets += len(block)
        self._open = not block.endswith(b"\n")
        kept.tail.extend(plain(raw[-_LONGEST:]) for raw in block.rstrip(b"\n").rsplit(b"\n", TAIL)[-TAIL:])
        self._carry = block[-_CARRY:] if len(block) > _CARRY else (self._carry + block)[-_CARRY:]

    def finish(self) -> Excerpts:
        self._kept.lines += self._open
        return self._kept

    def _unit_says(self, block: bytes) -> None:
        """Keep the last lines of the first failed unit's output, which ends where the next unit begins."""
        start = 0
        if self._unit is None and b"FAILED: " in block and (found := _UNIT.search(block)):
            self._unit, start = True, found.end()
        if self._unit:
            stop = _UNIT_ENDS.search(block, start)
            piece = block[start : stop.start() if stop else len(block)].rstrip(b"\n")
            if piece:
                self._kept.unit_tail.extend(
                    plain(raw[-_LONGEST:]) for raw in piece.rsplit(b"\n", TAIL)[-TAIL:]
                )
            self._unit = stop is None

    def _reported(self, block: bytes, first: int) -> set[int]:
        """Starts of the lines that a signature fits, or that may report an error."""
        found: set[int] = set()
        fits: list[tuple[int, int, list[Rule]]] = []
        for start, end, rules, word in self._index.candidates(block):
            if word and _SUSPECT.search(block, start, min(end, start + _SEARCHED)):
                found.add(start)
            if rules:
                fits.append((start, end, rules))
        for word_raw, entries in self._index.common.items() if self._reports < _ENOUGH else ():
            for start, end in _lines_with(block, word_raw):
                if start not in found and _SUSPECT.search(block, start, min(end, start + _SEARCHED)):
                    found.add(start)
                raw = block[start:end]
                text = plain(raw)
                rules = [rule for needle, rule in entries if needle in text]
                if rules:
                    fits.append((start, end, rules))
        self._reports += len(found)
        counted, line = 0, first
        for start, end, rules in sorted(fits, key=lambda fit: fit[0]):
            line += block.count(b"\n", counted, start)
            counted = start
            text = plain(block[start:end])
            for rule in rules:
                match = rule.pattern.search(text)
                if match is not None:
                    found.add(start)
                    self._kept.hits.setdefault(rule.signature.id, (rule, line, around(text, match)))
        return found

    def _around(self, block: bytes, start: int, line: int) -> None:
        """Keep a line with what stands before and after it."""
        wanted = max(self._kept_to + 1, line - _BEFORE)
        if wanted <= line:
            begin, at = start, line
            while at > wanted and begin > 0:
                begin = block.rfind(b"\n", 0, begin - 1) + 1
                at -= 1
            if at > wanted and begin == 0 and self._carry and not self._open:
                rows = self._carry.splitlines(keepends=True)[-(at - wanted) :]
                self._keep(at - len(rows), b"".join(rows))
            end = _forward(block, start, _AFTER + 1)
            self._keep(at, block[begin:end])
        else:
            end = _forward(block, start, _AFTER + 1)
            skip = self._kept_to - line + 1
            begin = _forward(block, start, skip)
            if begin < end:
                self._keep(self._kept_to + 1, block[begin:end])
        self._after = max(0, line + _AFTER - self._kept_to) if end >= len(block) else 0

    def _keep(self, first: int, raw: bytes) -> None:
        if not raw:
            return
        rows = raw.count(b"\n") + (not raw.endswith(b"\n"))
        if len(raw) > _LONGEST * (rows + 4):
            raw = b"\n".join(_cut(row) for row in raw.split(b"\n"))
        self._kept_to = first + rows - 1
        kept = self._kept
        if self._size < _MOST:
            kept.pieces.append((first, raw))
            self._size += len(raw)
            return
        kept.last.append((first, raw))
        self._last_size += len(raw)
        while self._last_size > _LAST and len(kept.last) > 1:
            self._last_size -= len(kept.last.popleft()[1])


def _cut(row: bytes) -> bytes:
    """A row that is not too long: its beginning and its end."""
    return row if len(row) <= _LONGEST else row[: _LONGEST // 2] + b" ... " + row[-_LONGEST // 2 :]


def _lines_with(block: bytes, word: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each line that holds a word."""
    at = block.find(word)
    while at >= 0:
        start = block.rfind(b"\n", 0, at + 1) + 1
        end = block.find(b"\n", at + 1)
        end = len(block) if end < 0 else end
        yield start, end
        at = block.find(word, end)


def _forward(block: bytes, start: int, lines: int) -> int:
    """Offset behind so many lines."""
    at = start
    for _ in range(lines):
        at = block.find(b"\n", at) + 1
        if not at:
            return len(block)
    return at


_WIDTH = 400
"""Longest text of a finding, characters."""


def around(text: str, match: re.Match[str]) -> str:
    """The line, or the part of a very long one that holds the match."""
    if len(text) <= _WIDTH:
        return text.strip()
    start = max(0, match.start() - _WIDTH // 4)
    return f"...{text[start : start + _WIDTH]}..."
