"""Conditions of CMake's ``if`` in three values: true, false, or not known.

https://cmake.org/cmake/help/latest/command/if.html. Only what can be decided from literals is decided.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from build_recipes.sources.cmake.scan import Argument

_TRUE = re.compile(r"(?i)(1|on|yes|true|y|[1-9]\d*)$")
_FALSE = re.compile(r"(?i)(|0|off|no|false|n|ignore|notfound|.*-notfound)$")
_UNARY = {"EXISTS", "COMMAND", "POLICY", "TARGET", "TEST", "IS_DIRECTORY", "IS_SYMLINK", "IS_ABSOLUTE"}
_BINARY = {
    "STREQUAL", "EQUAL", "LESS", "GREATER", "LESS_EQUAL", "GREATER_EQUAL", "STRLESS", "STRGREATER",
    "STRLESS_EQUAL", "STRGREATER_EQUAL", "VERSION_LESS", "VERSION_GREATER", "VERSION_EQUAL",
    "VERSION_LESS_EQUAL", "VERSION_GREATER_EQUAL", "MATCHES", "IN_LIST", "PATH_EQUAL", "IS_NEWER_THAN",
}  # fmt: skip


def truth(
    arguments: Sequence[Argument],
    variables: Mapping[str, str | None],
    expand: Callable[[str], str | None],
) -> bool | None:
    """Whether the condition holds; None where that depends on something unknown."""
    reader = _Reader(list(arguments), variables, expand)
    verdict = reader.either()
    return verdict if reader.position == len(reader.words) else None


class _Reader:
    def __init__(
        self,
        words: list[Argument],
        variables: Mapping[str, str | None],
        expand: Callable[[str], str | None],
    ) -> None:
        self.words, self.variables, self.expand = words, variables, expand
        self.position = 0

    def peek(self, offset: int = 0) -> str:
        """The keyword at hand, or an empty text (a quoted word is never a keyword)."""
        place = self.position + offset
        if place >= len(self.words) or self.words[place].quoted:
            return ""
        return self.words[place].text

    def either(self) -> bool | None:
        verdict = self.both()
        while self.peek() == "OR":
            self.position += 1
            other = self.both()
            verdict = True if True in (verdict, other) else None if None in (verdict, other) else False
        return verdict

    def both(self) -> bool | None:
        verdict = self.negated()
        while self.peek() == "AND":
            self.position += 1
            other = self.negated()
            verdict = False if False in (verdict, other) else None if None in (verdict, other) else True
        return verdict

    def negated(self) -> bool | None:
        if self.peek() == "NOT":
            self.position += 1
            verdict = self.negated()
            return None if verdict is None else not verdict
        return self.single()

    def single(self) -> bool | None:
        if self.position >= len(self.words):
            return None
        if self.peek() == "(":
            self.position += 1
            verdict = self.either()
            if self.peek() == ")":
                self.position += 1
            return verdict
        if self.peek() == "DEFINED":
            name = self.words[self.position + 1].text if self.position + 1 < len(self.words) else ""
            self.position += 2
            return True if self.variables.get(name) else None
        if self.peek() in _UNARY and self.peek(1) not in _BINARY:
            self.position += 2
            return None
        if self.peek(1) in _BINARY:
            operands = self.words[self.position : self.position + 3]
            self.position += 3
            if len(operands) < 3:
                return None  # CMake refuses it: if(A STREQUAL)
            left, operator, right = operands
            return self.compare(left, operator.text, right)
        word = self.words[self.position]
        self.position += 1
        return self.constant(word)

    def value(self, word: Argument) -> str | None:
        """An operand: a literal, an expansion, or the variable of that name."""
        if word.literal:
            return word.text
        if word.quoted or "$" in word.text:
            return self.expand(word.text)
        return self.variables.get(word.text)

    def compare(self, left: Argument, operator: str, right: Argument) -> bool | None:
        if operator != "STREQUAL":
            return None
        a, b = self.value(left), self.value(right)
        return None if a is None or b is None else a == b

    def constant(self, word: Argument) -> bool | None:
        text = self.expand(word.text) if "$" in word.text else word.text
        if text is None:
            return None
        if not word.quoted and text in self.variables:
            found = self.variables[text]
            return None if found is None else not _FALSE.match(found)
        if _TRUE.match(text):
            return True
        return False if _FALSE.match(text) else None
