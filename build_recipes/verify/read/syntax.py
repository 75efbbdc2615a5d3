"""Small readings of syntax trees that the surface and the flow share."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeGuard

VLLM = "vllm"
"""The package that all others are checked against."""

OTHER_PLATFORMS = frozenset(
    {"rocm", "npu", "xpu", "musa", "tpu", "hpu", "neuron", "cpu", "ascend", "hip", "mps"}
)
"""Platforms a CUDA build is not. ``is_rocm()`` and the like are taken as false, ``is_cuda()`` as true."""

TRUE, FALSE, TRUE_HERE, FALSE_HERE, UNKNOWN = 1, 0, 2, 3, -1
_NOT = {TRUE: FALSE, FALSE: TRUE, TRUE_HERE: FALSE_HERE, FALSE_HERE: TRUE_HERE, UNKNOWN: UNKNOWN}


BIND_NOTHING = frozenset(
    (
        ast.Return,
        ast.Raise,
        ast.Pass,
        ast.Assert,
        ast.Global,
        ast.Nonlocal,
        ast.Break,
        ast.Continue,
        ast.Delete,
    )
)
"""Statements that give no name a value and hold no others."""


def dotted(node: ast.expr) -> list[str]:
    """``a.b.c`` as its parts; empty for anything else."""
    parts: list[str] = []
    while type(node) is ast.Attribute:
        parts.append(node.attr)
        node = node.value
    if type(node) is ast.Name:
        parts.append(node.id)
        parts.reverse()
        return parts
    return []


def name_of(node: ast.expr) -> str:
    """A decorator or base class as written: the dotted name, without call or subscript; ``?`` otherwise."""
    while isinstance(node, (ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return ".".join(dotted(node)) or "?"


def text_of(node: ast.expr | None) -> str | None:
    """The value of a string constant; None for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_word(character: str) -> bool:
    """Whether a character is part of a name. (Asked after a search: ``\\b`` in a pattern makes it slow.)"""
    return character.isalnum() or character == "_"


def mentions(text: str, words: Iterable[str]) -> bool:
    """Whether one of some names is in a text."""
    for word in words:
        at = text.find(word)
        while at >= 0:
            end = at + len(word)
            if not is_word(text[at - 1 : at]) and not is_word(text[end : end + 1]):
                return True
            at = text.find(word, end)
    return False


def source_module(statement: ast.ImportFrom) -> str:
    """The module of a from-import as written, with its leading dots."""
    return "." * statement.level + (statement.module or "")


PRESENT = (["is_vllm_available"], ["is_vllm_installed"])
"""Functions that ask whether there is a vLLM: where a pair is judged there is one. Their argument is the oldest
version that will do (transformers' convention, which trl, verl and others follow)."""


def truth(test: ast.expr) -> int:
    """What a branch's condition is known to be, on a CUDA machine that runs a recent Python."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _NOT[truth(test.operand)]
    if isinstance(test, ast.Constant):
        return TRUE if test.value else FALSE
    if isinstance(test, ast.BoolOp):
        return _joined([truth(value) for value in test.values], isinstance(test.op, ast.And))
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _compared(test)
    if isinstance(test, ast.Call):
        last = dotted(test.func)[-1:]
        if last in PRESENT:
            return UNKNOWN if test.args or test.keywords else TRUE_HERE
        return _predicate(last)
    last = dotted(test)[-1:]
    return FALSE if last == ["TYPE_CHECKING"] else UNKNOWN


def _joined(values: list[int], every: bool) -> int:
    decisive = (FALSE, FALSE_HERE) if every else (TRUE, TRUE_HERE)
    for value in decisive:
        if value in values:
            return value
    if UNKNOWN in values:
        return UNKNOWN
    weaker = TRUE_HERE if every else FALSE_HERE
    return weaker if weaker in values else values[0]


def _predicate(last: list[str]) -> int:
    if not last or not last[0].startswith("is_"):
        return UNKNOWN
    platform = last[0][3:].removesuffix("_platform")
    if platform in ("cuda", "cuda_alike"):
        return TRUE_HERE
    return FALSE_HERE if platform in OTHER_PLATFORMS else UNKNOWN


def _compared(test: ast.Compare) -> int:
    right = test.comparators[0]
    left = dotted(test.left)
    if left == ["__name__"] and text_of(right) == "__main__":
        return FALSE if isinstance(test.ops[0], ast.Eq) else TRUE
    if left[-1:] == ["version_info"] and isinstance(right, ast.Tuple):
        try:
            wanted = ast.literal_eval(right)
        except ValueError:
            return UNKNOWN
        if isinstance(test.ops[0], (ast.GtE, ast.Gt)) and wanted <= (3, 11):
            return TRUE
        if isinstance(test.ops[0], (ast.Lt, ast.LtE)) and wanted <= (3, 11):
            return FALSE
    return UNKNOWN


def bound_names(target: ast.expr) -> Iterator[str]:
    """Names bound by an assignment target."""
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from bound_names(element)
    elif isinstance(target, ast.Starred):
        yield from bound_names(target.value)


_ELSEWHERE = (ast.Lambda, ast.stmt)
"""Parts of a statement whose names are bound elsewhere, or by a statement of their own."""


def walruses(statement: ast.stmt) -> Iterator[tuple[str, bool]]:
    """Names that ``:=`` binds in a statement's own expressions, and whether it surely does."""
    todo: list[tuple[ast.AST, bool]] = [(child, True) for child in ast.iter_child_nodes(statement)]
    if isinstance(statement, ast.ClassDef):
        todo = [(part, True) for part in (*statement.bases, *statement.decorator_list, *statement.keywords)]
    while todo:
        node, surely = todo.pop()
        if isinstance(node, _ELSEWHERE) or (isinstance(node, ast.match_case) and node.guard is None):
            continue
        if isinstance(node, ast.NamedExpr):
            yield node.target.id, surely
        for index, child in enumerate(ast.iter_child_nodes(node)):
            todo.append((child, surely and not _may_be_skipped(node, child, index)))


def _may_be_skipped(node: ast.AST, child: ast.AST, index: int) -> bool:
    """Whether a part of an expression is not evaluated in any case."""
    if isinstance(node, ast.BoolOp):
        return child is not node.op and child is not node.values[0]
    if isinstance(node, ast.IfExp):
        return child is not node.test
    if isinstance(node, ast.Compare):
        return child in node.comparators[1:]
    if isinstance(node, (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)):
        return child is not node.generators[0]
    if isinstance(node, ast.comprehension):
        return child is not node.iter
    return isinstance(node, (ast.match_case, ast.excepthandler))


def captured(node: ast.Match) -> Iterator[str]:
    """Names that the patterns of a ``match`` bind."""
    for case in node.cases:
        for item in ast.walk(case.pattern):
            name = getattr(item, "name", None) or getattr(item, "rest", None)
            if isinstance(name, str):
                yield name


def is_try(node: ast.stmt) -> TypeGuard[ast.Try]:
    """A ``try`` statement, also one with ``except*`` (a class of its own from Python 3.11 on)."""
    return type(node).__name__ in ("Try", "TryStar")


def blocks_of(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The statement lists inside a compound statement that is no definition."""
    for field in ("body", "orelse", "finalbody"):
        value = getattr(statement, field, None)
        if value:
            yield value
    for handler in getattr(statement, "handlers", ()):
        yield handler.body
    for case in getattr(statement, "cases", ()):
        yield case.body


def leaves(block: list[ast.stmt]) -> bool:
    """Whether a block surely ends in ``return``, ``raise``, ``continue`` or ``break``."""
    if not block:
        return False
    last = block[-1]
    if isinstance(last, (ast.Return, ast.Raise, ast.Continue, ast.Break)):
        return True
    if isinstance(last, ast.If):
        return leaves(last.body) and leaves(last.orelse)
    if isinstance(last, ast.With):
        return leaves(last.body)
    if isinstance(last, ast.Try):
        return (leaves(last.body) or leaves(last.orelse)) and all(leaves(h.body) for h in last.handlers)
    return False
