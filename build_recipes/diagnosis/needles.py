"""Literal texts out of a regex, so that whatever it matches holds one of them.

They are derived, never written by hand: a regex gets an alternative, and its text is looked for.
"""

from __future__ import annotations

import re
import sys
from typing import Any

if sys.version_info >= (3, 11):
    from re import _constants as constants
    from re import _parser as parser
else:
    import sre_constants as constants
    import sre_parse as parser

_QUOTES = re.compile("['\"`]")


def needles(regex: str) -> list[str]:
    """Texts of which every match holds at least one; empty where a match need hold none.

    The shortest of them is as long as can be. Length counts between quotes, which compilers write in several ways.
    """
    parsed: Any = parser.parse(regex)
    found = _needed(list(parsed))
    return sorted(found) if found else []


def _needed(items: list[tuple[Any, Any]]) -> frozenset[str]:
    """The best set for a sequence: one of its literal runs, or what all branches of one item need."""
    offers: list[frozenset[str]] = []
    run: list[str] = []
    for op, value in [*items, (None, None)]:
        if op is constants.LITERAL:
            run.append(chr(value))
            continue
        if run:
            offers.append(frozenset({"".join(run)}))
            run = []
        inner = _inside(op, value)
        if inner:
            offers.append(inner)
    return max(offers, key=_worth, default=frozenset())


def _inside(op: Any, value: Any) -> frozenset[str]:
    """What one item needs; empty where it needs nothing for certain."""
    if op is constants.BRANCH:
        sets = [_needed(list(branch)) for branch in value[1]]
        return frozenset({text for texts in sets for text in texts}) if all(sets) else frozenset()
    if op is constants.SUBPATTERN:
        return _needed(list(value[3]))
    if op in (constants.MAX_REPEAT, constants.MIN_REPEAT) and value[0] > 0:
        return _needed(list(value[2]))
    return frozenset()


_LONG = 9
"""From this length on, characters, the number of texts matters more."""


def _worth(texts: frozenset[str]) -> tuple[int, int, int]:
    """Length of the shortest text, as far as it can be searched for; the fewer the better; then its whole length."""
    shortest = min(max(map(len, _QUOTES.split(text))) for text in texts)
    return min(shortest, _LONG), -len(texts), shortest
