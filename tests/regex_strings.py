"""Strings that a regex matches, at least one for every branch of every alternative."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

if sys.version_info >= (3, 11):
    import re._constants as constants
    import re._parser as parser
else:
    import sre_constants as constants
    import sre_parse as parser

_OF_CATEGORY = {
    constants.CATEGORY_DIGIT: "7", constants.CATEGORY_WORD: "a", constants.CATEGORY_SPACE: " ",
    constants.CATEGORY_NOT_SPACE: "x", constants.CATEGORY_NOT_WORD: " ", constants.CATEGORY_NOT_DIGIT: "x",
}  # fmt: skip


def branches(regex: str) -> list[list[str]]:
    """For each alternative at the outermost level, the strings of it that match the whole regex."""
    parsed: Any = parser.parse(regex)
    pattern = re.compile(regex)
    if len(parsed) == 1 and parsed[0][0] is constants.BRANCH:
        groups = [list(_of(branch)) for branch in parsed[0][1][1]]
    else:
        groups = [list(_of(parsed))]
    return [[text for text in group if pattern.search(text)] for group in groups]


def _of(parsed: Any) -> Iterator[str]:
    """Strings of a sequence: each item's variants in turn, the others at their first."""
    items = [list(_item(op, value)) or [""] for op, value in parsed]
    base = [variants[0] for variants in items]
    yield "".join(base)
    for at, variants in enumerate(items):
        for other in variants[1:]:
            yield "".join([*base[:at], other, *base[at + 1 :]])


def _item(op: Any, value: Any) -> Iterator[str]:
    if op is constants.LITERAL:
        yield chr(value)
    elif op is constants.NOT_LITERAL:
        yield "x" if value != ord("x") else "y"
    elif op is constants.ANY:
        yield "x"
    elif op is constants.IN:
        yield from _set(value)
    elif op is constants.BRANCH:
        for branch in value[1]:
            yield from _of(branch)
    elif op is constants.SUBPATTERN:
        yield from _of(value[3])
    elif op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        least, _, inner = value
        for text in _of(inner):
            yield text * max(1, least)
        if least == 0:
            yield ""
    elif op is constants.AT or op in (constants.ASSERT, constants.ASSERT_NOT) or op is constants.GROUPREF:
        yield ""
    elif op is constants.CATEGORY:
        yield _OF_CATEGORY.get(value, "a")
    else:
        yield from _of(value) if isinstance(value, parser.SubPattern) else [""]


def _set(value: Any) -> Iterator[str]:
    if value and value[0][0] is constants.NEGATE:
        excluded = (
            re.compile(f"[{''.join(chr(v) for k, v in value[1:] if k is constants.LITERAL)}]")
            if len(value) > 1 and all(k is constants.LITERAL and chr(v) not in "]\\^-" for k, v in value[1:])
            else None
        )
        yield next(char for char in "xq7_/" if excluded is None or not excluded.match(char))
        return
    for kind, content in value:
        if kind is constants.LITERAL:
            yield chr(content)
        elif kind is constants.RANGE:
            yield chr(content[0] + (1 if content[0] in (ord("0"),) and content[1] > content[0] else 0))
        elif kind is constants.CATEGORY:
            yield _OF_CATEGORY.get(content, "a")
