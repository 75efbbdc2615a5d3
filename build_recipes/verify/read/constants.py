"""What an expression surely is, worked out from the literals of its file: no code of the file is run.

Module names, tables of a lazy ``__getattr__``, tuples of exceptions and the like are often put together from
constants. `value_of` knows the plain operations on them, and gives up on anything else.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from build_recipes.verify.read.syntax import dotted

HERE, PACKAGE = "<name>", "<package>"
"""Stand for ``__name__`` and ``__package__`` in a module's name: a file is read once, whoever holds it."""

LARGEST = 20_000
"""Elements or characters past which a value is not worked out."""
DEEPEST = 40


class NotConstant(Exception):
    """The value depends on more than the file's literals."""


class Effort:
    """What one question may take. A name stands for an expression with names of its own: written out, ten lines
    that each use the one before twice are a thousand expressions."""

    __slots__ = ("depth", "left")

    def __init__(self, most: int = 10 * LARGEST) -> None:
        self.depth, self.left = 0, most

    def spend(self) -> None:
        """One expression more.

        :raises NotConstant: it is one too many.
        """
        self.left -= 1
        if self.left < 0:
            raise NotConstant


class Ref(NamedTuple):
    """A module, or a name of one."""

    module: str
    name: str = ""

    @property
    def target(self) -> str:
        """``module`` or ``module:name``."""
        return f"{self.module}:{self.name}" if self.name else self.module


Names = Mapping[str, Any]
"""Values by local name: constants, or expressions (`ast.expr`) that are worked out when they are asked for."""

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
}
_TEXT_METHODS = """
    split rsplit partition rpartition join format removeprefix removesuffix replace strip lstrip rstrip
    lower upper title capitalize startswith endswith splitlines count find isdigit
"""
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset(["get", "keys", "values", "items", "copy"]),
    list: frozenset(["index", "count", "copy"]),
    tuple: frozenset(["index", "count"]),
    set: frozenset(["union", "copy"]),
    frozenset: frozenset(["union"]),
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{made.__name__: made for made in (frozenset, set, list, tuple, dict, str, int, bool, len, sorted)},
    **{made.__name__: made for made in (any, all, min, max, reversed, enumerate, zip, map)},
}


def value_of(node: ast.expr | None, names: Names, effort: Effort | None = None) -> Any:
    """The value of an expression.

    :param effort: what the question that this is a part of may still take.
    :raises NotConstant: it cannot be told.
    """
    effort = effort or Effort()
    effort.spend()
    if effort.depth > DEEPEST or node is None:
        raise NotConstant
    effort.depth += 1
    try:
        found = _value(node, names, effort)
    except NotConstant:
        raise
    except Exception as error:  # what Python itself says of an operation on wrong values
        raise NotConstant from error
    finally:
        effort.depth -= 1
    if isinstance(found, (str, bytes, list, tuple, dict, set, frozenset)) and len(found) > LARGEST:
        raise NotConstant
    return found


def _value(node: ast.expr, names: Names, effort: Effort) -> Any:
    def of(part: ast.expr | None) -> Any:
        return value_of(part, names, effort)

    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return _named(node.id, names, effort)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        parts = list(_elements(node.elts, of))
        return (
            tuple(parts)
            if isinstance(node, ast.Tuple)
            else parts
            if isinstance(node, ast.List)
            else set(parts)
        )
    if isinstance(node, ast.Dict):
        table: dict[Any, Any] = {}
        for key, part in zip(node.keys, node.values, strict=True):
            if key is None:
                table.update(of(part))
            else:
                table[of(key)] = _kept(part, of)
        return table
    if isinstance(node, ast.JoinedStr):
        return "".join(_piece(part, of) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _sum(node, of)
    if isinstance(node, ast.BoolOp):
        every = isinstance(node.op, ast.And)
        result: Any = every
        for part in node.values:
            result = of(part)
            if bool(result) != every:
                break
        return result
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not of(node.operand)
    if isinstance(node, ast.Compare):
        left = of(node.left)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = of(part)
            if not _OPERATORS[type(op)](left, right):
                return False
            left = right
        return True
    if isinstance(node, ast.IfExp):
        return of(node.body if of(node.test) else node.orelse)
    if isinstance(node, ast.Subscript):
        if isinstance(node.slice, ast.Slice):
            part = node.slice
            return of(node.value)[slice(*(of(p) if p else None for p in (part.lower, part.upper, part.step)))]
        found = of(node.value)[of(node.slice)]
        if found is Unread:
            raise NotConstant
        return found
    if isinstance(node, ast.Attribute):
        found = _attribute(of(node.value), node.attr)
        return names.get(found.target, found) if isinstance(found, Ref) else found
    if isinstance(node, ast.Call):
        return _called(node, names, of)
    if isinstance(node, (ast.GeneratorExp, ast.ListComp, ast.SetComp)) and len(node.generators) == 1:
        return _comprehended(node, names, effort)
    raise NotConstant


class Unread:
    """Stands in a table for a value that cannot be told, so that its keys can."""


def _kept(node: ast.expr, of: Callable[[ast.expr | None], Any]) -> Any:
    try:
        return of(node)
    except NotConstant:
        return Unread


class Python(NamedTuple):
    """``sys.version_info``."""

    major: int
    minor: int
    micro: int = 0
    releaselevel: str = "final"
    serial: int = 0


def _named(name: str, names: Names, effort: Effort) -> Any:
    if name in names:
        found = names[name]
        if isinstance(found, ast.expr):
            return value_of(found, names, effort)
        if isinstance(found, Ref) and found.target in names:
            return names[found.target]
        if found is Unread:
            raise NotConstant
        return found
    if name == "__name__":
        return HERE
    if name in ("__package__", "__spec__"):
        return PACKAGE
    raise NotConstant


def _elements(parts: list[ast.expr], of: Callable[[ast.expr | None], Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, ast.Starred):
            yield from of(part.value)
        else:
            yield of(part)


def _piece(part: ast.expr, of: Callable[[ast.expr | None], Any]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    if not isinstance(part, ast.FormattedValue) or part.conversion != -1 or part.format_spec is not None:
        raise NotConstant
    return _plain(of(part.value))


def _plain(value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise NotConstant
    return str(value)


def _sum(node: ast.BinOp, of: Callable[[ast.expr | None], Any]) -> Any:
    left, right = of(node.left), of(node.right)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.BitOr):
        return left | right
    if isinstance(node.op, ast.Mod) and isinstance(left, str):
        return left % right
    raise NotConstant


def _attribute(value: Any, name: str) -> Any:
    if isinstance(value, Ref):
        if value.name:
            raise NotConstant
        return Ref(value.module, name)
    if isinstance(value, Python) and name in Python._fields:
        return getattr(value, name)
    if value == PACKAGE and name == "parent":  # __spec__.parent
        return PACKAGE
    raise NotConstant


def _called(node: ast.Call, names: Names, of: Callable[[ast.expr | None], Any]) -> Any:
    module = imported(node, names)
    if module is not None:
        return Ref(module.given)
    if any(keyword.arg is None for keyword in node.keywords):
        raise NotConstant
    function = node.func
    if isinstance(function, ast.Attribute):
        owner = of(function.value)
        if function.attr in _METHODS.get(type(owner), frozenset()):
            found = getattr(owner, function.attr)(*_elements(node.args, of))
            if found is Unread:
                raise NotConstant
            return found
        raise NotConstant
    if not isinstance(function, ast.Name) or function.id in names:
        raise NotConstant
    if function.id == "getattr" and len(node.args) in (2, 3):
        return _attribute(of(node.args[0]), of(node.args[1]))
    if function.id == "map" and len(node.args) == 2 and isinstance(node.args[0], ast.Name):
        return [_FUNCTIONS[node.args[0].id](value) for value in of(node.args[1])]
    if function.id in _FUNCTIONS and not node.keywords:
        found = _FUNCTIONS[function.id](*_elements(node.args, of))
        return list(found) if not isinstance(found, (str, int, tuple, list, dict, set, frozenset)) else found
    raise NotConstant


def _comprehended(node: ast.GeneratorExp | ast.ListComp | ast.SetComp, names: Names, effort: Effort) -> Any:
    (loop,) = node.generators
    found = []
    for value in value_of(loop.iter, names, effort):
        inner = {**names, **matched(loop.target, value)}
        if all(value_of(test, inner, effort) for test in loop.ifs):
            found.append(value_of(node.elt, inner, effort))
    return set(found) if isinstance(node, ast.SetComp) else found


def matched(target: ast.expr, value: Any) -> dict[str, Any]:
    """The names an assignment of a value binds.

    :raises NotConstant: it binds something else than names.
    """
    if isinstance(target, ast.Name):
        return {target.id: value}
    if isinstance(target, (ast.Tuple, ast.List)):
        values = list(value)
        if len(values) != len(target.elts):
            raise NotConstant
        found: dict[str, Any] = {}
        for part, item in zip(target.elts, values, strict=True):
            found.update(matched(part, item))
        return found
    raise NotConstant


class Imported(NamedTuple):
    """What a call imports, and the module that it gives (``__import__`` gives the top one)."""

    module: str
    given: str


def imported(node: ast.Call, names: Names) -> Imported | None:
    """The module of ``import_module(...)`` or ``__import__(...)``; None where it is another call.

    :raises NotConstant: it is such a call, of a module that cannot be told.
    """
    kind = importer(node.func, names)
    if kind is None:
        return None
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    module = value_of(node.args[0] if node.args else given.get("name"), names)
    if not isinstance(module, str):
        raise NotConstant
    if kind == "__import__":
        whole = len(node.args) > 3 or "fromlist" in given
        return Imported(module, module if whole else module.partition(".")[0])
    if not module.startswith("."):
        return Imported(module, module)
    package = value_of(node.args[1] if len(node.args) > 1 else given.get("package"), names)
    if package == PACKAGE:
        return Imported(module, module)
    level = len(module) - len(module.lstrip("."))
    if not isinstance(package, str) or (package == HERE and level > 1):
        raise NotConstant
    parts = package.split(".")
    found = ".".join(filter(None, [*parts[: len(parts) - level + 1], module.lstrip(".")]))
    return Imported(found, found)


def importer(function: ast.expr, names: Names) -> str | None:
    """``import_module`` or ``__import__`` where a call is of one of them, under whatever name."""
    if isinstance(function, ast.Name):
        known = names.get(function.id)
        if known == Ref("importlib", "import_module"):
            return "import_module"
        return function.id if known is None and function.id in ("import_module", "__import__") else None
    path = dotted(function)
    if len(path) == 2 and path[1] == "import_module":
        known = names.get(path[0])
        return "import_module" if path[0] == "importlib" or known == Ref("importlib") else None
    return None
