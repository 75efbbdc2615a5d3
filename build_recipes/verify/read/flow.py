"""What happens when a module is imported: its imports, attribute reads, calls and patches, with their guards.

Only what touches an imported project (``roots``) is kept, and of the file's own functions only those that
hold something to look at.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from itertools import pairwise

from build_recipes.verify.read.asking import asked, exceptions, probed
from build_recipes.verify.read.constants import NotConstant, Unread, value_of
from build_recipes.verify.read.decided import decided
from build_recipes.verify.read.functions import Functions
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
from build_recipes.verify.read.outline import Outline
from build_recipes.verify.read.scope import bind_all
from build_recipes.verify.read.syntax import (
    FALSE,
    TRUE,
    UNKNOWN,
    VLLM,
    is_try,
    is_word,
    name_of,
    source_module,
    truth,
)

_RELATIVE = re.compile(r"from (\.+[\w.]*)")
_KEEPS = re.compile(r"\breturn\s+(?!None\b|False\b)\S")
_METHOD = re.compile(r"\n +(?:async +)?def ")
_SELF_READ = re.compile(r"self\.(\w+)(?!\w|\s*(?::[^=\n]+)?=(?!=))")


def read_flow(outline: Outline, roots: tuple[str, ...], own: str, more: str = "") -> Flow:
    """The flow of a parsed file.

    :param roots: top-level packages whose uses are kept (relative imports always are).
    :param own: the package the file belongs to; dotted names of it in strings are kept as mentions. Of vLLM's own
        files only what their import does is kept, and all modules of vLLM that they name anywhere.
    :param more: `EVERY` or `HEIRS`.
    """
    return _Reader(outline, roots, own, more).read()


class _Reader(Functions):
    def __init__(self, outline: Outline, roots: tuple[str, ...], own: str, more: str) -> None:
        super().__init__(outline, roots, own, more)
        self.settled = {**self.values, **dict.fromkeys(outline.rebound, Unread)}
        """Constants that no function of the file binds anew."""
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
        importing = sorted(key for key, entry in self.later.items() if "import" in entry.text)
        return Flow(
            *(body, self.functions, mentions, self.selves, self.versions, sorted(self.deferred)),
            importing if self.brief else [],
        )

    @functools.cached_property
    def swallowing(self) -> set[str]:
        """Context managers of the file that may keep an exception."""
        found = set[str]()
        for node in self.outline.tree.body:
            if isinstance(node, ast.ClassDef):
                ends = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__exit__"]
                keeps = any(_KEEPS.search(self.outline.body_text(end)) for end in ends)
            else:
                text = self.outline.body_text(node) if isinstance(node, ast.FunctionDef) else ""
                keeps = "yield" in text and "except" in text
            if keeps and isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(node.name)
        return found

    def named(self) -> list[str]:
        """All modules of the own project that a file names, relative ones with their dots."""
        text = self.outline.text
        found = {match[1] for match in _RELATIVE.finditer(text)} if "from ." in text else set()
        found.update(match[0] for match in re.finditer(rf"{self.own}(?:\.\w+)+", text))
        return sorted(found)

    def mentions(self) -> list[str]:
        """Dotted names of the own project at the beginning of strings."""
        text = self.outline.text
        found = re.finditer(rf"{self.own}(?:\.\w+)+", text)
        return sorted({match[0] for match in found if text[match.start() - 1 : match.start()] in ("'", '"')})

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
            if any(name_of(item.context_expr) in self.swallowing for item in node.items):
                hidden.append("?")
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
        runs: bool | None = None
        if isinstance(node, ast.While):
            test = truth(node.test)
            runs = test == TRUE if test in (TRUE, FALSE) else decided(node.test, self.settled)
        else:
            with contextlib.suppress(NotConstant):
                runs = bool(value_of(node.iter, self.values))
        if runs is False:
            out.extend([If(node.lineno, FALSE, "a loop runs", body, [])] if body else [])
        elif runs or not any(isinstance(inner, (Raise, Leave)) for inner, _ in walk(body)):
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
        if (
            test == UNKNOWN
            and not self.in_function
            and (known := decided(node.test, self.settled)) is not None
        ):
            out.extend(self.settle(node, TRUE if known else FALSE))
            return
        body = self.block(node.body) if test != FALSE else []
        orelse = self.block(node.orelse) if test != TRUE else []
        if test in (TRUE, FALSE):
            out.extend(body or orelse)
        elif body or orelse:
            text = ast.unparse(node.test)
            ask = asked(node.test, self.values) if test == UNKNOWN else ""
            short = text if len(text) < 120 else text[:117] + "..."
            out.append(If(node.lineno, test, short, body, orelse, ask))

    def settle(self, node: ast.If, test: int) -> list[Node]:
        """A branch that the file's constants decide; the other one is looked at, and does not happen."""
        body, orelse = self.block(node.body), self.block(node.orelse)
        return [If(node.lineno, test, ast.unparse(node.test)[:117], body, orelse)] if body or orelse else []

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
