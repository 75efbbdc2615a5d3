"""Whether a name exists in a release, as an import of it would find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from build_recipes.verify.read.model import ALWAYS, CLASS, FUNCTION, IMPORT, TYPING, VALUE, Class, Definition
from build_recipes.verify.read.tree import VLLM, Tree

FOUND = "found"
SOMETIMES = "conditional"
"""Defined under a condition; taken as there."""
PRODUCT = "build-product"
"""Made by the build: no source says what it holds."""
NONE = "none"
"""Answered with None by a ``__getattr__`` that never raises."""
UNKNOWN = "unknown"
"""The module's namespace is written in ways that cannot be read."""
NO_MODULE = "missing-module"
NO_NAME = "missing-name"
NO_ATTRIBUTE = "missing-attribute"
MISSING = frozenset({NO_MODULE, NO_NAME, NO_ATTRIBUTE})

_MODULE_NAMES = frozenset(
    f"__{word}__"
    for word in (
        "name",
        "doc",
        "file",
        "path",
        "package",
        "spec",
        "loader",
        "dict",
        "builtins",
        "annotations",
    )
)
_PLAIN_BASES = frozenset({"object", "ABC", "Protocol", "Generic", "NamedTuple", "TypedDict"})
_ENUMS = frozenset({"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"})


class Answer(NamedTuple):
    """What an import of a name would meet."""

    status: str
    error: str = ""
    """Class of the exception, where it is one of `MISSING`."""
    detail: str = ""
    """``name`` attribute of that exception: the module that is missing."""


_FOUND = Answer(FOUND)


@dataclass(frozen=True)
class Place:
    """Where a name's definition is: a module (``name`` empty), a class, a function or a value."""

    kind: str
    module: str
    name: str = ""


class Resolver:
    """Answers for one tree; everything is remembered."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._modules: dict[str, Answer] = {}
        self._names: dict[tuple[str, str], Answer] = {}
        self._places: dict[tuple[str, str], Place | None] = {}
        self._lacks: dict[str, str] = {}

    # -- presence

    def module(self, module: str) -> Answer:
        """``import module``."""
        found = self._exists(module)
        lacking = self._lacking(module) if found.status == FOUND else ""
        return Answer(NO_MODULE, "ModuleNotFoundError", lacking) if lacking else found

    def _exists(self, module: str) -> Answer:
        found = self._modules.get(module)
        if found is None:
            found = self._modules[module] = self._module(module)
        return found

    def _module(self, module: str) -> Answer:
        if module in self.tree.modules:
            return _FOUND
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            part = ".".join(parts[:length])
            if part in self.tree.products:
                return Answer(PRODUCT)
            if part not in self.tree.modules:
                return Answer(NO_MODULE, "ModuleNotFoundError", part)
        raise AssertionError("unreachable")

    def name(self, module: str, name: str) -> Answer:
        """``from module import name``."""
        key = (module, name)
        found = self._names.get(key)
        if found is None:
            found = self._names[key] = self._name(module, name, set())
        return found

    def _name(self, module: str, name: str, seen: set[str]) -> Answer:
        answer = self.module(module)
        if answer.status != FOUND:
            return answer
        if f"{module}.{name}" in self.tree.modules:
            return self.module(f"{module}.{name}")
        if name in _MODULE_NAMES or f"{module}.{name}" in self.tree.products:
            return _FOUND
        if not self.tree.modules[module]:
            return Answer(NO_NAME, "ImportError", module)
        surface = self.tree.surface(module)
        if surface is None or surface.dynamic:
            return Answer(UNKNOWN)
        entry = surface.names.get(name)
        if entry is not None and entry.when != TYPING:
            return _FOUND if entry.when == ALWAYS else Answer(SOMETIMES)
        seen.add(module)
        for star in surface.stars:
            answer = self._through_star(module, star, name, seen)
            if answer.status not in MISSING:
                return answer
        if surface.lazy is not None:
            if name in surface.lazy.keys:
                return _FOUND
            if not surface.lazy.known:
                return Answer(UNKNOWN)
            if not surface.lazy.raises:
                return Answer(NONE)
        return Answer(NO_NAME, "ImportError", module)

    def _lacking(self, module: str) -> str:
        """A module of vLLM that this one imports in any case and that is not there (seen in 0.19: a file that
        was moved without those that import it)."""
        if module not in self._lacks:
            self._lacks[module] = ""
            surface = self.tree.surface(module) if self.tree.package == VLLM else None
            for entry in surface.names.values() if surface is not None else ():
                if entry.kind == IMPORT and entry.when == ALWAYS:
                    source = self.absolute(entry.target.partition(":")[0], module)
                    if self._inside(source) and self._exists(source).status == NO_MODULE:
                        self._lacks[module] = source
        return self._lacks[module]

    def _through_star(self, module: str, star: str, name: str, seen: set[str]) -> Answer:
        source = self.absolute(star, module)
        if not self._inside(source):
            return Answer(UNKNOWN)
        if source in seen:
            return Answer(NO_NAME)
        surface = self.tree.surface(source)
        exported = surface.exported if surface is not None else None
        if name not in exported if exported is not None else name.startswith("_"):
            return Answer(NO_NAME)
        return self._name(source, name, seen)

    def _inside(self, module: str) -> bool:
        return module.partition(".")[0] == self.tree.package

    def absolute(self, target: str, module: str) -> str:
        """An import's module as written in ``module``, made absolute."""
        if not target.startswith("."):
            return target
        level = len(target) - len(target.lstrip("."))
        parts = module.split(".")
        if self.tree.modules.get(module, "").endswith("/__init__.py"):
            level -= 1
        parts = parts[: len(parts) - level]
        rest = target.lstrip(".")
        return ".".join([*parts, rest] if rest else parts)

    # -- meaning

    def locate(self, module: str, name: str) -> Place | None:
        """The definition a name leads to, through re-exports; None where it leads out or cannot be read."""
        key = (module, name)
        if key not in self._places:
            self._places[key] = None
            self._places[key] = self._locate(module, name)
        return self._places[key]

    def _locate(self, module: str, name: str) -> Place | None:
        if module not in self.tree.modules:
            return None
        surface = self.tree.surface(module) if self.tree.modules[module] else None
        entry = surface.names.get(name) if surface is not None else None
        if surface is None or entry is None:
            if f"{module}.{name}" in self.tree.modules:
                return Place("module", f"{module}.{name}")
            for star in surface.stars if surface is not None else ():
                source = self.absolute(star, module)
                if self._inside(source) and self.name(source, name).status == FOUND:
                    return self.locate(source, name)
            return None
        if entry.kind == IMPORT:
            return self._follow(entry, module)
        if entry.kind == VALUE:
            if entry.target.startswith("="):
                return self.dotted(module, entry.target[1:])
            return Place(VALUE, module, name)
        return Place(entry.kind, module, name)

    def _follow(self, entry: Definition, module: str) -> Place | None:
        source, _, name = entry.target.partition(":")
        source = self.absolute(source, module)
        if not self._inside(source):
            return None
        if name:
            return self.locate(source, name)
        return Place("module", source) if source in self.tree.modules else None

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

    # -- attributes

    def load(self, target: str, path: list[str]) -> tuple[Answer, str, str]:
        """Reading attributes of something imported: the answer, and module and name of what is missing."""
        place = self.target(target)
        for index, part in enumerate(path):
            if place is None:
                break
            if place.kind == "module":
                answer = self.name(place.module, part)
                if answer.status in MISSING:
                    return Answer(NO_ATTRIBUTE, "AttributeError"), place.module, part
                if answer.status != FOUND:
                    break
                place = self.locate(place.module, part)
            elif place.kind == CLASS:
                own = (
                    part == "__dict__"
                    and path[index + 1 : index + 2] != []
                    and path[index + 1].startswith("[")
                )
                wanted = path[index + 1].strip("[]") if own else part
                if self.attribute(place, wanted, own=own) is False:
                    error = "KeyError" if own else "AttributeError"
                    return Answer(NO_ATTRIBUTE, error), place.module, f"{place.name}.{wanted}"
                break
            else:
                break
        return _FOUND, "", ""

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
                return False if name.isupper() else None
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


__all__ = ["CLASS", "FUNCTION", "MISSING", "Answer", "Place", "Resolver"]
