"""Reads, calls and patches in an expression: the small half of what `flow` keeps of a file."""

from __future__ import annotations

import ast

from build_recipes.verify.read.model import Call, Import, Load, Node, Patch
from build_recipes.verify.read.scope import Scope
from build_recipes.verify.read.syntax import dotted, text_of

_LEAVES = frozenset((ast.Name, ast.Constant, ast.Lambda, type(None)))
"""Parts of an expression that hold nothing to look at; a lambda's body runs later."""

_KINDS: list[type[ast.AST]] = [*ast.expr.__subclasses__(), ast.comprehension]
_PARTS: dict[type, tuple[str, ...]] = {
    kind: tuple(
        field for field in kind._fields if field not in ("ctx", "op", "ops", "conversion", "is_async")
    )
    for kind in _KINDS
}
"""Fields of an expression that hold expressions."""

_BY_NAME = frozenset({"import_module", "__import__", "setattr", "getattr", "extend_enum", "setdefault"})


class Expressions:
    """Reads expressions where `known` says what the names in sight are bound to.

    :param roots: top-level packages whose uses are kept (relative imports always are).
    """

    def __init__(self, roots: tuple[str, ...]) -> None:
        self.roots = roots
        self.known: Scope = {}
        self.prefix = ""
        self.heirs: set[str] = set()

    def touches(self, module: str) -> bool:
        """Whether a module as written may be one of the wanted packages."""
        return module.startswith(".") or module.partition(".")[0] in self.roots

    def expression(self, node: ast.expr, out: list[Node]) -> None:
        """Reads, calls and patches in an expression, what may be skipped at run time left out."""
        todo: list[ast.AST | None] = [node]
        while todo:
            item = todo.pop()
            if type(item) in _LEAVES:
                continue
            if isinstance(item, ast.Attribute):
                if not self.attribute(item, out):
                    todo.append(item.value)
            elif isinstance(item, ast.Call):
                self.call(item, out)
                if type(item.func) is not ast.Name:
                    todo.append(item.func)
                todo.extend(item.args)
                for keyword in item.keywords:
                    todo.append(keyword.value)
            elif isinstance(item, ast.Subscript):
                self.subscript(item, out)
                todo.extend((item.value, item.slice))
            elif isinstance(item, ast.BoolOp):
                todo.append(item.values[0])
            elif isinstance(item, ast.IfExp):
                todo.append(item.test)
            else:
                for field in _PARTS[type(item)]:
                    value = getattr(item, field)
                    if isinstance(value, list):
                        todo.extend(value)
                    else:
                        todo.append(value)

    def attribute(self, node: ast.Attribute, out: list[Node]) -> bool:
        """A chain of attributes; False where it does not begin with a name."""
        first = _first(node)
        if first is None:
            return False
        target = self.known.get(first)
        if not target or target.startswith(":"):
            return True
        path = dotted(node)
        if isinstance(node.ctx, ast.Store):
            out.append(Patch(node.lineno, target, path[1:]))
            if len(path) > 2:
                out.append(Load(node.lineno, target, path[1:-1]))
        elif isinstance(node.ctx, ast.Load):
            out.append(Load(node.lineno, target, path[1:]))
        return True

    def subscript(self, node: ast.Subscript, out: list[Node]) -> None:
        """``X.__dict__["name"]`` and ``sys.modules["name"] = ...``."""
        key = text_of(node.slice)
        if key is None or not isinstance(node.value, ast.Attribute):
            return
        path = dotted(node.value)
        if path[-2:] == ["sys", "modules"] and isinstance(node.ctx, ast.Store) and self.touches(key):
            out.append(Patch(node.lineno, key, []))
        elif path[-1:] == ["__dict__"] and isinstance(node.ctx, ast.Load):
            target = self.known.get(path[0])
            if target and not target.startswith(":"):
                out.append(Load(node.lineno, target, [*path[1:], f"[{key}]"]))

    def call(self, node: ast.Call, out: list[Node]) -> None:
        """A call, and what is imported, read or set by a name in a string."""
        function = node.func
        if isinstance(function, (ast.Name, ast.Attribute)):
            last = function.id if isinstance(function, ast.Name) else function.attr
            if last not in _BY_NAME or not self.by_name(node, dotted(function), out):
                target, path = self.callee(function)
                if target:
                    positional = -1 if any(isinstance(a, ast.Starred) for a in node.args) else len(node.args)
                    named = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
                    is_open = len(named) < len(node.keywords)
                    out.append(Call(function.lineno, target, path, positional, named, is_open))

    def callee(self, function: ast.expr) -> tuple[str, list[str]]:
        """Target and path of a `Call`; an empty target where it is nothing that is kept."""
        first = _first(function)
        if first is None:
            if (
                isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Call)
                and isinstance(function.value.func, ast.Name)
                and function.value.func.id == "super"
            ):
                return f"super:{self.owner()}", [function.attr]
            return "", []
        target = self.known.get(first)
        if target:
            return target, dotted(function)[1:]
        if first == "self" and (owner := self.owner()):
            path = dotted(function)
            if len(path) == 2:
                return f"self:{owner}", [path[1]]
        return "", []

    def owner(self) -> str:
        """The innermost class around this point that may inherit from another project; empty if there is none."""
        inner = self.prefix
        while inner and inner not in self.heirs:
            inner = inner[: inner.rfind(".", 0, -1) + 1]
        return inner[:-1]

    def by_name(self, node: ast.Call, path: list[str], out: list[Node]) -> bool:
        """``import_module("x")``, ``setattr(X, "y", ...)`` and the like; False where it is another call."""
        first = text_of(node.args[0]) if node.args else None
        if path[-1:] in (["import_module"], ["__import__"]) and first and self.touches(first):
            if not first.startswith("."):
                out.append(Import(node.lineno, first, []))
            return True
        if path[-1:] in (["setattr"], ["getattr"], ["extend_enum"]) and len(node.args) > 1:
            self.of_name(node, path[-1], out)
            return True
        if path == ["sys", "modules", "setdefault"] and first and self.touches(first):
            out.append(Patch(node.lineno, first, []))
            return True
        return False

    def of_name(self, node: ast.Call, which: str, out: list[Node]) -> None:
        """``setattr(X, "y", ...)`` and ``getattr(X, "y")``."""
        path, name = dotted(node.args[0]), text_of(node.args[1])
        target = self.known.get(path[0]) if path and name is not None else None
        if not target or name is None or target.startswith(":"):
            return
        if which != "getattr":
            out.append(Patch(node.lineno, target, [*path[1:], name]))
        elif len(node.args) == 2:
            out.append(Load(node.lineno, target, [*path[1:], name]))


def _first(node: ast.expr) -> str | None:
    """The name that a chain of attributes begins with; None where it begins with anything else."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
