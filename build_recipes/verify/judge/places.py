"""What a name that is written in a file of a release means: the definition that it leads to."""

from __future__ import annotations

import builtins
import enum
from abc import ABC, abstractmethod

from build_recipes.verify.judge.answers import Answer, Place
from build_recipes.verify.read.model import CLASS, IMPORT, VALUE, Class, Surface
from build_recipes.verify.read.tree import VLLM, Tree

_PLAIN_BASES = frozenset({"object", "ABC", "Protocol", "Generic", "NamedTuple", "TypedDict"})
_ENUMS = frozenset({"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"})


def _of_enum(bases: list[str], name: str) -> bool:
    """Whether every enumeration with such bases may have a name that its body does not give it."""
    above = [base.rpartition(".")[2] for base in bases]
    kinds = [getattr(enum, base, None) or getattr(builtins, base, None) for base in above]
    return name.startswith("_") or any(kind is None or hasattr(kind, name) for kind in kinds)


class Places(ABC):
    """The definitions of one tree; what was followed is remembered."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._places: dict[tuple[str, str], Place | None] = {}

    @abstractmethod
    def through_stars(self, module: str, surface: Surface, name: str) -> tuple[Answer | None, str]:
        """What ``from x import *`` brings, and the module that has it."""

    def _mine(self, module: str) -> bool:
        return module.partition(".")[0] == self.tree.package

    def absolute(self, target: str, module: str) -> str:
        """An import's module as written in ``module``, made absolute."""
        if target.startswith("<"):
            parent = module if self.is_package(module) else module.rpartition(".")[0]
            target = target.replace("<name>", module).replace("<package>", parent)
        if not target.startswith("."):
            return target
        level = len(target) - len(target.lstrip("."))
        parts = module.split(".")
        if self.is_package(module):
            level -= 1
        parts = parts[: len(parts) - level]
        rest = target.lstrip(".")
        return ".".join([*parts, rest] if rest else parts)

    def is_package(self, module: str) -> bool:
        """Whether a module is a folder with an ``__init__``."""
        return self.tree.modules.get(module, "").endswith("/__init__.py")

    def locate(self, module: str, name: str) -> Place | None:
        """The definition a name leads to, through re-exports; None where it leads out or cannot be read."""
        key = (module, name)
        if key not in self._places:
            self._places[key] = None
            self._places[key] = self._follow(module, name)
        return self._places[key]

    def _follow(self, module: str, name: str) -> Place | None:
        seen: set[tuple[str, str]] = set()
        while (module, name) not in seen:
            seen.add((module, name))
            if module not in self.tree.modules:
                return None
            surface = self.tree.surface(module) if self.tree.modules[module] else None
            entry = surface.names.get(name) if surface is not None else None
            if surface is None or entry is None:
                if f"{module}.{name}" in self.tree.modules:
                    return Place("module", f"{module}.{name}")
                source = self.through_stars(module, surface, name)[1] if surface is not None else ""
                if not source:
                    return None
                module = source
            elif entry.kind == IMPORT:
                source, _, wanted = entry.target.partition(":")
                source = self.absolute(source, module)
                if not self._mine(source):
                    return None
                if not wanted:
                    return Place("module", source) if source in self.tree.modules else None
                module, name = source, wanted
            elif entry.kind == VALUE and entry.target.startswith("="):
                if "." in entry.target:
                    return self.dotted(module, entry.target[1:])
                name = entry.target[1:]
            else:
                return Place(entry.kind, module, name)
        return None

    def dotted(self, module: str, path: str) -> Place | None:
        """What a dotted name written in ``module`` means."""
        first, *rest = path.split(".")
        place = self.locate(module, first)
        for part in rest:
            if place is None or place.kind != "module":
                return None
            place = self.locate(place.module, part)
        return place

    def target(self, target: str) -> Place | None:
        """What ``module`` or ``module:name`` means."""
        module, _, name = target.partition(":")
        if name:
            return self.locate(module, name)
        return Place("module", module) if module in self.tree.modules else None

    def leads_out(self, module: str, name: str, depth: int = 0) -> str:
        """Where an import of the package leads in vLLM: ``module:name``; empty if elsewhere."""
        first, _, rest = name.partition(".")
        surface = self.tree.surface(module)
        entry = surface.names.get(first) if surface is not None else None
        if entry is None or depth > 8:
            return ""
        if entry.kind == VALUE and entry.target.startswith("="):
            return self.leads_out(module, entry.target[1:], depth + 1)
        source, _, asked = entry.target.partition(":")
        source = self.absolute(source, module)
        if self._mine(source) and asked and not rest:
            return self.leads_out(source, asked, depth + 1)
        if source.partition(".")[0] != VLLM or self.tree.package == VLLM:
            return ""
        if not rest:
            return f"{source}:{asked}" if asked else ""
        *middle, last = rest.split(".")
        return f"{'.'.join([source, *([asked] if asked else []), *middle])}:{last}"

    def class_of(self, place: Place) -> Class | None:
        """The class at a place."""
        surface = self.tree.surface(place.module) if place.kind == CLASS else None
        return surface.classes.get(place.name) if surface is not None else None

    def attribute(self, place: Place, name: str, own: bool = False) -> bool | None:
        """Whether a class has an attribute (itself or by its bases); None where that cannot be known."""
        if name.startswith("__") and name.endswith("__"):
            return None
        chain = self.ancestry(place)
        for entry in chain[:1] if own else chain:
            if entry is None:
                return None
            _, found = entry
            if (
                name in found.methods
                or name in found.attributes
                or name in found.fields
                or name in found.instance
            ):
                return True
            surface = self.tree.surface(entry[0].module)
            if surface is not None and f"{entry[0].name}.{name}" in surface.patches:
                return True
            if found.keywords and any(k != "metaclass=ABCMeta" for k in found.keywords):
                return None
            if any(base.rpartition(".")[2] in _ENUMS for base in found.bases):
                return None if _of_enum(found.bases, name) else False
        return False

    def ancestry(self, place: Place) -> list[tuple[Place, Class] | None]:
        """A class and its bases, nearest first; None stands for one that is not of this project."""
        found: list[tuple[Place, Class] | None] = []
        todo, seen = [place], {place}
        while todo:
            here = todo.pop(0)
            entry = self.class_of(here)
            if entry is None:
                found.append(None)
                continue
            found.append((here, entry))
            for base in entry.bases:
                if base.rpartition(".")[2] in _PLAIN_BASES or base.rpartition(".")[2] in _ENUMS:
                    continue
                above = self.dotted(here.module, base)
                if above is None or above.kind != CLASS:
                    found.append(None)
                elif above not in seen:
                    seen.add(above)
                    todo.append(above)
        return found
