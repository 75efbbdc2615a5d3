"""Functions of a file: which of them are read, and what each does when it is called."""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from build_recipes.verify.read.asking import may_test, version_test
from build_recipes.verify.read.bindings import constants
from build_recipes.verify.read.constants import NotConstant, Ref, Unread, imported
from build_recipes.verify.read.expressions import Expressions
from build_recipes.verify.read.model import Call, If, Leave, Make, Node, Raise, walk
from build_recipes.verify.read.outline import FunctionNode, Outline
from build_recipes.verify.read.scope import Scope, bind, bind_all
from build_recipes.verify.read.syntax import VLLM, mentions

EVERY, HEIRS = "every", "heirs"
"""What is kept beyond what an import needs: of every function, or of the methods of classes that inherit."""

_FROM_HERE = re.compile(r"\bfrom\s*\.")
_ENDING = ("import", "raise", "assert", "class ")
"""Words without which a function's body imports nothing, raises nothing, and makes no class."""
MAKING = ("__init_subclass__", "__new__", "__init__", "__prepare__")
"""Methods of a base or a metaclass that run when a class is made."""


class Later(NamedTuple):
    """A function that has been passed over so far."""

    node: FunctionNode
    prefix: str
    text: str


class Functions(Expressions, ABC):
    """Reads the functions of a file.

    :param outline: the file.
    :param own: the package the file belongs to.
    :param more: `EVERY` or `HEIRS`.
    """

    def __init__(self, outline: Outline, roots: tuple[str, ...], own: str, more: str) -> None:
        super().__init__(roots)
        self.outline, self.own = outline, own
        self.values = outline.constants
        self.every, self.inherited = more == EVERY, more == HEIRS
        self.brief = own == VLLM and not more
        self.versions: dict[str, str] = {}
        self.deferred: set[str] = set()
        self.functions: dict[str, list[Node]] = {}
        self.annotations = True
        self.in_function = False
        self.wanted: set[str] = {"import_module", "__import__"}
        self.later: dict[str, Later] = {}

    @abstractmethod
    def block(self, body: list[ast.stmt]) -> list[Node]:
        """What statements do."""

    @abstractmethod
    def decorators(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, out: list[Node]
    ) -> None:
        """What the decorators of a definition do."""

    def function(self, node: FunctionNode, out: list[Node]) -> None:
        spec = node.args
        for default in (*spec.defaults, *spec.kw_defaults):
            if default is not None:
                self.expression(default, out)
        if self.annotations and not self.in_function:
            arguments = (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg)
            for annotation in (*(a.annotation for a in arguments if a), node.returns):
                if annotation is not None:
                    self.expression(annotation, out)
        self.decorators(node, out)
        text = self.outline.body_text(node)
        whole = f"{self.prefix}{node.name}"
        if isinstance(node, ast.AsyncFunctionDef):
            self.deferred.add(whole)
        if (
            isinstance(node, ast.FunctionDef)
            and not (self.in_function or self.brief)
            and may_test(node, text)
        ):
            sign = version_test(node, self.outline.body(node))
            if sign:
                self.versions[whole] = sign
        if self.brief:
            self.later[whole] = Later(node, self.prefix, text)
        elif self.every or (self.inherited and self.prefix in self.heirs) or self.imports(text):
            self.body(node, self.prefix)
        else:
            self.later[whole] = Later(node, self.prefix, text)

    def imports(self, text: str) -> bool:
        """Whether a function's body may name something of an imported project."""
        if "import" in text and (any(root in text for root in self.roots) or _FROM_HERE.search(text)):
            return True
        return mentions(text, self.wanted)

    def body(self, node: FunctionNode, prefix: str) -> None:
        spec = node.args
        scope: Scope = {}
        statements = self.outline.body(node)
        bind_all(statements, scope, self.touches)
        if "yield" in self.outline.body_text(node) and _yields(statements):
            self.deferred.add(f"{prefix}{node.name}")
        for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg):
            if argument is not None:
                bind(scope, argument.arg, "")
        outer = self.known, self.in_function, self.values
        inner = constants(statements)
        self.values = {**self.values, **dict.fromkeys(scope, Unread), **inner}
        self.bind_imported({**inner, "importlib": Ref("importlib")}, scope)
        self.known, self.in_function = {**self.known, **scope}, True
        self.prefix = f"{prefix}{node.name}."
        found = self.block(statements)
        self.prefix = prefix
        self.known, self.in_function, self.values = outer
        while found and isinstance(found[-1], Leave):
            found.pop()
        if any(not isinstance(inner, (If, Leave, Raise)) for inner, _ in walk(found)) or (
            found and self.every
        ):
            self.functions.setdefault(f"{prefix}{node.name}", []).extend(found)

    def bind_imported(self, values: dict[str, Any], scope: Scope) -> None:
        """``m = import_module("x")``: the name is bound to a module."""
        text = self.outline.text
        for name, value in values.items() if "import_module" in text or "__import__" in text else ():
            if isinstance(value, ast.Call):
                try:
                    found = imported(value, values)
                except NotConstant:
                    continue
                if found is not None and self.touches(found.given):
                    scope[name] = found.given

    def called(self, body: list[Node]) -> None:
        """Read the functions of the file that its import surely or perhaps calls."""
        todo = [body]
        while todo:
            for node, _ in walk(todo.pop()):
                if isinstance(node, Call) and node.target.startswith(":"):
                    whole = ".".join([node.target[1:], *(part for part in node.path if part != "()")])
                    first = node.target[1:]
                    names = [whole, *(f"{first}.{name}" for name in ("__init__", "__new__", "__post_init__"))]
                elif isinstance(node, Make):
                    makers = [*node.bases, node.metaclass, node.name]
                    names = [f"{maker}.{name}" for maker in makers for name in MAKING]
                else:
                    continue
                for key in names:
                    entry = self.later.pop(key, None)
                    if entry is not None and self.matters(entry):
                        self.prefix = entry.prefix
                        self.body(entry.node, entry.prefix)
                        self.functions.setdefault(key, [])
                        todo.append(self.functions[key])

    def matters(self, entry: Later) -> bool:
        """Whether a function's body may end an import: itself, or by one of the file that it may call."""
        todo, seen = [entry.text], set[str]()
        while todo:
            text = todo.pop()
            if any(word in text for word in _ENDING):
                return True
            for key, other in self.later.items():
                first = key.partition(".")[0]
                if key not in seen and mentions(text, (first,)):
                    seen.add(key)
                    todo.append(other.text)
        return False

    def callers(self) -> None:
        """Read the functions that lead to one that was read: they may be what a module calls on import."""
        while self.later:
            names = {name.rpartition(".")[2] for name in self.functions}
            found = [key for key, entry in self.later.items() if mentions(entry.text, names)]
            if not found:
                return
            for key in found:
                entry = self.later.pop(key)
                self.prefix = entry.prefix
                self.body(entry.node, entry.prefix)
                self.functions.setdefault(key, [])


def _yields(statements: list[ast.stmt]) -> bool:
    """Whether a body makes a generator of its function."""
    todo: list[ast.AST] = list(statements)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))
    return False
