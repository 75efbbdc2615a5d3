"""Whether a condition holds on a certain vLLM: its version, what it has, what its finders would find."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any, Protocol

from packaging.version import Version

from build_recipes.verify.judge.answers import FOUND, MISSING, PRODUCT, SUBMODULE, Answer
from build_recipes.verify.judge.answers import UNKNOWN as NOT_KNOWN
from build_recipes.verify.read.asking import NAME, OPAQUE
from build_recipes.verify.read.constants import NotConstant, Ref, value_of
from build_recipes.verify.read.syntax import FALSE, TRUE, UNKNOWN, VLLM

_VERSIONS = frozenset(
    {
        f"{VLLM}:__version__",
        f"{VLLM}.version:__version__",
        f"{VLLM}._version:__version__",
        f"{VLLM}._version:version",
    }
)
_TUPLES = frozenset({f"{VLLM}:__version_tuple__", f"{VLLM}.version:__version_tuple__"})
_MAKERS = frozenset(
    {"packaging.version:Version", "packaging.version:parse", "packaging.version:LooseVersion"}
)
_PARTS = frozenset(
    {
        "major",
        "minor",
        "micro",
        "release",
        "base_version",
        "public",
        "is_prerelease",
        "is_devrelease",
        "local",
    }
)


class Asked(Protocol):
    """Who answers what a condition asks."""

    def versions(self, distribution: str) -> str:
        """The version of vLLM or of the package that is judged; empty where it is not known."""

    def module(self, module: str) -> Answer:
        """``import module``."""

    def load(self, target: str, path: list[str]) -> Answer:
        """Reading an attribute of something imported."""

    def compares(self, target: str) -> str:
        """How a function of the package compares vLLM's version with its argument; empty where it does not."""


def truth(ask: str, asked: Asked) -> int:
    """``TRUE``, ``FALSE`` or ``UNKNOWN``.

    :param ask: as `asking.asked` writes it.
    """
    tree = _Known(asked).visit(ast.parse(ask, mode="eval").body)
    return _truth(tree)


def _truth(node: ast.expr) -> int:
    if isinstance(node, ast.BoolOp):
        every = isinstance(node.op, ast.And)
        values = [_truth(part) for part in node.values]
        decisive = FALSE if every else TRUE
        if decisive in values:
            return decisive
        return UNKNOWN if UNKNOWN in values else TRUE if every else FALSE
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _truth(node.operand)
        return inner if inner == UNKNOWN else TRUE if inner == FALSE else FALSE
    if any(_is_ref(part) for part in ast.walk(node)):
        return UNKNOWN
    try:
        return TRUE if value_of(node, {}) else FALSE
    except NotConstant:
        return UNKNOWN


def _is_ref(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, Ref)


def constant(value: Any) -> ast.Constant:
    """A value in the place of an expression."""
    return ast.Constant(value)


_OPAQUE = ast.Name(OPAQUE, ast.Load())


class _Known(ast.NodeTransformer):
    """Puts in what is known."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, Ref):
                return self.reference(Ref(".".join(filter(None, value)), node.attr))
            if isinstance(value, Version) and node.attr in _PARTS:
                return constant(getattr(value, node.attr))
        return node

    def reference(self, ref: Ref) -> ast.expr:
        version = self.asked.versions(VLLM)
        if ref.target in _VERSIONS:
            return constant(version) if version else _OPAQUE
        if ref.target in _TUPLES:
            return constant(Version(version).release) if version else _OPAQUE
        return constant(ref)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if isinstance(node.func, ast.Name) and node.func.id == NAME:
            (target,) = node.args
            assert isinstance(target, ast.Constant)
            module, _, name = str(target.value).partition(":")
            return self.reference(Ref(module, name))
        self.generic_visit(node)
        given = [part.value if isinstance(part, ast.Constant) else None for part in node.args]
        if isinstance(node.func, ast.Constant) and isinstance(node.func.value, Ref):
            return self.called(node.func.value.target, given) or _OPAQUE
        if isinstance(node.func, ast.Name) and given and isinstance(given[0], Ref):
            return self.probed(node.func.id, given[0], given[1:], node) or _OPAQUE
        return node

    def called(self, target: str, given: list[Any]) -> ast.expr | None:
        if not given or not isinstance(given[0], str):
            return None
        try:
            if target in _MAKERS:
                return constant(Version(given[0]))
            sign = self.asked.compares(target)
            version = self.asked.versions(VLLM)
            if sign and version:
                return constant(_COMPARED[sign](Version(version), Version(given[0])))
        except ValueError:
            return None
        if target in ("importlib.metadata:version", "importlib_metadata:version"):
            found = self.asked.versions(given[0].replace("_", "-").lower())
            return constant(found) if found else None
        if target == "importlib.util:find_spec" and given[0].partition(".")[0] == VLLM:
            answer = self.asked.module(given[0])
            return (
                constant(None)
                if answer.status in MISSING
                else constant("spec")
                if answer.status == FOUND
                else None
            )
        return None

    def probed(self, function: str, ref: Ref, more: list[Any], node: ast.Call) -> ast.expr | None:
        """``hasattr(X, "y")`` and ``getattr(X, "y", default)``."""
        if function not in ("hasattr", "getattr") or not more or not isinstance(more[0], str):
            return None
        if ref.module.partition(".")[0] != VLLM:
            return None
        status = self.asked.load(ref.target, [more[0]]).status
        if function == "hasattr":
            if status in (SUBMODULE, PRODUCT):
                return None
            return constant(status == FOUND) if status in MISSING or status == FOUND else None
        return node.args[2] if status in MISSING and len(node.args) == 3 else None


_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@functools.cache
def questions(ask: str) -> tuple[tuple[str, str, str], ...]:
    """What a condition asks of vLLM, as `table.Question`."""
    heard = _Heard()
    _Known(heard).visit(ast.parse(ask, mode="eval").body)
    return tuple(heard.questions)


class _Heard:
    """Answers nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, str, str]] = []

    def versions(self, distribution: str) -> str:
        return ""

    def module(self, module: str) -> Answer:
        self.questions.append(("m", module, ""))
        return Answer(NOT_KNOWN)

    def load(self, target: str, path: list[str]) -> Answer:
        self.questions.append(("a", target, ".".join(path)))
        return Answer(NOT_KNOWN)

    def compares(self, target: str) -> str:
        return ""
