"""What happens when a module is imported: its imports, attribute reads, calls and patches, with their guards.

Only what touches an imported project (``roots``) is kept, and of the file's own functions only those that
hold something to look at.
"""

from __future__ import annotations

import ast
import functools
import re
from typing import NamedTuple

from build_recipes.compat.model import (
    Call,
    Flow,
    Handler,
    If,
    Import,
    Load,
    Node,
    Patch,
    Raise,
    Try,
    With,
)
from build_recipes.compat.outline import FunctionNode, Outline
from build_recipes.compat.scope import Scope, bind, bind_all
from build_recipes.compat.syntax import (
    FALSE,
    TRUE,
    UNKNOWN,
    dotted,
    is_try,
    is_word,
    name_of,
    source_module,
    text_of,
    truth,
)

_SELF_READ = re.compile(r"self\.(\w+)(?!\w|\s*(?::[^=\n]+)?=(?!=))")


_LEAVES = frozenset((ast.Name, ast.Constant, ast.Lambda, ast.Load, ast.Store, ast.Del))
"""Nodes of an expression that hold nothing to look at; a lambda's body runs later."""


def _has_word(word: str, text: str) -> bool:
    return word in text and _pattern(word).search(text) is not None


@functools.lru_cache(4096)
def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(word)}\b")


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


class _Reader:
    def __init__(self, outline: Outline, roots: tuple[str, ...], own: str) -> None:
        self.outline = outline
        self.roots = roots
        self.mention = re.compile(rf"""["']({own}(?:\.\w+)+)""")
        self.scopes: list[Scope] = []
        self.functions: dict[str, list[Node]] = {}
        self.annotations = True
        self.own = own
        self.wanted: set[str] = {"import", "import_module", "__import__"}
        self.later: dict[str, Later] = {}
        self.prefix = ""
        self.selves: dict[str, dict[str, int]] = {}
        self.heirs: set[str] = set()

    def read(self) -> Flow:
        tree = self.outline.tree
        scope: Scope = {}
        bind_all(tree.body, scope, self.touches)
        if any(
            isinstance(s, ast.ImportFrom)
            and s.module == "__future__"
            and any(a.name == "annotations" for a in s.names)
            for s in tree.body
        ):
            self.annotations = False
        self.scopes.append(scope)
        self.wanted.update(name for name, target in scope.items() if self.foreign(target))
        body = self.block(tree.body)
        self.callers()
        return Flow(body, self.functions, sorted(set(self.mention.findall(self.outline.text))), self.selves)

    def callers(self) -> None:
        """Read the functions that lead to one that was read: they may be what a module calls on import."""
        while self.later:
            names = {name.rpartition(".")[2] for name in self.functions}
            found = [
                key for key, entry in self.later.items() if any(_has_word(name, entry.text) for name in names)
            ]
            if not found:
                return
            for key in found:
                entry = self.later.pop(key)
                self.prefix = entry.prefix
                self.body(entry.node, entry.prefix)
                self.functions.setdefault(key, [])

    # -- names

    def foreign(self, target: str) -> bool:
        """Whether a name is bound to another project's module (of the wanted ones)."""
        root = target.partition(":")[0].partition(".")[0]
        return root in self.roots and root != self.own

    def touches(self, module: str) -> bool:
        return module.startswith(".") or module.partition(".")[0] in self.roots

    def meaning(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return ""

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
            if any(self.meaning(name_of(base).partition(".")[0]) for base in node.bases):
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
        if len(self.scopes) > 1:
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
            if field == "annotation" and not (self.annotations and len(self.scopes) == 1):
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
                self.called(decorator, out, 1, [], False)

    def function(self, node: FunctionNode, out: list[Node]) -> None:
        spec = node.args
        for default in (*spec.defaults, *spec.kw_defaults):
            if default is not None:
                self.expression(default, out)
        if self.annotations and len(self.scopes) == 1:
            arguments = (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg)
            for annotation in (*(a.annotation for a in arguments if a), node.returns):
                if annotation is not None:
                    self.expression(annotation, out)
        self.decorators(node, out)
        text = self.outline.body_text(node)
        if self.prefix in self.heirs or any(_has_word(word, text) for word in self.wanted):
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
        self.scopes.append(scope)
        self.prefix = f"{prefix}{node.name}."
        found = self.block(statements)
        self.prefix = prefix
        self.scopes.pop()
        if found:
            self.functions.setdefault(f"{prefix}{node.name}", []).extend(found)

    # -- expressions

    def expression(self, node: ast.expr, out: list[Node]) -> None:
        """Reads, calls and patches in an expression, what may be skipped at run time left out."""
        todo: list[ast.AST] = [node]
        while todo:
            item = todo.pop()
            kind = type(item)
            if kind in _LEAVES:
                continue
            if isinstance(item, ast.Attribute):
                if not self.attribute(item, out):
                    todo.append(item.value)
            elif isinstance(item, ast.Call):
                self.call(item, out)
                if type(item.func) is not ast.Name:
                    todo.append(item.func)
                todo.extend(item.args)
                todo.extend([keyword.value for keyword in item.keywords])
            elif isinstance(item, ast.BoolOp):
                todo.append(item.values[0])
            elif isinstance(item, ast.IfExp):
                todo.append(item.test)
            elif isinstance(item, ast.Subscript):
                self.subscript(item, out)
                todo.extend((item.value, item.slice))
            else:
                for field in item._fields:
                    value = getattr(item, field)
                    if isinstance(value, list):
                        todo.extend([inner for inner in value if isinstance(inner, ast.AST)])
                    elif isinstance(value, ast.AST):
                        todo.append(value)

    def attribute(self, node: ast.Attribute, out: list[Node]) -> bool:
        path = dotted(node)
        if not path:
            return False
        target = self.meaning(path[0])
        if not target or target.startswith(":"):
            return True
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
        path = dotted(node.value)
        if key is None or len(path) < 2:
            return
        if path[-2:] == ["sys", "modules"] and isinstance(node.ctx, ast.Store) and self.touches(key):
            out.append(Patch(node.lineno, key, []))
        elif path[-1] == "__dict__" and isinstance(node.ctx, ast.Load):
            target = self.meaning(path[0])
            if target and not target.startswith(":"):
                out.append(Load(node.lineno, target, [*path[1:], f"[{key}]"]))

    def call(self, node: ast.Call, out: list[Node]) -> None:
        path = dotted(node.func)
        first = text_of(node.args[0]) if node.args else None
        if path[-1:] in (["import_module"], ["__import__"]) and first and self.touches(first):
            if not first.startswith("."):
                out.append(Import(node.lineno, first, []))
            return
        if path[-1:] in (["setattr"], ["getattr"], ["extend_enum"]) and len(node.args) > 1:
            self.by_name(node, path[-1], out)
            return
        if path == ["sys", "modules", "setdefault"] and first and self.touches(first):
            out.append(Patch(node.lineno, first, []))
            return
        positional = -1 if any(isinstance(a, ast.Starred) for a in node.args) else len(node.args)
        named = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
        self.called(node.func, out, positional, named, len(named) < len(node.keywords))

    def called(
        self, function: ast.expr, out: list[Node], positional: int, named: list[str], is_open: bool
    ) -> None:
        path = dotted(function)
        if path and (target := self.meaning(path[0])):
            out.append(Call(function.lineno, target, path[1:], positional, named, is_open))
        elif (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Call)
            and dotted(function.value.func) == ["super"]
        ):
            owner = self.owner()
            out.append(Call(function.lineno, f"super:{owner}", [function.attr], positional, named, is_open))
        elif len(path) == 2 and path[0] == "self" and (owner := self.owner()):
            out.append(Call(function.lineno, f"self:{owner}", [path[1]], positional, named, is_open))

    def owner(self) -> str:
        """The innermost class around this point that may inherit from another project; empty if there is none."""
        parts = self.prefix.split(".")
        for length in range(len(parts) - 1, 0, -1):
            if ".".join(parts[:length]) + "." in self.heirs:
                return ".".join(parts[:length])
        return ""

    def by_name(self, node: ast.Call, which: str, out: list[Node]) -> None:
        path, name = dotted(node.args[0]), text_of(node.args[1])
        if not path or name is None or not (target := self.meaning(path[0])) or target.startswith(":"):
            return
        if which != "getattr":
            out.append(Patch(node.lineno, target, [*path[1:], name]))
        elif len(node.args) == 2:
            out.append(Load(node.lineno, target, [*path[1:], name]))


def _exceptions(node: ast.expr | None) -> list[str]:
    """Last parts of the names of the exceptions of an ``except`` clause."""
    if node is None:
        return []
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return [dotted(part)[-1] if dotted(part) else "?" for part in parts]
