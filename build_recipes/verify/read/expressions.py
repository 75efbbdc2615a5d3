"""Reads, calls and patches in an expression: the small half of what `flow` keeps of a file."""

from __future__ import annotations

import ast
from typing import Any

from build_recipes.verify.read.constants import NotConstant, imported, importer, value_of
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

_BY_NAME = frozenset(
    {"setattr", "getattr", "extend_enum", "setdefault", "find_spec", "delattr", "resolve_name"}
)


class Expressions:
    """Reads expressions where `known` says what the names in sight are bound to.

    :param roots: top-level packages whose uses are kept (relative imports always are).
    """

    def __init__(self, roots: tuple[str, ...]) -> None:
        self.roots = roots
        self.known: Scope = {}
        self.values: dict[str, Any] = {}
        """Constants in sight, for `constants.value_of`."""
        self.brief = False
        """Attributes are not asked for: vLLM's own files are taken to read what is there."""
        self.prefix = ""
        self.heirs: set[str] = set()

    def touches(self, module: str) -> bool:
        """Whether a module as written may be one of the wanted packages."""
        return module.startswith(".") or module.partition(".")[0] in self.roots

    def expression(self, node: ast.expr, out: list[Node]) -> None:
        """Reads, calls and patches in an expression, what may be skipped at run time left out."""
        todo: list[Any] = [node]
        while todo:
            item = todo.pop()
            kind = type(item)
            if kind in _LEAVES:
                continue
            if kind is ast.Attribute:
                if not self.attribute(item, out):
                    todo.append(item.value)
            elif kind is ast.Call:
                self.call(item, out)
                function = type(item.func)
                if function is ast.Lambda:
                    todo.append(item.func.body)  # called where it stands
                elif function is not ast.Name:
                    todo.append(item.func)
                todo.extend(item.args)
                for keyword in item.keywords:
                    todo.append(keyword.value)
            elif kind is ast.Subscript:
                self.subscript(item, out)
                todo.append(item.value)
                todo.append(item.slice)
            elif kind is ast.BoolOp:
                todo.append(item.values[0])
            elif kind is ast.IfExp:
                todo.append(item.test)
            else:
                for field in _PARTS[kind]:
                    value = getattr(item, field)
                    if type(value) is list:
                        todo.extend(value)
                    else:
                        todo.append(value)

    def attribute(self, node: ast.Attribute, out: list[Node]) -> bool:
        """A chain of attributes; False where it does not begin with a name."""
        first = _first(node)
        if first is None:
            return self.of_imported(node, out)
        target = self.known.get(first)
        if not target or target.startswith(":") or self.brief:
            return True
        path = dotted(node)
        if isinstance(node.ctx, ast.Store):
            out.append(Patch(node.lineno, target, path[1:]))
            if len(path) > 2:
                out.append(Load(node.lineno, target, path[1:-1]))
        elif isinstance(node.ctx, ast.Load):
            out.append(Load(node.lineno, target, path[1:]))
        return True

    def of_imported(self, node: ast.Attribute, out: list[Node]) -> bool:
        """``import_module("x").y`` and ``sys.modules["x"].y``: read (or set) of what the call gives."""
        path: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            path.insert(0, inner.attr)
            inner = inner.value
        module = None
        if isinstance(inner, ast.Call):
            found = self.imported(inner)
            module = found[1] if found is not None else None
        elif isinstance(inner, ast.Subscript) and dotted(inner.value) == ["sys", "modules"]:
            module = self.text(inner.slice)
        if not module or not self.touches(module):
            return False
        todo = [inner.value, inner.slice] if isinstance(inner, ast.Subscript) else []
        if isinstance(inner, ast.Call):
            self.expression(inner, out)
        for part in todo:
            self.expression(part, out)
        kind = Patch if isinstance(node.ctx, ast.Store) else Load
        out.append(kind(node.lineno, module, path))
        return True

    def imported(self, node: ast.Call) -> tuple[str, str] | None:
        """What an ``import_module(...)`` imports and gives; None where it is another call or cannot be told."""
        try:
            return imported(node, self.values)
        except NotConstant:
            return None

    def text(self, node: ast.expr) -> str | None:
        """A string that is worked out from constants."""
        plain = text_of(node)
        if plain is not None or isinstance(node, ast.Constant):
            return plain
        try:
            found = value_of(node, self.values)
        except NotConstant:
            return None
        return found if isinstance(found, str) else None

    def subscript(self, node: ast.Subscript, out: list[Node]) -> None:
        """``X.__dict__["name"]`` and ``sys.modules["name"] = ...``."""
        if not isinstance(node.value, ast.Attribute):
            return
        path = dotted(node.value)
        if path[-2:] != ["sys", "modules"] and path[-1:] != ["__dict__"]:
            return
        key = self.text(node.slice)
        if key is None:
            return
        if path[-2:] == ["sys", "modules"] and isinstance(node.ctx, ast.Store) and self.touches(key):
            out.append(Patch(node.lineno, key, []))
        elif path[-1:] == ["__dict__"]:
            target = self.known.get(path[0])
            if target and not target.startswith(":"):
                if isinstance(node.ctx, ast.Load):
                    out.append(Load(node.lineno, target, [*path[1:], f"[{key}]"]))
                else:
                    out.append(Patch(node.lineno, target, [*path[1:-1], key]))

    def call(self, node: ast.Call, out: list[Node]) -> None:
        """A call, and what is imported, read or set by a name in a string."""
        function = node.func
        if isinstance(function, (ast.Name, ast.Attribute)):
            if importer(function, self.values) is not None:
                found = self.imported(node)
                if found is not None and self.touches(found[0]):
                    out.append(Import(node.lineno, found[0], []))
                return
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
            if isinstance(function, ast.Call):  # the result is called: a decorator that is made by a call
                target, path = self.callee(function.func)
                return target, [*path, RESULT] if target else []
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Call):
                target, path = self.callee(function.value.func)
                if target and not target.startswith(("super:", "self:")):
                    return target, [*path, RESULT, function.attr]
            if (
                isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Call)
                and isinstance(function.value.func, ast.Name)
                and function.value.func.id == "super"
            ):
                return f"super:{self.owner()}", [function.attr]
            return "", []
        bound = self.known.get(first)
        if bound:
            return bound, dotted(function)[1:]
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
        first = self.text(node.args[0]) if node.args else None
        if path[-1:] == ["find_spec"] and first and self.touches(first):
            if "." in first.strip("."):  # the packages around it are imported
                out.append(Import(node.lineno, first.rpartition(".")[0], []))
            return True
        if path in (["resolve_name"], ["pkgutil", "resolve_name"]) and first and self.touches(first):
            module, _, name = first.partition(":")
            out.append(Import(node.lineno, module, [name.partition(".")[0]] if name else []))
            return True
        if path[-1:] in (["setattr"], ["getattr"], ["extend_enum"], ["delattr"]) and len(node.args) > 1:
            self.of_name(node, path[-1], out)
            return True
        if path == ["sys", "modules", "setdefault"] and first and self.touches(first):
            out.append(Patch(node.lineno, first, []))
            return True
        return False

    def of_name(self, node: ast.Call, which: str, out: list[Node]) -> None:
        """``setattr(X, "y", ...)`` and ``getattr(X, "y")``."""
        path, name = dotted(node.args[0]), self.text(node.args[1])
        target = self.known.get(path[0], "") if path and name is not None else ""
        if not path and isinstance(node.args[0], ast.Call) and name is not None:
            found = self.imported(node.args[0])
            target = found[1] if found is not None and self.touches(found[1]) else ""
        if not target or name is None or target.startswith(":"):
            return
        if which == "delattr":
            out.append(Load(node.lineno, target, [*path[1:], name]))
        elif which != "getattr":
            out.append(Patch(node.lineno, target, [*path[1:], name]))
        elif len(node.args) == 2:
            out.append(Load(node.lineno, target, [*path[1:], name]))


RESULT = "()"
"""Stands in a path for what a call gives."""


def _first(node: ast.expr) -> str | None:
    """The name that a chain of attributes begins with; None where it begins with anything else."""
    while type(node) is ast.Attribute:
        node = node.value
    return node.id if type(node) is ast.Name else None
