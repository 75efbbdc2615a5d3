"""What happens when a module is imported: its imports, attribute reads, calls and patches, with their guards.

Only what touches an imported project (``roots``) is kept, and of the file's own functions only those that
hold something to look at.
"""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from typing import Any, NamedTuple

from build_recipes.verify.read.asking import asked, exceptions, may_test, probed, version_test
from build_recipes.verify.read.bindings import constants
from build_recipes.verify.read.constants import NotConstant, Ref, Unread, imported, value_of
from build_recipes.verify.read.expressions import Expressions
from build_recipes.verify.read.model import (
    Call,
    Flow,
    Handler,
    If,
    Import,
    Leave,
    Make,
    Node,
    Raise,
    Try,
    With,
    walk,
)
from build_recipes.verify.read.outline import FunctionNode, Outline
from build_recipes.verify.read.scope import Scope, bind, bind_all
from build_recipes.verify.read.syntax import (
    FALSE,
    TRUE,
    UNKNOWN,
    VLLM,
    is_try,
    is_word,
    mentions,
    name_of,
    source_module,
    truth,
)

EVERY, HEIRS = "every", "heirs"
"""What is kept beyond what an import needs: of every function, or of the methods of classes that inherit."""

_RELATIVE = re.compile(r"from (\.+[\w.]*)")
_FROM_HERE = re.compile(r"\bfrom\s*\.")
_METHOD = re.compile(r"\n +(?:async +)?def ")
_SELF_READ = re.compile(r"self\.(\w+)(?!\w|\s*(?::[^=\n]+)?=(?!=))")


_ENDING = ("import", "raise", "assert", "class ")
"""Words without which a function's body imports nothing, raises nothing, and makes no class."""
MAKING = ("__init_subclass__", "__new__", "__init__", "__prepare__")
"""Methods of a base or a metaclass that run when a class is made."""


class Later(NamedTuple):
    """A function that has been passed over so far."""

    node: FunctionNode
    prefix: str
    text: str


def read_flow(outline: Outline, roots: tuple[str, ...], own: str, more: str = "") -> Flow:
    """The flow of a parsed file.

    :param roots: top-level packages whose uses are kept (relative imports always are).
    :param own: the package the file belongs to; dotted names of it in strings are kept as mentions. Of vLLM's own
        files only what their import does is kept, and all modules of vLLM that they name anywhere.
    :param more: `EVERY` or `HEIRS`.
    """
    return _Reader(outline, roots, own, more).read()


class _Reader(Expressions):
    def __init__(self, outline: Outline, roots: tuple[str, ...], own: str, more: str) -> None:
        super().__init__(roots)
        self.outline = outline
        self.values = outline.constants
        self.every, self.inherited = more == EVERY, more == HEIRS
        self.brief = own == VLLM and not more
        self.versions: dict[str, str] = {}
        self.deferred: set[str] = set()
        self.own = own
        self.functions: dict[str, list[Node]] = {}
        self.annotations = True
        self.in_function = False
        self.wanted: set[str] = {"import_module", "__import__"}
        self.later: dict[str, Later] = {}
        self.selves: dict[str, dict[str, int]] = {}

    def read(self) -> Flow:
        tree = self.outline.tree
        bind_all(tree.body, self.known, self.touches)
        self.bind_imported(self.values, self.known)
        if any(
            isinstance(s, ast.ImportFrom)
            and s.module == "__future__"
            and any(a.name == "annotations" for a in s.names)
            for s in tree.body
        ):
            self.annotations = False
        self.wanted.update(name for name, target in self.known.items() if self.foreign(target))
        body = self.block(tree.body)
        if self.brief:
            self.called(body)
        else:
            self.callers()
        mentions = self.named() if self.brief else self.mentions()
        return Flow(body, self.functions, mentions, self.selves, self.versions, sorted(self.deferred))

    def bind_imported(self, values: dict[str, Any], scope: Scope) -> None:
        """``m = import_module("x")``: the name is bound to a module."""
        for name, value in values.items() if "import_module" in self.outline.text else ():
            if isinstance(value, ast.Call):
                try:
                    found = imported(value, values)
                except NotConstant:
                    continue
                if found is not None and self.touches(found.given):
                    scope[name] = found.given

    def named(self) -> list[str]:
        """All modules of the own project that a file names, relative ones with their dots."""
        text = self.outline.text
        found = {match[1] for match in _RELATIVE.finditer(text)} if "from ." in text else set()
        found.update(match[0] for match in re.finditer(rf"{self.own}(?:\.\w+)+", text))
        return sorted(found)

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
            if isinstance(node, ast.Return):
                out.append(Leave(node.lineno))
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
            if self.own != VLLM and any(
                self.known.get(name_of(base).partition(".")[0]) for base in node.bases
            ):
                self.heir(node)
            out.extend(self.block(node.body))
            self.prefix = outer
            self.making(node, out)
            self.decorators(node, out)
        elif isinstance(node, ast.If):
            self.branch(node, out)
        elif is_try(node):
            handlers = [Handler(exceptions(h.type, self.values), self.block(h.body)) for h in node.handlers]
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
                for name in exceptions(argument, self.values)
            ]
            body = self.block(node.body)
            out.extend([With(node.lineno, hidden, body)] if hidden and body else body)
        elif isinstance(node, ast.Raise):
            if node.exc is not None:
                self.expression(node.exc, out)
            out.append(Raise(node.lineno, "" if node.exc is None else name_of(node.exc).rpartition(".")[2]))
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            self.loop(node, out)
        elif isinstance(node, ast.Assert):
            self.expression(node.test, out)
            ask = asked(node.test, self.values)
            if ask or truth(node.test) == FALSE:
                refused: list[Node] = [Raise(node.lineno, "AssertionError")]
                out.append(If(node.lineno, truth(node.test), ast.unparse(node.test)[:117], [], refused, ask))
        else:
            self.simple(node, out)

    def loop(self, node: ast.For | ast.AsyncFor | ast.While, out: list[Node]) -> None:
        """A loop's body happens surely only where it is known to run."""
        for part in (node.test,) if isinstance(node, ast.While) else (node.iter, node.target):
            self.expression(part, out)
        body = self.block(node.body)
        if isinstance(node, ast.While):
            runs = truth(node.test) == TRUE
        else:
            try:
                runs = bool(value_of(node.iter, self.values))
            except NotConstant:
                runs = False
        if runs or not any(isinstance(inner, (Raise, Leave)) for inner, _ in walk(body)):
            out.extend(body)
        else:
            out.append(If(node.lineno, UNKNOWN, "a loop runs", body, []))
        out.extend(self.block(node.orelse))

    def making(self, node: ast.ClassDef, out: list[Node]) -> None:
        """A class with bases or a metaclass, whose own code may run when it is made."""
        meta = next((name_of(k.value) for k in node.keywords if k.arg == "metaclass"), "")
        bases = [name for base in node.bases if (name := name_of(base)) not in ("?", "object")]
        if bases or meta:
            out.append(Make(node.lineno, f"{self.prefix}{node.name}", bases, meta))

    def heir(self, node: ast.ClassDef) -> None:
        """A class whose bases may be another project's: what it reads of ``self`` may be inherited."""
        if self.in_function:
            return
        self.heirs.add(self.prefix)
        if not self.inherited:
            return
        source = self.outline.class_text(node)
        found = self.selves.setdefault(self.prefix[:-1], {})
        starts = [0, *(match.start() for match in _METHOD.finditer(source)), len(source)]
        for start, end in pairwise(starts):
            asked_for = probed(source[start:end])
            for match in _SELF_READ.finditer(source, start, end):
                if (
                    match[1] not in found
                    and match[1] not in asked_for
                    and not is_word(source[match.start() - 1])
                ):
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
            ask = asked(node.test, self.values) if test == UNKNOWN else ""
            short = text if len(text) < 120 else text[:117] + "..."
            out.append(If(node.lineno, test, short, body, orelse, ask))

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
            target, path = self.callee(decorator)  # the result of a call is called, too
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
