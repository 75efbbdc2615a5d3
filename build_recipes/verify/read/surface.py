"""The surface of a module: which names it has, under which conditions, and what they are."""

from __future__ import annotations

import ast
import re

from build_recipes.verify.read.constants import NotConstant, value_of
from build_recipes.verify.read.definitions import read_class, read_function
from build_recipes.verify.read.lazy import keys_of, read_lazy
from build_recipes.verify.read.model import (
    ALWAYS,
    CLASS,
    FUNCTION,
    IMPORT,
    SOMETIMES,
    TYPING,
    VALUE,
    Class,
    Definition,
    Function,
    Surface,
)
from build_recipes.verify.read.outline import Outline
from build_recipes.verify.read.syntax import (
    FALSE,
    TRUE,
    blocks_of,
    bound_names,
    captured,
    dotted,
    is_try,
    leaves,
    name_of,
    source_module,
    text_of,
    truth,
    walruses,
)

_FILLS = re.compile(r"globals\(\)\s*(?:\[[^\]\n]+\]\s*=(?!=)|\.(?:update|setdefault|__setitem__)\()")


def read_surface(outline: Outline) -> Surface:
    """The surface of a parsed file."""
    return _Reader(outline).read()


class _Reader:
    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.names: dict[str, Definition] = {}
        self.stars: list[str] = []
        self.exported: list[str] | None = None
        self.constants = outline.constants
        self.namespaces: set[str] = set()
        self.binds_inside = ":=" in outline.text
        self.getattr: ast.FunctionDef | None = None
        self.dynamic = False
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, Class] = {}
        self.patches: list[str] = []

    def read(self) -> Surface:
        tree, text = self.outline.tree, self.outline.text
        self.block(tree.body, ALWAYS)
        if not self.dynamic and "globals()" in text:
            self.dynamic = self.filled_by_a_function(tree.body)
        for name in sorted(self.outline.rebound):
            self.names.setdefault(name, Definition(VALUE, SOMETIMES, 0))
        lazy = (
            read_lazy(self.getattr, self.outline.body(self.getattr), self.constants) if self.getattr else None
        )
        return Surface(
            names=self.names,
            stars=self.stars,
            exported=self.exported,
            lazy=lazy,
            dynamic=self.dynamic,
            functions=self.functions,
            classes=self.classes,
            patches=self.patches,
        )

    # -- statements

    def define(self, name: str, kind: str, when: int, line: int, target: str = "") -> None:
        old = self.names.get(name)
        if old is not None and old.when < when:
            if when == TYPING:
                return
            when = old.when
        if old is not None and old.when != TYPING:
            line = old.line
        self.names[name] = Definition(kind, when, line, target)

    def block(self, body: list[ast.stmt], when: int) -> None:
        for statement in body:
            self.statement(statement, when)

    def statement(self, node: ast.stmt, when: int) -> None:
        if self.binds_inside:
            for name, surely in walruses(node):
                self.define(name, VALUE, when if surely else max(when, SOMETIMES), node.lineno)
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                self.define(
                    alias.asname or top, IMPORT, when, node.lineno, alias.name if alias.asname else top
                )
        elif isinstance(node, ast.ImportFrom):
            module = source_module(node)
            for alias in node.names:
                if alias.name == "*":
                    if when != TYPING:
                        self.stars.append(module)
                else:
                    self.define(
                        alias.asname or alias.name, IMPORT, when, node.lineno, f"{module}:{alias.name}"
                    )
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name == "__getattr__" and isinstance(node, ast.FunctionDef):
                if when != TYPING:
                    self.getattr = node
                return
            self.define(node.name, FUNCTION, when, node.lineno)
            if when != TYPING:
                self.functions[node.name] = read_function(node)
        elif isinstance(node, ast.ClassDef):
            self.define(node.name, CLASS, when, node.lineno)
            if when != TYPING:
                self.classes[node.name] = read_class(node, self.outline)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            self.assignment(node, when)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                for name in bound_names(target) if when == ALWAYS else ():
                    self.names.pop(name, None)
        elif isinstance(node, ast.Expr):
            self.expression(node.value, when)
        else:
            self.compound(node, when)

    def compound(self, node: ast.stmt, when: int) -> None:
        if isinstance(node, ast.If):
            known = truth(node.test)
            if known == FALSE and when != TYPING and _names_typing(node.test):
                self.block(node.body, TYPING)
                self.block(node.orelse, when)
            elif known in (TRUE, FALSE):
                self.block(node.body if known == TRUE else node.orelse, when)
            else:
                self.branches([node.body, node.orelse], when)
        elif is_try(node):
            self.branches(
                [node.body + node.orelse, *(h.body for h in node.handlers if not leaves(h.body))], when
            )
            self.block(node.finalbody, when)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if item.optional_vars is not None:
                    for name in bound_names(item.optional_vars):
                        self.define(name, VALUE, when, node.lineno)
            guarded = any(name_of(item.context_expr).endswith("suppress") for item in node.items)
            self.block(node.body, max(when, SOMETIMES) if guarded else when)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.While, ast.Match)):
            runs = when if self.surely_runs(node) else max(when, SOMETIMES)
            if isinstance(node, (ast.For, ast.AsyncFor)):
                for name in bound_names(node.target):
                    self.define(name, VALUE, runs, node.lineno)
            if isinstance(node, ast.Match):
                for name in captured(node):
                    self.define(name, VALUE, max(when, SOMETIMES), node.lineno)
            else:
                self.block(node.body, runs)
            for body in blocks_of(node):
                if isinstance(node, ast.Match) or body is not node.body:
                    self.block(body, max(when, SOMETIMES))
        elif type(node).__name__ == "TypeAlias":
            self.define(node.name.id, VALUE, when, node.lineno)  # type: ignore[attr-defined]

    def surely_runs(self, node: ast.For | ast.AsyncFor | ast.While | ast.Match) -> bool:
        """Whether a loop's body runs at least once."""
        if isinstance(node, ast.While):
            return truth(node.test) == TRUE
        if not isinstance(node, ast.For):
            return False
        try:
            return bool(value_of(node.iter, self.constants))
        except NotConstant:
            return False

    def branches(self, bodies: list[list[ast.stmt]], when: int) -> None:
        """Alternatives: a name that all of them define is there in any case."""
        outer, found = self.names, []
        for body in bodies:
            self.names = {}
            self.block(body, when)
            found.append(self.names)
        self.names = outer
        for names in found:
            for name, entry in names.items():
                surely = all(name in other and other[name].when == when for other in found)
                self.define(
                    name, entry.kind, when if surely else max(when, SOMETIMES), entry.line, entry.target
                )

    def assignment(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, when: int) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if isinstance(node, ast.AnnAssign) and node.value is None:
            return
        for target in targets:
            for name in bound_names(target):
                made = name_of(node.value) if isinstance(node.value, (ast.Call, ast.Name)) else ""
                kind = VALUE
                if isinstance(node.value, (ast.Name, ast.Attribute)):
                    made = "=" + ".".join(dotted(node.value))
                self.define(name, kind, when, node.lineno, made)
                self.literal(name, node)
            if isinstance(target, ast.Attribute):
                path = dotted(target)
                if len(path) == 2:
                    self.patches.append(".".join(path))
                elif _is_namespace(target.value):  # sys.modules[__name__].x = ...
                    self.bound(target.attr, when, node.lineno)
            elif isinstance(target, ast.Subscript) and self.is_namespace(target.value):
                self.bound(self.text(target.slice), when, node.lineno)
            elif isinstance(target, ast.Subscript) and _is_namespace(target):
                self.dynamic = True
            elif isinstance(target, ast.Name) and self.is_namespace(node.value):
                self.namespaces.add(target.id)

    def literal(self, name: str, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        """Keep the strings of a list or the keys of a table, for ``__all__`` and ``__getattr__``."""
        if name == "__all__":
            keys = keys_of(node.value, self.constants)
            if keys is None:
                self.exported = None if not isinstance(node, ast.AugAssign) else self.exported
            elif isinstance(node, ast.AugAssign):
                self.exported = (self.exported or []) + keys
            else:
                self.exported = keys

    def expression(self, node: ast.expr, when: int) -> None:
        if not isinstance(node, ast.Call):
            return
        whole = name_of(node.func)
        name: str | None
        if whole == "exec":
            self.dynamic = True
        elif isinstance(node.func, ast.Attribute) and self.is_namespace(node.func.value):
            if node.func.attr == "update":
                self.updated(node, when)
            elif node.func.attr in ("setdefault", "__setitem__") and node.args:
                self.bound(self.text(node.args[0]), when, node.lineno)
        elif whole == "setattr" and len(node.args) > 1:
            name = self.text(node.args[1])
            if _is_namespace(node.args[0]):
                self.bound(name, when, node.lineno)
            if name and isinstance(node.args[0], ast.Name):
                self.patches.append(f"{node.args[0].id}.{name}")
        elif whole in ("__all__.extend", "__all__.append") and node.args and self.exported is not None:
            only = text_of(node.args[0])
            more = [only] if only is not None else keys_of(node.args[0], self.constants)
            self.exported = None if more is None else self.exported + more

    def text(self, node: ast.expr) -> str | None:
        """The text of a name that is given as a string."""
        try:
            found = value_of(node, self.constants)
        except NotConstant:
            return None
        return found if isinstance(found, str) else None

    def bound(self, name: str | None, when: int, line: int) -> None:
        """A name that is set in the namespace by other means than an assignment; None where it cannot be told."""
        if name is None or name.startswith("__"):
            self.dynamic = True
        else:
            self.define(name, VALUE, when, line)

    def updated(self, node: ast.Call, when: int) -> None:
        """``globals().update(...)``."""
        for keyword in node.keywords:
            self.bound(keyword.arg, when, node.lineno)
        for argument in node.args:
            keys = keys_of(argument, self.constants)
            self.dynamic = self.dynamic or keys is None
            for key in keys or ():
                self.bound(key, when, node.lineno)

    def is_namespace(self, node: ast.expr | None) -> bool:
        """``globals()`` and the like, also by a name that was given to it or as ``__dict__`` of the module."""
        if isinstance(node, ast.Name):
            return node.id in self.namespaces
        if isinstance(node, ast.Attribute) and node.attr == "__dict__":
            return _is_namespace(node.value)
        return node is not None and _is_namespace(node)

    def filled_by_a_function(self, body: list[ast.stmt]) -> bool:
        """Whether a function that the module calls at its top level writes into ``globals()``."""
        called = {
            name_of(node.value.func)
            for node in body
            if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call)
        }
        return any(
            _FILLS.search(self.outline.body_text(node)) is not None
            for node in body
            if isinstance(node, ast.FunctionDef) and node.name in called
        )


def _is_namespace(node: ast.expr) -> bool:
    """``globals()``, ``vars()``, ``locals()`` and ``sys.modules[__name__]``."""
    if isinstance(node, ast.Call):
        return (
            isinstance(node.func, ast.Name)
            and node.func.id in ("globals", "vars", "locals")
            and not node.args
        )
    if not isinstance(node, ast.Subscript) or dotted(node.value) != ["sys", "modules"]:
        return False
    return isinstance(node.slice, ast.Name) and node.slice.id == "__name__"


def _names_typing(test: ast.expr) -> bool:
    return any(
        dotted(node)[-1:] == ["TYPE_CHECKING"] for node in ast.walk(test) if isinstance(node, ast.expr)
    )
