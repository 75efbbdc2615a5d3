"""How a module of the package is reached: from an entry point, as one model, or on another platform only."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from build_recipes.verify.judge.played import Edge
from build_recipes.verify.packages import entry_points, platforms
from build_recipes.verify.read.model import Summary
from build_recipes.verify.read.syntax import OTHER_PLATFORMS
from build_recipes.verify.read.tree import Tree

ENTRY, MODEL, PLATFORM = "entry", "model", "platform"

_MODEL = re.compile(r"/models/[^/]+/|/benchmarks/|/experimental/|/model_extras/")
_ELSEWHERE = OTHER_PLATFORMS - {"cpu", "mps", "hip"}


@dataclass(frozen=True)
class Reached:
    """Where a module stands."""

    tier: str
    chain: tuple[str, ...]
    """Modules from the entry point to this one."""


def reach(tree: Tree, summaries: dict[str, Summary], edges: Iterable[Edge]) -> dict[str, Reached]:
    """Tier and import chain of every module.

    ``entry`` is what an entry point imports without a guard, and what it needs later by a guarded import, an
    import in a function, or a name in a string (workers, schedulers), as long as that is no model's and no
    other platform's file. A file that nothing names is taken as a model's: only its own user meets it.
    """
    own = platforms(tree)
    walk = _Walk(tree, own)
    for edge in edges:
        (walk.hard if edge.guard is None else walk.soft).setdefault(edge.source, set()).add(edge.target)
    for module, summary in summaries.items():
        for mention in summary.flow.mentions:
            walk.soft.setdefault(module, set()).add(mention)
    walk.soft.setdefault(tree.package, set()).update(tree.index.mentions)
    for start in entry_points(tree):
        walk.visit(start, None)
    walk.run(lazily=False)
    at_import = set(walk.parents)
    walk.run(lazily=True)
    found = {}
    for module in summaries:
        path = tree.modules[module]
        if module in at_import or not own.isdisjoint(_words(path)):
            tier = ENTRY
        elif is_platform(path, own):
            tier = PLATFORM
        else:
            tier = ENTRY if module in walk.parents and not _MODEL.search(path) else MODEL
        found[module] = Reached(tier, walk.chain(module))
    return found


def tier_by_path(path: str, own: frozenset[str] = frozenset()) -> str:
    """What a file's place alone says of its tier.

    :param own: words for the platform that the package is for.
    """
    return PLATFORM if is_platform(path, own) else MODEL if _MODEL.search(path) else ENTRY


def is_platform(path: str, own: frozenset[str] = frozenset()) -> bool:
    """Whether a file is another platform's by its name."""
    return not (_ELSEWHERE - own).isdisjoint(_words(path))


def _words(path: str) -> list[str]:
    """The words in a file's place within its package."""
    return re.split(r"[/_.]", path.partition("/")[2])


class _Walk:
    """A breadth-first walk along the imports."""

    def __init__(self, tree: Tree, own: frozenset[str]) -> None:
        self.modules, self.own = tree.modules, own
        self.hard: dict[str, set[str]] = {}
        self.soft: dict[str, set[str]] = {}
        self.parents: dict[str, str | None] = {}
        self.todo: deque[str] = deque()

    def visit(self, target: str, by: str | None) -> None:
        """Importing a module imports the packages it is in; a name below a module leads to that module."""
        parts = target.split(".")
        for length in range(1, len(parts) + 1):
            part = ".".join(parts[:length])
            if part not in self.modules:
                return
            if part not in self.parents:
                self.parents[part] = by
                self.todo.append(part)

    def run(self, lazily: bool) -> None:
        if lazily:
            self.todo.extend(self.parents)
        while self.todo:
            here = self.todo.popleft()
            for target in sorted(self.hard.get(here, ())):
                self.visit(target, here)
            for target in sorted(self.soft.get(here, ())) if lazily else ():
                path = self.modules.get(target) or self.modules.get(target.rpartition(".")[0]) or ""
                if not is_platform(path, self.own) and not _MODEL.search(path):
                    self.visit(target, here)

    def chain(self, module: str) -> tuple[str, ...]:
        found = [module]
        while (parent := self.parents.get(found[-1])) is not None:
            found.append(parent)
        return tuple(reversed(found))
