"""What the names of a file or a function are bound to."""

from __future__ import annotations

import ast
from collections.abc import Callable

from build_recipes.verify.read.syntax import BIND_NOTHING, blocks_of, bound_names, source_module

Scope = dict[str, str]
"""Local name to what it is bound to: ``module``, ``module:name``, ``:name`` for the file's own, or nothing
where it is bound to something else or to different things."""


def bind_all(body: list[ast.stmt], scope: Scope, touches: Callable[[str], bool]) -> None:
    """Bind what this block's statements bind, definitions' bodies left out."""
    for node in body:
        if type(node) is ast.Expr or type(node) in BIND_NOTHING:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if touches(alias.name):
                    bind(scope, alias.asname or top, alias.name if alias.asname else top)
        elif isinstance(node, ast.ImportFrom):
            module = source_module(node)
            for alias in node.names:
                if touches(module) and alias.name != "*":
                    bind(scope, alias.asname or alias.name, f"{module}:{alias.name}")
                elif alias.name != "*":
                    scope.pop(alias.asname or alias.name, None)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bind(scope, node.name, f":{node.name}")
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name in bound_names(target):
                    bind(scope, name, "")
        else:
            if isinstance(node, (ast.For, ast.AsyncFor)):
                for name in bound_names(node.target):
                    bind(scope, name, "")
            if isinstance(node, (ast.With, ast.AsyncWith)):
                for item in node.items:
                    if item.optional_vars is not None:
                        for name in bound_names(item.optional_vars):
                            bind(scope, name, "")
            for inner in blocks_of(node):
                bind_all(inner, scope, touches)


def bind(scope: Scope, name: str, target: str) -> None:
    """Two different meanings of one name: nothing is said about it."""
    scope[name] = target if scope.get(name, target) == target else ""
