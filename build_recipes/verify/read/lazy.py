"""What a module's ``__getattr__`` answers, and the literals it answers from."""

from __future__ import annotations

import ast

from build_recipes.verify.read.model import Lazy
from build_recipes.verify.read.syntax import leaves, name_of, text_of


def keys_of(node: ast.expr | None) -> list[str] | None:
    """Strings of a list, keys of a table; None where they cannot be read."""
    if isinstance(node, ast.Dict):
        found = [text_of(key) for key in node.keys]
    elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        found = [text_of(element) for element in node.elts]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.BitOr)):
        left, right = keys_of(node.left), keys_of(node.right)
        return None if left is None or right is None else left + right
    elif isinstance(node, ast.Call) and name_of(node.func) in ("frozenset", "set", "list", "tuple", "dict"):
        return keys_of(node.args[0]) if node.args else []
    else:
        return None
    return [key for key in found if key is not None] if None not in found else None


def read_lazy(node: ast.FunctionDef, statements: list[ast.stmt], tables: dict[str, list[str]]) -> Lazy:
    """What a module's ``__getattr__`` answers.

    :param statements: its body.
    :param tables: the file's lists of strings and keys of tables, by name.
    """
    if not node.args.args:
        return Lazy([], True, False)
    asked = node.args.args[0].arg
    keys: list[str] = []
    tested = known = True
    tested = False

    def is_asked(value: ast.expr) -> bool:
        return isinstance(value, ast.Name) and value.id == asked

    def table(value: ast.expr) -> None:
        nonlocal known, tested
        tested = True
        plain = keys_of(value)
        if (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Attribute)
            and value.func.attr == "keys"
        ):
            value = value.func.value
        if plain is not None:
            keys.extend(plain)
        elif isinstance(value, ast.Name) and value.id in tables:
            keys.extend(tables[value.id])
        elif not (isinstance(value, ast.Call) and name_of(value) == "globals"):
            known = False

    for item in (item for statement in statements for item in ast.walk(statement)):
        if isinstance(item, ast.Compare) and len(item.ops) == 1 and is_asked(item.left):
            if isinstance(item.ops[0], (ast.Eq, ast.NotEq)):
                only = text_of(item.comparators[0])
                tested = True
                if only is None:
                    known = False
                else:
                    keys.append(only)
            elif isinstance(item.ops[0], (ast.In, ast.NotIn)):
                table(item.comparators[0])
        elif (
            isinstance(item, ast.Subscript) and is_asked(item.slice) and not isinstance(item.value, ast.Dict)
        ):
            table(item.value)
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
            if item.func.attr in ("get", "pop") and item.args and is_asked(item.args[0]):
                table(item.func.value)
            elif is_asked(item.func.value):
                known = False  # name.startswith(...)
    raises = leaves(statements) and not (
        isinstance(statements[-1], ast.Return) and not tested and not _uses(statements[-1], asked)
    )
    return Lazy(sorted(set(keys)), raises, known and tested)


def _uses(node: ast.AST, name: str) -> bool:
    return any(isinstance(item, ast.Name) and item.id == name for item in ast.walk(node))
