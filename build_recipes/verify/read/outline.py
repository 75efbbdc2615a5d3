"""A source file parsed without the bodies of its functions, each of which is parsed when it is asked for.

Most of a file is in its functions, and of most functions a check needs the signature alone. Their bodies are
found by indentation and blanked out before the file is parsed, so that line numbers stay. Where indentation
does not tell where a body ends (a string that begins there and ends elsewhere, tabs, other line ends) or the
rest does not parse, the file is parsed whole: that costs time, never an answer.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
from itertools import accumulate, count
from operator import add
from typing import Any, NamedTuple

from build_recipes.verify.read.bindings import constants

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_DEF = re.compile(r"\n( *)(?:async +)?def +\w+ *[(\[]")
_GLOBAL = re.compile(r"^\s+global\s+([\w, ]+)", re.M)
_LINE_END = re.compile(r"\r\n?|\n")
_OPEN, _CLOSE = re.compile(r"[(\[{]"), re.compile(r"[)\]}]")
_LONGEST_HEADER = 400
"""Lines of a signature after which it is no longer believed to be one."""


class _Span(NamedTuple):
    """A body: from the start of its first line to the end of its last, in characters."""

    start: int
    end: int
    indent: int
    last: int
    """Number of its last line."""


class Outline:
    """A parsed file.

    :param whole: parse the bodies too, so that an error in one is seen.
    :raises SyntaxError: and what else `ast.parse` raises: it does not parse.
    """

    def __init__(self, text: str, *, whole: bool = False) -> None:
        self.text = text
        self._bodies: dict[int, _Span] = {}
        self._parsed: dict[int, list[ast.stmt]] = {}
        self._starts: list[int] = []
        self._constants: dict[str, Any] | None = None
        self.tree = _parse(text) if whole else self._parse()

    @property
    def constants(self) -> dict[str, Any]:
        """What the file's top level binds, for `constants.value_of`."""
        if self._constants is None:
            self._constants = constants(self.tree.body)
        return self._constants

    @functools.cached_property
    def rebound(self) -> set[str]:
        """Names of the file's top level that a function binds anew, by ``global``."""
        found = _GLOBAL.findall(self.text) if "global" in self.text else []
        return {name.strip() for names in found for name in names.split(",")}

    def body(self, node: FunctionNode) -> list[ast.stmt]:
        """The statements of a function, with their places in the file."""
        span = self._span(node)
        if span is None:
            return node.body
        kept = self._parsed.get(span.start)
        if kept is None:
            kept = self._parsed[span.start] = self._body(node, span)
        return kept

    def _body(self, node: FunctionNode, span: _Span) -> list[ast.stmt]:
        line = node.body[0].lineno
        start = "async def f():" if isinstance(node, ast.AsyncFunctionDef) else "def f():"
        parsed = _parse("\n" * (line - 2) + start + "\n" + self.text[span.start : span.end])
        (function,) = parsed.body
        assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        return function.body

    def body_text(self, node: FunctionNode) -> str:
        """The source of a function's body."""
        span = self._span(node)
        if span is not None:
            return self.text[span.start : span.end]
        return self.source(node.body[0].lineno, node.end_lineno)

    def class_text(self, node: ast.ClassDef) -> str:
        """The source of a class, from its ``class`` line on."""
        span = self._bodies.get(node.end_lineno or 0)
        ends_there = span is not None and node.end_col_offset == span.indent + len("...")
        return self.source(node.lineno, span.last if span is not None and ends_there else node.end_lineno)

    def source(self, first: int, last: int | None) -> str:
        """Lines of the file, counted from 1, without the last line's end."""
        if not self._starts:
            if "\r" in self.text:
                self._starts = [0, *(end.end() for end in _LINE_END.finditer(self.text))]
            else:
                lengths = accumulate(map(len, self.text.split("\n")))
                self._starts = [0, *map(add, lengths, count(1))]
        end = self._starts[last] if last is not None and last < len(self._starts) else len(self.text)
        return self.text[self._starts[first - 1] : end].rstrip("\r\n")

    def _span(self, node: FunctionNode) -> _Span | None:
        """Where a function's body is, if it was left out; a function inside a body was not."""
        span = self._bodies.get(node.body[0].lineno)
        return span if span is not None and span.indent == node.body[0].col_offset else None

    def _parse(self) -> ast.Module:
        short = self._without_bodies()
        if short is not None:
            try:
                return _parse(short)
            except SyntaxError:
                self._bodies = {}
        return _parse(self.text)

    def _without_bodies(self) -> str | None:
        """The text with ``...`` and blank lines in place of bodies; None where that cannot be told."""
        text = self.text
        if "\t" in text or "\r" in text or "\f" in text:
            return None
        parts: list[str] = []
        done = line = at = 0  # copied so far; line number at `at`, from 0
        while found := _DEF.search(text, done):
            header = found.start() + 1
            start = _end_of_header(text, header)
            if start is None:
                parts.append(text[done : found.end()])
                done = found.end()
                continue
            end = _end_of_body(text, start, len(found[1]))
            body = text[start:end]
            if body.count('"""') % 2 or body.count("'''") % 2:
                return None
            indent = len(body) - len(body.lstrip(" "))
            if not body.strip() or body[indent] in "#\n" or indent <= len(found[1]):
                return None
            line += text.count("\n", at, start)
            height = body.count("\n")
            self._bodies[line + 1] = _Span(start, end, indent, line + 1 + height)
            parts += [text[done:start], " " * indent, "...", "\n" * height]
            line, at, done = line + height, end, end
        parts.append(text[done:])
        return "".join(parts)


def _end_of_header(text: str, start: int) -> int | None:
    """Where the body of the ``def`` at ``start`` begins; None where it is on the same line or not clear."""
    depth = 0
    for _ in range(_LONGEST_HEADER):
        end = text.find("\n", start)
        if end < 0:
            return None
        line = text[start:end]
        depth += len(_OPEN.findall(line)) - len(_CLOSE.findall(line))
        start = end + 1
        if depth <= 0:
            line = line.partition("#")[0].rstrip()
            return _first_statement(text, start) if line.endswith(":") and depth == 0 else None
    return None


def _first_statement(text: str, start: int) -> int:
    """Past blank lines and comments."""
    found = _NO_STATEMENT.match(text, start)
    return found.end() if found is not None else start


_NO_STATEMENT = re.compile(r"(?: *(?:#[^\n]*)?\n)*")


@functools.cache
def _outside(indent: int) -> re.Pattern[str]:
    """The first line that is not below an indentation."""
    return re.compile(rf"\n {{0,{indent}}}[^\s#]")


def _end_of_body(text: str, start: int, indent: int) -> int:
    """The end of the last line of a body, its line end left out."""
    found = _outside(indent).search(text, start - 1)
    end = found.start() if found is not None else len(text)
    body = text[start:end].rstrip()
    while (last := body.rfind("\n")) >= 0 and body[last:].lstrip().startswith("#"):
        body = body[:last].rstrip()
    return start + len(body)


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes are the file's own affair
        return ast.parse(text)
