"""Conditions that ask something of a package, written so that they can be worked out later.

``if Version(vllm.__version__) < Version("0.9"):`` is decided when the vLLM is known. What is kept of it is an
expression in which every name is written as what it stands for: ``_('packaging.version:Version')``.
"""

from __future__ import annotations

import ast
import builtins
import re
from typing import Any

from build_recipes.verify.read.constants import Effort, Names, NotConstant, Ref
from build_recipes.verify.read.syntax import PRESENT, dotted, text_of

NAME, OPAQUE = "_", "_unknown"
"""Function that stands for a name of a package, and name that stands for what cannot be told."""

_DEPTH = 8
_LONGEST = 2000
"""Characters of a condition; an expression takes one at least."""
_PROBE = re.compile(r"""(?:has|get|set)attr\(\s*self\s*,\s*["'](\w+)["']""")
_PLAIN = frozenset(
    {"hasattr", "getattr", "tuple", "list", "int", "str", "map", "len", "any", "all", "bool", "dir", "set"}
)
_KEPT = (
    *(ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Call, ast.Attribute, ast.Constant, ast.Tuple, ast.List),
    *(ast.Subscript, ast.Slice, ast.IfExp, ast.GeneratorExp, ast.ListComp, ast.comprehension, ast.keyword),
    *(ast.operator, ast.cmpop, ast.boolop, ast.unaryop, ast.expr_context, ast.BinOp, ast.Starred),
)


def asked(test: ast.expr, names: Names) -> str:
    """A condition for `judge.conditions`; empty where it asks nothing of a package.

    :param names: what the names in sight stand for, see `constants.constants`.
    """
    if not _may_ask(test, names):
        return ""
    try:
        found = _written(test, names, frozenset(), Effort(_LONGEST))
    except NotConstant:
        return ""
    text = ast.unparse(found)
    return text if f"{NAME}(" in text and len(text) < _LONGEST else ""


def _may_ask(test: ast.expr, names: Names) -> bool:
    """Whether a name that is imported, or made from others, is in a condition: most have none."""
    for node in ast.walk(test):
        if isinstance(node, ast.Name):
            if isinstance(names.get(node.id), (Ref, ast.expr)) or [node.id] in PRESENT:
                return True
        elif isinstance(node, ast.Attribute) and [node.attr] in PRESENT:
            return True
    return False


def _written(node: Any, names: Names, local: frozenset[str], effort: Effort) -> Any:
    if isinstance(node, list):
        return [_written(part, names, local, effort) for part in node]
    if isinstance(node, ast.expr):
        effort.spend()
    if isinstance(node, ast.Name):
        return _name(node, names, local, effort)
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Call) and dotted(node.func)[-1:] in PRESENT:
        return _at_least(node)
    if not isinstance(node, _KEPT):
        return ast.Name(OPAQUE, ast.Load())
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        bound = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        local |= bound
    return type(node)(
        **{name: _written(value, names, local, effort) for name, value in ast.iter_fields(node)}
    )


def _at_least(node: ast.Call) -> ast.expr:
    """``is_vllm_available("0.9")`` as what it asks."""
    wanted = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "min_version")]
    if len(wanted) != 1 or len(node.args) + len(node.keywords) != 1 or text_of(wanted[0]) is None:
        return ast.Name(OPAQUE, ast.Load())
    text = f"{NAME}('packaging.version:Version')({NAME}('vllm').__version__)"
    text += f" >= {NAME}('packaging.version:Version')({text_of(wanted[0])!r})"
    return ast.parse(text, mode="eval").body


def _name(node: ast.Name, names: Names, local: frozenset[str], effort: Effort) -> ast.expr:
    if node.id in local:
        return node
    known = names.get(node.id)
    if isinstance(known, Ref):
        return ast.Call(ast.Name(NAME, ast.Load()), [ast.Constant(known.target)], [])
    if isinstance(known, ast.expr) and effort.depth < _DEPTH:
        effort.depth += 1
        found: ast.expr = _written(known, names, local, effort)
        effort.depth -= 1
        return found
    if node.id in _PLAIN and known is None:
        return node
    return ast.Name(OPAQUE, ast.Load())


def may_test(node: ast.FunctionDef, text: str) -> bool:
    """Whether a function with this body may be one that `version_test` is for."""
    return (
        len(node.args.args) == 1 and ("__version__" in text or "version(" in text) and "vllm" in text.lower()
    )


def version_test(node: ast.FunctionDef, statements: list[ast.stmt]) -> str:
    """How a function compares vLLM's version with its one argument (``>=``); empty where it does not.

    The last comparison that is returned counts, and vLLM's version is what it compares with.
    """
    given = {node.args.args[0].arg}
    for item in (item for statement in statements for item in ast.walk(statement)):
        if isinstance(item, ast.Assign) and _mentions(item.value, given):
            given |= {target.id for target in item.targets if isinstance(target, ast.Name)}
    returned = [
        item.value
        for statement in statements
        for item in ast.walk(statement)
        if isinstance(item, ast.Return) and isinstance(item.value, ast.Compare) and len(item.value.ops) == 1
    ]
    if not returned:
        return ""
    found = returned[-1]
    sign = _SIGNS.get(type(found.ops[0]), "")
    left, right = _mentions(found.left, given), _mentions(found.comparators[0], given)
    if left == right or not sign:
        return ""
    return sign if right else _TURNED[sign]


_SIGNS: dict[type, str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _mentions(node: ast.expr, words: set[str]) -> bool:
    return any(isinstance(item, ast.Name) and item.id in words for item in ast.walk(node))


def probed(text: str) -> frozenset[str]:
    """Attributes of ``self`` that a method asks for before it reads them."""
    return frozenset(match for match in _PROBE.findall(text)) if "self" in text else frozenset()


def exceptions(node: ast.expr | None, names: Names) -> list[str]:
    """Last parts of the names of the exceptions of an ``except`` clause; ``?`` for what cannot be told."""
    try:
        return list(_exceptions(node, names, Effort(_LONGEST)))
    except NotConstant:
        return ["?"]


def _exceptions(node: ast.expr | None, names: Names, effort: Effort) -> list[str]:
    if node is None:
        return []
    effort.spend()
    if isinstance(node, (ast.Tuple, ast.List)):
        return [name for part in node.elts for name in _exceptions(part, names, effort)]
    if isinstance(node, ast.Starred):
        return _exceptions(node.value, names, effort)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _exceptions(node.left, names, effort) + _exceptions(node.right, names, effort)
    if isinstance(node, ast.Call) and dotted(node.func) in (["tuple"], ["list"], ["set"]) and node.args:
        return _exceptions(node.args[0], names, effort)
    path = dotted(node)
    if len(path) != 1:
        return path[-1:] or ["?"]
    known = names.get(path[0])
    if isinstance(known, ast.expr):
        if effort.depth >= _DEPTH:
            return ["?"]
        effort.depth += 1
        found = _exceptions(known, names, effort)
        effort.depth -= 1
        return found
    if isinstance(known, Ref):
        return (
            [known.name]
            if not known.module or known.name.endswith(("Error", "Exception", "Found", "Warning"))
            else ["?"]
        )
    return path if known is None and hasattr(builtins, path[0]) else ["?"]
