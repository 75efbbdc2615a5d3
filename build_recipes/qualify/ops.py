"""Ops that a wheel's Python files call (``torch.ops._C.rms_norm``), against those its modules register.

Both are read without importing anything: the calls from the syntax trees, the registrations from the schema
strings that ``TORCH_LIBRARY`` leaves in a module (``rms_norm(Tensor! result, ...) -> ()``).
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.data import Model, load_toml, parse_python


class Foreign(Model, frozen=True):
    """ops.toml."""

    spaces: list[str]
    """Namespaces of other platforms (fnmatch patterns)."""
    ops: list[str]
    """``namespace.name`` (fnmatch patterns) that only another platform's or version's build registers."""


@dataclass(frozen=True)
class OpCalls:
    """What Python files call, by namespace."""

    called: dict[str, tuple[str, ...]]
    guarded: dict[str, tuple[str, ...]]
    """Asked for by ``hasattr`` somewhere: their absence is provided for."""


def calls(sources: Iterable[tuple[str, str]]) -> OpCalls:
    """Read the calls of many Python files.

    :param sources: path and text of each; one that does not parse is passed over.
    """
    called: dict[str, set[str]] = {}
    guarded: dict[str, set[str]] = {}
    for _, text in sources:
        if "torch.ops._" not in text:
            continue
        try:
            tree = parse_python(text)
        except ValueError:
            continue
        for space, name in _attributes(tree):
            called.setdefault(space, set()).add(name)
        for space, name in _guards(tree):
            guarded.setdefault(space, set()).add(name)
    return OpCalls(
        {space: tuple(sorted(names)) for space, names in sorted(called.items())},
        {space: tuple(sorted(names)) for space, names in sorted(guarded.items())},
    )


def _chain(node: ast.expr) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _attributes(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = _chain(node)
            if len(parts) >= 4 and parts[:2] == ["torch", "ops"] and parts[2].startswith("_"):
                yield parts[2], parts[3]


def _guards(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("hasattr", "getattr")
            and len(node.args) >= 2
            and isinstance(node.args[1], ast.Constant)
            and isinstance(node.args[1].value, str)
        ):
            parts = _chain(node.args[0])
            if len(parts) == 3 and parts[:2] == ["torch", "ops"]:
                yield parts[2], node.args[1].value


def registered(modules: Iterable[bytes]) -> set[str]:
    """Names of the ops that modules register, whatever the namespace."""
    found: set[str] = set()
    for content in modules:
        found |= {match.decode() for match in re.findall(rb"\0([A-Za-z_]\w{2,80})\([^\0]*\) *->", content)}
        found |= {match.decode() for match in re.findall(rb"\0([A-Za-z_]\w{2,80})(?=\0)", content)}
    return found


def home(space: str) -> str:
    """The extension module that registers a namespace: its own name, or the one it extends (``_C_cache_ops``)."""
    return "_C" if space.startswith("_C_") else space


def wanted(
    read: OpCalls, left_out: Collection[str], declared: Mapping[str, Collection[str]] | None = None
) -> tuple[dict[str, list[str]], list[str]]:
    """The ops that a CUDA wheel must register: those called, less other platforms' and left out modules'.

    :param declared: ops by namespace that the compiled sources register, as the build read them (under ``""`` those
        whose namespace is not known); where it is not known, ops.toml, which was read from vLLM 0.12.0, says
        which ops are other platforms'.
    :param left_out: extension modules that were left out on purpose; a namespace has its module's name.
    :returns: by namespace; and the calls that were passed over, ``namespace.name``.
    """
    foreign = load_toml(Path(__file__).with_name("ops.toml"), Foreign)
    kept: dict[str, list[str]] = {}
    passed: list[str] = []
    for space, names in read.called.items():
        for name in names:
            full = f"{space}.{name}"
            if declared is not None and not any(fnmatch.fnmatchcase(space, one) for one in foreign.spaces):
                other = name not in declared.get(space, ()) and name not in declared.get("", ())
            else:
                other = home(space) in left_out or any(
                    fnmatch.fnmatchcase(text, one)
                    for text, patterns in ((space, foreign.spaces), (full, foreign.ops))
                    for one in patterns
                )
            if other:
                passed.append(full)
            elif name not in read.guarded.get(space, ()):
                kept.setdefault(space, []).append(name)
            else:
                passed.append(full)
    return kept, passed
