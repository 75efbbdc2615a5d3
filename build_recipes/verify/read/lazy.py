"""What a module's ``__getattr__`` answers, and from where: its body is worked out for each name it knows."""

from __future__ import annotations

import ast
import contextlib
from typing import Any

from build_recipes.verify.read.constants import (
    Names,
    NotConstant,
    Ref,
    Unread,
    imported,
    matched,
    value_of,
)
from build_recipes.verify.read.model import Lazy
from build_recipes.verify.read.syntax import is_try, leaves, name_of, source_module, text_of

_ROUNDS = 5000
"""Statements after which a body is no longer worked out."""
NOWHERE = "!"
"""The target of a name that the body, worked out, refuses."""


def keys_of(node: ast.expr | None, names: Names) -> list[str] | None:
    """Strings of a list, keys of a table; None where they cannot be read."""
    try:
        found = value_of(node, names)
    except NotConstant:
        return None
    if not isinstance(found, (list, tuple, set, frozenset, dict)):
        return None
    return [key for key in found if isinstance(key, str)] if all(isinstance(k, str) for k in found) else None


def read_lazy(node: ast.FunctionDef, statements: list[ast.stmt], names: Names) -> Lazy:
    """What a module's ``__getattr__`` answers.

    :param statements: its body.
    :param names: the constants of the file.
    """
    if not node.args.args:
        return Lazy([], True, False, {})
    asked = node.args.args[0].arg
    keys: list[str] = []
    tested = known = True
    tested = False

    def is_asked(value: ast.expr) -> bool:
        return isinstance(value, ast.Name) and value.id == asked

    def table(value: ast.expr) -> None:
        nonlocal known, tested
        tested = True
        plain = keys_of(value, names)
        if plain is not None:
            keys.extend(plain)
        elif not (isinstance(value, ast.Call) and name_of(value) == "globals"):
            known = False

    for item in (item for statement in statements for item in ast.walk(statement)):
        if isinstance(item, ast.Compare) and len(item.ops) == 1 and is_asked(item.left):
            if isinstance(item.ops[0], (ast.Eq, ast.NotEq)):
                only = text_of(item.comparators[0])
                tested = True
                if only is None:
                    known = False
                else:
                    keys.append(only)
            elif isinstance(item.ops[0], (ast.In, ast.NotIn)):
                table(item.comparators[0])
        elif isinstance(item, ast.Match) and is_asked(item.subject):
            tested = True
            for case in item.cases:
                texts = matched_texts(case.pattern)
                keys.extend(texts or ())
                known = known and (texts is not None or is_rest(case.pattern))
        elif (
            isinstance(item, ast.Subscript) and is_asked(item.slice) and not isinstance(item.value, ast.Dict)
        ):
            if not (isinstance(item.value, ast.Call) and name_of(item.value) == "globals"):
                table(item.value)
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
            if item.func.attr in ("get", "pop") and item.args and is_asked(item.args[0]):
                table(item.func.value)
            elif is_asked(item.func.value):
                known = False  # name.startswith(...)
    raises = leaves(statements) and not (
        isinstance(statements[-1], ast.Return) and not tested and not _uses(statements[-1], asked)
    )
    if not (known and tested):
        keys.extend(_strings(statements, names))
    found = sorted(set(keys))
    targets = {}
    names = {**names, **_worked_out(statements, names)}
    for key in found:
        target = _target(statements, {**names, asked: key})
        if target:
            targets[key] = target
    refuses = _target(statements, {**names, asked: "\0"}) == NOWHERE  # a name that nobody has
    if not refuses and not (known and tested):
        found = [key for key in found if targets.get(key, NOWHERE) != NOWHERE]
    return Lazy(
        [key for key in found if targets.get(key) != NOWHERE],
        raises or refuses,
        (known and tested) or refuses,
        targets,
    )


def matched_texts(pattern: ast.pattern) -> list[str] | None:
    """The texts that a ``case`` is for: ``"a" | "b"``; None where it is for others."""
    if isinstance(pattern, ast.MatchOr):
        found = [matched_texts(part) for part in pattern.patterns]
        return None if None in found else [text for part in found for text in part or ()]
    text = text_of(pattern.value) if isinstance(pattern, ast.MatchValue) else None
    return None if text is None else [text]


def is_rest(pattern: ast.pattern) -> bool:
    """``case _``, or with a name for it."""
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def _strings(statements: list[ast.stmt], names: Names) -> list[str]:
    """Strings in the tables that a body uses: it may be asked for each of them."""
    found: list[str] = []
    for value in _worked_out(statements, names).values():
        todo = [value]
        while todo and len(found) < _ROUNDS:
            value = todo.pop()
            if isinstance(value, str):
                found.append(value)
            elif isinstance(value, dict):
                todo.extend((*value, *value.values()))
            elif isinstance(value, (list, tuple, set, frozenset)):
                todo.extend(value)
    return found


def _worked_out(statements: list[ast.stmt], names: Names) -> dict[str, Any]:
    """Values of the tables that a body uses, by name. The body is played for each of their keys: once is enough."""
    found = {}
    for name in sorted(
        {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name)} & set(names)
    ):
        if isinstance(names[name], ast.expr):
            with contextlib.suppress(NotConstant):
                found[name] = value_of(names[name], names)
    return found


def _target(statements: list[ast.stmt], names: dict[str, Any]) -> str:
    """``module:name`` that the body gives for a name; empty where that cannot be told."""
    try:
        ended = _Body(names).block(statements)
    except NotConstant:
        return ""
    if ended is None:
        return ""
    return NOWHERE if ended is Unread else ended.target if isinstance(ended, Ref) else ""


class _Body:
    """Works out statements. A block gives None where it runs to its end, what it returns, or `Unread` where
    it raises."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.rounds = 0

    def block(self, body: list[ast.stmt]) -> Any:
        for node in body:
            self.rounds += 1
            if self.rounds > _ROUNDS:
                raise NotConstant
            ended = self.statement(node)
            if ended is not None:
                return ended
        return None

    def statement(self, node: ast.stmt) -> Any:
        if isinstance(node, ast.Return):
            return self.value(node.value)
        if isinstance(node, ast.Raise):
            return Unread
        if isinstance(node, ast.If):
            return self.block(node.body if self.test(node.test) else node.orelse)
        if isinstance(node, ast.For):
            return self.loop(node)
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            self.assign(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                self.names[alias.asname or top] = Ref(alias.name if alias.asname else top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self.names[alias.asname or alias.name] = Ref(source_module(node), alias.name)
        elif is_try(node):
            return self.block(node.body) or self.block(node.orelse)
        elif isinstance(node, ast.Match):
            value = value_of(node.subject, self.names)
            for case in node.cases:
                texts = matched_texts(case.pattern)
                if case.guard is not None or (texts is None and not is_rest(case.pattern)):
                    raise NotConstant
                if texts is None or value in texts:
                    return self.block(case.body)
        elif not isinstance(node, (ast.Expr, ast.Global, ast.Pass)):
            raise NotConstant
        return None

    def value(self, node: ast.expr | None) -> Any:
        """What is returned; `NotConstant` ends the search, so that an unknown value is no None."""
        found = value_of(node, self.names)
        return found if isinstance(found, Ref) else ()

    def test(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Compare) and any(_is_globals(part) for part in node.comparators):
            return isinstance(node.ops[0], ast.NotIn)
        return bool(value_of(node, self.names))

    def assign(self, node: ast.Assign | ast.AnnAssign) -> None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, (ast.Subscript, ast.Attribute)):
                continue  # globals()[name] = value
            try:
                self.names.update(matched(target, value_of(node.value, self.names)))
            except NotConstant:
                if isinstance(node.value, ast.Call) and imported(node.value, self.names) is not None:
                    raise
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        self.names[name.id] = Unread

    def loop(self, node: ast.For) -> Any:
        for value in value_of(node.iter, self.names):
            if value is Unread:
                raise NotConstant
            self.names.update(matched(node.target, value))
            ended = self.block(node.body)
            if ended is not None:
                return ended
        return self.block(node.orelse)


def _is_globals(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and name_of(node) == "globals"


def _uses(node: ast.AST, name: str) -> bool:
    return any(isinstance(item, ast.Name) and item.id == name for item in ast.walk(node))
