"""Known failures as data: ``failures/*.toml`` read into signatures, and an index that finds their lines fast.

A signature's ``kind`` orders what is found:

* ``cause``: what went wrong. It is a finding wherever it stands.
* ``hint``: may stand in a log of success too (a download that was repeated); it counts as a cause only where
  something failed.
* ``symptom``: what another failure looks like from outside; told after every cause.

What only says that something failed, and not what, is no signature: that is grammar (``grammar.toml``).
"""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from build_recipes.diagnosis.needles import needles
from build_recipes.diagnosis.prefix import plain
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import BadData

FAILURES = Path(__file__).with_name("failures")

ORDINARY = FAILURES / "ordinary.txt"
"""Lines that logs of success are full of: what is common in them is no good to search for."""
WORDS = (
    b"FATAL", b"FAIL", b"xcept", b"fatal", b"No such", b"NCCL WARN", b"what():", b"Killed", b"killed", b"Segmentation",
    b"borted", b"Failed", b"failed", b"No route", b"Network is",
)  # fmt: skip
"""Words of reports that are looked for together with the signatures, because they begin as those do."""
COMMON = (
    b"rror", b"RROR", b"ot found", b"enied", b"ERR!", b"*** ", b'  File "', b"imed out", b"undefined r", b"anicked",
    b"\nE: ", b"\xc3\x97 ", b"Illegal in",
)  # fmt: skip
"""Words of reports that are looked for one by one: faster, where they begin with what logs are full of."""
_PIECE = 5
"""Length of the pieces of needles that a log is searched for, characters."""


class Signature(Model, frozen=True):
    """One known failure."""

    id: str
    """Stable name, as scripts test it."""
    phase: Literal["prepare", "configure", "compile", "link", "start", "run"]
    """When it is met."""
    regex: str
    """What a line, or all lines of one report, must fit (``re.search``; colours are removed, quotes are plain). Its
    literal texts are what a log is searched for: every alternative needs five characters in a row."""
    cause: str
    """What happened, for people."""
    fix: str
    """What to do next."""
    sources: list[str]
    """Where it was seen: issue, file and line, or ``reproduced`` with the tool's version."""
    sample: str
    """A line of a real log."""
    kind: Literal["cause", "hint", "symptom"] = "cause"
    affects: str = ""
    """Versions and machines, where it is not all."""
    hides: list[str] = msgspec.field(default_factory=list)
    """Signatures that are consequences of this one when both are in a log."""
    quoted: str = ""
    """Regex that one of the traceback's own lines (files, calls) must fit as well; empty for any."""
    package: str = ""
    """The package at fault, where it is always the same."""


class _Document(Model, frozen=True):
    failure: list[Signature]


@dataclass(frozen=True)
class Rule:
    """A signature made ready for matching."""

    signature: Signature
    pattern: re.Pattern[str]
    quoted: re.Pattern[str] | None
    needles: tuple[str, ...]
    """Texts of which every match holds one (`needles`)."""
    order: int
    """Place in the files; ties are broken by it."""


def load(folder: Path = FAILURES) -> tuple[Rule, ...]:
    """All signatures of a folder, in the files' order.

    :raises BadData: a file is broken, an id stands twice, ``hides`` names no signature, or a regex is wrong.
    """
    rules: list[Rule] = []
    seen: dict[str, Path] = {}
    for path in sorted(folder.glob("*.toml")):
        for signature in load_toml(path, _Document).failure:
            if signature.id in seen:
                raise BadData(
                    f"{path}: failure '{signature.id}' also stands in {seen[signature.id].name}", "rename one"
                )
            seen[signature.id] = path
            try:
                pattern = re.compile(signature.regex)
                quoted = re.compile(signature.quoted) if signature.quoted else None
            except re.error as error:
                raise BadData(f"{path}: regex of '{signature.id}': {error}", "correct the regex") from error
            rules.append(Rule(signature, pattern, quoted, tuple(needles(signature.regex)), len(rules)))
    for rule in rules:
        for name in rule.signature.hides:
            if name not in seen:
                raise BadData(
                    f"{seen[rule.signature.id]}: '{rule.signature.id}' hides unknown '{name}'",
                    "name a failure that exists",
                )
    return tuple(rules)


@functools.cache
def known() -> tuple[Rule, ...]:
    """The project's signatures."""
    return load()


class Index:
    """Finds the lines of a block of bytes that may match, and the rules each of them may match.

    One regex looks for a short piece of every needle. The pieces are ones that ordinary logs do not hold, and
    they begin with few and rare characters, so the search seldom stops; only where it does a line is looked
    at closely.
    """

    def __init__(
        self, rules: tuple[Rule, ...], words: Iterable[bytes] = WORDS, common: Iterable[bytes] = COMMON
    ) -> None:
        self.rules = rules
        """All of them."""
        self.common: dict[bytes, list[tuple[str, Rule]]] = {word: [] for word in common}
        """Words that are looked for one by one, with the needles that hold one."""
        wanted: list[tuple[str, Rule]] = []
        for needle, rule in ((needle, one) for one in rules for needle in one.needles):
            raw = needle.encode()
            word = next((word for word in common if word in raw), None)
            (wanted if word is None else self.common[word]).append((needle, rule))
        self._by_piece: dict[bytes, list[tuple[str, Rule]]] = {word: [] for word in words}
        for piece, entry in zip(_pieces([needle for needle, _ in wanted]), wanted, strict=True):
            self._by_piece.setdefault(piece.encode(), []).append(entry)
        # of two that begin alike the regex finds the longer one, which is then the shorter one as well
        self._by_piece = {
            piece: [
                entry
                for other, entries in self._by_piece.items()
                if piece.startswith(other)
                for entry in entries
            ]
            for piece in self._by_piece
        }
        self._words = frozenset(piece for piece in self._by_piece if piece.startswith(tuple(words)))
        tails: dict[bytes, list[bytes]] = {}
        for piece_raw in sorted(self._by_piece, key=lambda piece: (-len(piece), piece)):
            tails.setdefault(piece_raw[:1], []).append(re.escape(piece_raw[1:]))
        any_piece = b"|".join(
            re.escape(head) + b"(?:" + b"|".join(rest) + b")" for head, rest in tails.items()
        )
        self._first = re.compile(any_piece or b"(?!)")
        self._every = re.compile(b"(?=(" + any_piece + b"))")

    def candidates(self, block: bytes) -> Iterator[tuple[int, int, list[Rule], bool]]:
        """Start and end (without newline) of each line that may match, in order, its possible rules, and whether one
        of the `WORDS` stands in it."""
        hit = self._first.search(block)
        while hit:
            start = block.rfind(b"\n", 0, hit.start()) + 1
            end = block.find(b"\n", hit.end())
            end = len(block) if end < 0 else end
            raw = block[start:end]
            pieces = set(self._every.findall(raw))
            word = not self._words.isdisjoint(pieces)
            entries = [entry for piece in pieces for entry in self._by_piece[piece]]
            text = plain(raw) if entries else ""
            rules = {rule.order: rule for needle, rule in entries if needle in text}
            if rules or word:
                yield start, end, [rules[order] for order in sorted(rules)], word
            hit = self._first.search(block, end)


@functools.cache
def known_index() -> Index:
    """The index of the project's signatures."""
    return Index(known())


def _pieces(needles: list[str]) -> list[str]:
    """For each needle the piece to search for, so that the first characters of all are few and rare.

    A piece holds no quotes: compilers write them in several ways.
    """
    ordinary = ORDINARY.read_text(encoding="utf-8")
    count = collections.Counter(ordinary)
    choices = [_choices(needle, ordinary) for needle in needles]
    offered = [{piece[0] for piece in pieces} for pieces in choices]
    heads: set[str] = set().union(*offered)
    for head in sorted(
        heads, key=lambda each: (-count[each], each)
    ):  # give up the commonest that can be spared
        if all((each & heads) - {head} for each in offered):
            heads.discard(head)
    shared = collections.Counter(piece for pieces in choices for piece in pieces if piece[0] in heads)
    return [max((p for p in pieces if p[0] in heads), key=lambda p: (shared[p], p)) for pieces in choices]


def _choices(needle: str, ordinary: str) -> list[str]:
    """Pieces of a needle, without those of ordinary logs where there are others."""
    pieces = sorted({needle[at : at + _PIECE] for at in range(len(needle) - _PIECE + 1)})
    pieces = [piece for piece in pieces if not set(piece) & set("'\"`")]
    if not pieces:
        raise BadData(f"needle '{needle}' is too short", f"give {_PIECE} characters without quotes or more")
    return [piece for piece in pieces if piece not in ordinary] or pieces
