"""What happens when a module is imported: its imports, attribute reads, calls and patches, with their guards.

Only what touches an imported project (``roots``) is kept, and of the file's own functions only those that
hold something to look at.
"""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from build_recipes.verify.read.expressions import Expressions
from build_recipes.verify.read.model import Call, Flow, Handler, If, Import, Node, Raise, Try, With
from build_recipes.verify.read.outline import FunctionNode, Outline
from build_recipes.verify.read.scope import Scope, bind, bind_all
from build_recipes.verify.read.syntax import (
    FALSE,
    TRUE,
    UNKNOWN,
    dotted,
    is_try,
    is_word,
    mentions,
    name_of,
    source_module,
    truth,
)

_SELF_READ = re.compile(r"self\.(\w+)(?!\w|\s*(?::[^=\n]+)?=(?!=))")


class Later(NamedTuple):
    """A function that has been passed over so far."""

    node: FunctionNode
    prefix: str
    text: str


def read_flow(outline: Outline, roots: tuple[str, ...], own: str) -> Flow:
    """The flow of a parsed file.

    :param roots: top-level packages whose uses are kept (relative imports always are).
    :param own: the package the file belongs to; dotted names of it in strings are kept as mentions.
    """
    return _Reader(outline, roots, own).read()


class _Reader(Expressions):
    def __init__(self, outline: Outline, roots: tuple[str, ...], own: str) -> None:
        super().__init__(roots)
        self.outline = outline
        self.own = own
        self.functions: dict[str, list[Node]] = {}
        self.annotations = True
        self.in_function = False
        self.wanted: set[str] = {"import", "import_module", "__import__"}
        self.later: dict[str, Later] = {}
        self.selves: dict[str, dict[str, int]] = {}

    def read(self) -> Flow:
        tree = self.outline.tree
        bind_all(tree.body, self.known, self.touches)
        if any(
            isinstance(s, ast.ImportFrom)
            and s.module == "__future__"
            and any(a.name == "annotations" for a in s.names)
            for s in tree.body
        ):
            self.annotations = False
        self.wanted.update(name for name, target in self.known.items() if self.foreign(target))
        body = self.block(tree.body)
        self.callers()
        return Flow(body, self.functions, self.mentions(), self.selves)

    def mentions(self) -> list[str]:
        """Dotted names of the own project at the beginning of strings."""
        text = self.outline.text
        found = re.finditer(rf"{self.own}(?:\.\w+)+", text)
        return sorted({match[0] for match in found if text[match.start() - 1 : match.start()] in ("'", '"')})

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

    def foreign(self, target: str) -> bool:
        """Whether a name is bound to another project's module (of the wanted ones)."""
        root = target.partition(":")[0].partition(".")[0]
        return root in self.roots and root != self.own

    # -- statements

    def block(self, body: list[ast.stmt]) -> list[Node]:
        found: list[Node] = []
        for node in body:
            self.statement(node, found)
        return found

    def statement(self, node: ast.stmt, out: list[Node]) -> None:
        if isinstance(node, (ast.Expr, ast.Assign, ast.Return)):  # most of them
            self.simple(node, out)
        elif isinstance(node, ast.Import):
            out.extend(Import(node.lineno, a.name, []) for a in node.names if self.touches(a.name))
        elif isinstance(node, ast.ImportFrom):
            module = source_module(node)
            if self.touches(module):
                out.append(Import(node.lineno, module, [a.name for a in node.names]))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.function(node, out)
        elif isinstance(node, ast.ClassDef):
            for expression in (*node.bases, *(k.value for k in node.keywords)):
                self.expression(expression, out)
            outer, self.prefix = self.prefix, f"{self.prefix}{node.name}."
            if any(self.known.get(name_of(base).partition(".")[0]) for base in node.bases):
                self.heir(node)
            out.extend(self.block(node.body))
            self.prefix = outer
            self.decorators(node, out)
        elif isinstance(node, ast.If):
            self.branch(node, out)
        elif is_try(node):
            handlers = [Handler(_exceptions(h.type), self.block(h.body)) for h in node.handlers]
            entry = Try(
                node.lineno,
                self.block(node.body),
                handlers,
                self.block(node.orelse),
                self.block(node.finalbody),
            )
            if entry.body or entry.orelse or entry.final or any(h.body for h in handlers):
                out.append(entry)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                self.expression(item.context_expr, out)
            hidden = [
                name
                for item in node.items
                if isinstance(item.context_expr, ast.Call) and name_of(item.context_expr).endswith("suppress")
                for argument in item.context_expr.args
                for name in _exceptions(argument)
            ]
            body = self.block(node.body)
            out.extend([With(node.lineno, hidden, body)] if hidden and body else body)
        elif isinstance(node, ast.Raise):
            if node.exc is not None:
                self.expression(node.exc, out)
            out.append(Raise(node.lineno))
        else:
            self.simple(node, out)

    def heir(self, node: ast.ClassDef) -> None:
        """A class whose bases may be another project's: what it reads of ``self`` may be inherited."""
        if self.in_function:
            return
        self.heirs.add(self.prefix)
        source = self.outline.class_text(node)
        found = self.selves.setdefault(self.prefix[:-1], {})
        for match in _SELF_READ.finditer(source):
            if match[1] not in found and not is_word(source[match.start() - 1]):
                found[match[1]] = node.lineno + source.count("\n", 0, match.start())

    def branch(self, node: ast.If, out: list[Node]) -> None:
        self.expression(node.test, out)
        test = truth(node.test)
        body = self.block(node.body) if test != FALSE else []
        orelse = self.block(node.orelse) if test != TRUE else []
        if test in (TRUE, FALSE):
            out.extend(body or orelse)
        elif body or orelse:
            text = ast.unparse(node.test)
            out.append(If(node.lineno, test, text if len(text) < 120 else text[:117] + "...", body, orelse))

    def simple(self, node: ast.stmt, out: list[Node]) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self.expression(target, out)
        if isinstance(node, (ast.Assign, ast.Expr, ast.Return)):
            if node.value is not None:
                self.expression(node.value, out)
            return
        for field, value in ast.iter_fields(node):
            if field == "annotation" and not (self.annotations and not self.in_function):
                continue
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.expr):
                    self.expression(item, out)
                elif isinstance(item, ast.stmt):
                    self.statement(item, out)
                elif isinstance(item, ast.match_case):
                    inner = self.block(item.body)
                    if inner:
                        out.append(If(item.pattern.lineno, UNKNOWN, "match", inner, []))

    def decorators(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, out: list[Node]
    ) -> None:
        for decorator in node.decorator_list:
            self.expression(decorator, out)
            if not isinstance(decorator, ast.Call):
                target, path = self.callee(decorator)
                if target:
                    out.append(Call(decorator.lineno, target, path, 1, [], False))

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
        if self.prefix in self.heirs or mentions(text, self.wanted):
            self.body(node, self.prefix)
        else:
            self.later[f"{self.prefix}{node.name}"] = Later(node, self.prefix, text)

    def body(self, node: FunctionNode, prefix: str) -> None:
        spec = node.args
        scope: Scope = {}
        statements = self.outline.body(node)
        bind_all(statements, scope, self.touches)
        for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg):
            if argument is not None:
                bind(scope, argument.arg, "")
        outer = self.known, self.in_function
        self.known, self.in_function = {**self.known, **scope}, True
        self.prefix = f"{prefix}{node.name}."
        found = self.block(statements)
        self.prefix = prefix
        self.known, self.in_function = outer
        if found:
            self.functions.setdefault(f"{prefix}{node.name}", []).extend(found)


def _exceptions(node: ast.expr | None) -> list[str]:
    """Last parts of the names of the exceptions of an ``except`` clause."""
    if node is None:
        return []
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return [dotted(part)[-1] if dotted(part) else "?" for part in parts]
