"""The names that a block of statements binds, and to what: an expression, where it does so once and plainly."""

from __future__ import annotations

import ast
from typing import Any

from build_recipes.verify.read.constants import Ref, Unread
from build_recipes.verify.read.syntax import BIND_NOTHING, blocks_of, bound_names, dotted, source_module


def constants(body: list[ast.stmt]) -> dict[str, Any]:
    """The names that a block binds: to an expression where it does so once and plainly, else to `Unread`."""
    found: dict[str, Any] = {}
    _bind_block(body, found, plain=True)
    return found


def _bind_block(body: list[ast.stmt], found: dict[str, Any], *, plain: bool) -> None:
    def bind(name: str, value: Any) -> None:
        found[name] = value if plain and name not in found else Unread

    for node in body:
        if type(node) in BIND_NOTHING:
            continue
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            bind(node.targets[0].id, node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.value is not None:
                bind(node.target.id, node.value)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            old = found.get(node.target.id)
            known = plain and isinstance(old, ast.expr)
            found[node.target.id] = ast.BinOp(old, node.op, node.value) if known and old else Unread
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            _mutate(node.value, found, plain=plain)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            _bind_import(node, found)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = Ref("", node.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                    _add_item(target, node.value, found, plain=plain)
                for name in bound_names(target):
                    bind(name, Unread)
        else:
            if isinstance(node, (ast.For, ast.AsyncFor)):
                for name in bound_names(node.target):
                    found[name] = Unread
            for inner in blocks_of(node):
                _bind_block(inner, found, plain=False)


def _bind_import(node: ast.Import | ast.ImportFrom, found: dict[str, Any]) -> None:
    for alias in node.names:
        if isinstance(node, ast.Import):
            name = alias.asname or alias.name.partition(".")[0]
            found[name] = Ref(alias.name if alias.asname else name)
        elif alias.name != "*":
            found[alias.asname or alias.name] = Ref(source_module(node), alias.name)


def _mutate(call: ast.Call, found: dict[str, Any], *, plain: bool) -> None:
    """``T.update(...)``, ``T.append(...)`` and ``T.extend(...)``; any other method leaves a table as it is."""
    path = dotted(call.func)
    old = found.get(path[0]) if len(path) == 2 else None
    if not isinstance(old, ast.expr) or path[1] not in (
        "update",
        "append",
        "extend",
        "add",
        "setdefault",
        "pop",
    ):
        return
    more: ast.expr | None = call.args[0] if len(call.args) == 1 and not call.keywords else None
    if more is not None and path[1] == "append":
        more = ast.List([more], ast.Load())
    op: ast.operator = ast.BitOr() if path[1] == "update" else ast.Add()
    known = plain and more is not None and path[1] in ("update", "append", "extend")
    found[path[0]] = ast.BinOp(old, op, more) if known and more is not None else Unread


def _add_item(target: ast.Subscript, value: ast.expr, found: dict[str, Any], *, plain: bool) -> None:
    assert isinstance(target.value, ast.Name)
    old = found.get(target.value.id)
    if isinstance(old, ast.expr):
        more = ast.Dict([target.slice], [value])
        found[target.value.id] = ast.BinOp(old, ast.BitOr(), more) if plain else Unread
