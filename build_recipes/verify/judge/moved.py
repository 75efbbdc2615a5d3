"""Where a name went: the module of the same release that defines it now, or an older one that had it."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from build_recipes.verify.judge.answers import NO_ATTRIBUTE
from build_recipes.verify.read.store import code_digest
from build_recipes.verify.read.tree import Tree

_DEFINED = re.compile(r"\n(?:(?:class|def|async def)[ ]+(\w+)|(\w+)[ ]*(?::[^=\n]+)?=(?!=))")
"""With the line end before (and not ``^``): a search for a plain character is the fastest there is."""
_NAMES = msgspec.msgpack.Decoder(list[str])

History = Callable[[str, str], "str | None"]
"""Whether the vLLM that is compared with had a module's name: ``was in 0.14.0``."""


Moved = Callable[[str, "str | None", str], "str | None"]
"""`Mover.where`, or what it has answered before."""


class Mover:
    """Answers for one tree; its files are searched on the first question.

    :param history: asked where no module of the tree defines the name.
    """

    def __init__(self, tree: Tree, history: History | None = None) -> None:
        self.tree, self.history = tree, history
        self._places: dict[str, list[str]] | None = None

    def where(self, module: str, name: str | None, kind: str) -> str | None:
        """``vllm.other.module``, ``was in 0.14.0``, or None where neither vLLM has it."""
        if kind == NO_ATTRIBUTE and name and "." in name:
            return None
        if name and name != "*":
            found = [other for other in self._defined(name) if other != module]
            if found:
                return _nearest(module, found)
        elif module.rpartition(".")[2]:
            last = "." + module.rpartition(".")[2]
            same = [other for other in self.tree.modules if other.endswith(last) and self.tree.modules[other]]
            if same:
                return _nearest(module, same)
        return self.history(module, name or "") if self.history else None

    def _defined(self, name: str) -> list[str]:
        if self._places is None:
            self._places = {}
            for module, names in defined_names(self.tree).items():
                for found in names:
                    self._places.setdefault(found, []).append(module)
        return self._places.get(name, [])


def defined_names(tree: Tree) -> dict[str, list[str]]:
    """Names that each module defines at its left margin: found without parsing, kept per file content."""
    kind = f"names {code_digest('moved')}"
    kept = tree.store.get_many(kind, set(tree.index.files.values()))
    fresh: dict[bytes, bytes] = {}
    found = {}
    for module, path in tree.modules.items():
        if not path:
            continue
        key = tree.index.files[path]
        if key not in kept:
            text = "\n" + tree.source(path).decode("utf-8", "replace")
            names = sorted({a or b for a, b in _DEFINED.findall(text)})
            kept[key] = fresh[key] = msgspec.msgpack.encode(names)
        found[module] = _NAMES.decode(kept[key])
    tree.store.put_many(kind, fresh)
    return found


def _nearest(module: str, found: list[str]) -> str:
    """The one that shares most of its name; of several the shortest, then the first by name."""
    return min(found, key=lambda other: (-_nearness(module, other), len(other), other))


def _nearness(one: str, other: str) -> int:
    """Number of dotted parts two modules share."""
    return len(set(one.split(".")) & set(other.split(".")))
