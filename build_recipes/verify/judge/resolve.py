"""Whether a name exists in a release, as an import of it would find."""

from __future__ import annotations

from collections.abc import Collection

from build_recipes.verify.judge.answers import (
    FAILS,
    FOUND,
    MISSING,
    NO_ATTRIBUTE,
    NO_MODULE,
    NO_NAME,
    NONE,
    PRODUCT,
    SOMETIMES,
    SUBMODULE,
    UNKNOWN,
    UNREAD,
    YES,
    Answer,
    Place,
    Raised,
)
from build_recipes.verify.judge.importing import Player
from build_recipes.verify.read.model import ALWAYS, CLASS, FUNCTION, IMPORT, TYPING, VALUE, Class, Surface
from build_recipes.verify.read.tree import VLLM, Summaries, Tree

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


class Resolver:
    """Answers for one tree; everything is remembered.

    A module of vLLM is there when its import goes well, too: what its own file and all that it imports do at
    import is played, with vLLM itself in the place of the package that is judged.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._modules: dict[str, Answer] = {}
        self._names: dict[tuple[str, str], Answer] = {}
        self._places: dict[tuple[str, str], Place | None] = {}
        self.partial: dict[tuple[str, str], int] = {}
        """Star imports of a module that was itself being imported, and the line it was at."""
        self.inside = Player(self, Summaries(tree), self) if tree.package == VLLM else None
        self._reached: set[str] = set()

    @property
    def version(self) -> str:
        """The version of the release; empty where it is not known."""
        return self.tree.version

    # -- presence

    def module(self, module: str) -> Answer:
        """``import module``."""
        found = self._modules.get(module)
        if found is None:
            found = self.exists(module)
            if found.status == FOUND:
                found = self._imported(module)
            if not self._busy:
                self._modules[module] = found
        return found

    @property
    def _busy(self) -> bool:
        """Whether an import is being played: its outcome is not known yet."""
        return self.inside is not None and bool(self.inside.active)

    def _imported(self, module: str) -> Answer:
        if self.inside is None:
            return YES
        parts = module.split(".")
        names = [".".join(parts[: length + 1]) for length in range(len(parts))]
        for name in names:
            raised = self.inside.import_module(name)
            if raised is not None:
                return _failure(raised)
        unread = any(self.tree.unread(name) or name in self.inside.tainted for name in names)
        return Answer(UNREAD) if unread else YES

    def runs(self, target: str, path: list[str]) -> Answer:
        """Calling a function, a class or a method of vLLM, as far as what its body imports goes."""
        place = self.target(target)
        rest = list(path)
        while rest and place is not None and place.kind == "module":
            place = self.locate(place.module, rest.pop(0))
        if place is None or len(rest) > 1:
            return YES
        if place.kind == FUNCTION:
            return self._run(place.module, place.name) if not rest else YES
        return self._method(place, rest or ["__init__"]) if place.kind == CLASS else YES

    def makes(self, target: str) -> Answer:
        """Making a class on one of vLLM's."""
        place = self.target(target)
        if place is None or place.kind != CLASS:
            return YES
        answer = self._method(place, ["__init_subclass__"])
        for entry in self.ancestry(place):
            for keyword in entry[1].keywords if entry is not None else ():
                if entry is not None and keyword.startswith("metaclass=") and answer.status == FOUND:
                    meta = self.dotted(entry[0].module, keyword.partition("=")[2])
                    answer = self._method(meta, ["__new__", "__init__"]) if meta is not None else answer
        return answer

    def _method(self, place: Place, names: list[str]) -> Answer:
        for name in names:
            for entry in self.ancestry(place):
                if entry is None:
                    return YES
                if name in entry[1].methods:
                    answer = self._run(entry[0].module, f"{entry[0].name}.{name}")
                    if answer.status != FOUND:
                        return answer
                    break
        return YES

    def _run(self, module: str, function: str) -> Answer:
        summary = self.tree.summary(module, whole=True) if self.inside is not None else None
        body = summary.flow.functions.get(function) if summary is not None else None
        if summary is None or not body or self.inside is None or function in summary.flow.deferred:
            return YES
        raised = self.inside.run_body(body, module)
        return _failure(raised) if raised is not None else YES

    def exists(self, module: str) -> Answer:
        """Whether the files of a module are there."""
        if module in self.tree.modules:
            return YES
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            part = ".".join(parts[:length])
            if part in self.tree.products:
                return Answer(PRODUCT)
            if part not in self.tree.modules:
                return Answer(NO_MODULE, "ModuleNotFoundError", part)
        raise AssertionError("unreachable")

    def name(self, module: str, name: str) -> Answer:
        """``from module import name``; for ``*`` whether all that the module exports is there."""
        key = (module, name)
        found = self._names.get(key)
        if found is None:
            found = self.module(module)
            if found.status == FOUND:
                found = self._starred(module) if name == "*" else self._name(module, name)
            if not self._busy:
                self._names[key] = found
        return found

    def _starred(self, module: str) -> Answer:
        surface = self.tree.surface(module)
        for name in (surface.exported or ()) if surface is not None else ():
            if self.name(module, name).status in MISSING:
                return Answer(NO_ATTRIBUTE, "AttributeError", name)
        return YES

    def _name(self, module: str, name: str) -> Answer:
        submodule = f"{module}.{name}"
        surface = self.tree.surface(module)
        if submodule in self.tree.modules:
            entry = surface.names.get(name) if surface is not None else None
            return YES if entry is not None and entry.when == ALWAYS else self.module(submodule)
        if name in _MODULE_NAMES or submodule in self.tree.products:
            return YES
        return self.defined(module, name)

    def defined(self, module: str, name: str) -> Answer:
        """Whether a module's namespace holds a name, submodules left out."""
        if not self.tree.modules.get(module):
            return Answer(NO_NAME, "ImportError", module)
        surface = self.tree.surface(module)
        if surface is None:
            return Answer(UNREAD)
        found = self._direct(surface, name)
        if found is None:
            found, _ = self._through_stars(module, surface, name)
        found = found or self._lazy(module, surface, name)
        if found is None and self.is_product(module):
            return Answer(PRODUCT)
        return found or Answer(NO_NAME, "ImportError", module)

    def is_product(self, module: str) -> bool:
        """Whether the build makes a module, or one around it (an sdist may hold a part of it)."""
        parts = module.split(".")
        return any(".".join(parts[: length + 1]) in self.tree.products for length in range(len(parts)))

    def _direct(self, surface: Surface, name: str) -> Answer | None:
        entry = surface.names.get(name)
        if entry is not None and entry.when != TYPING:
            return YES if entry.when == ALWAYS else Answer(SOMETIMES)
        return Answer(UNKNOWN) if surface.dynamic else None

    def _lazy(self, module: str, surface: Surface, name: str) -> Answer | None:
        """What a module's ``__getattr__`` says."""
        lazy = surface.lazy
        if lazy is None:
            return None
        if name in lazy.keys:
            source, _, wanted = lazy.targets.get(name, "").partition(":")
            if source:
                source = self.absolute(source, module)
                answer = self.name(source, wanted) if wanted else self.module(source)
                if self._mine(source) and answer.status in MISSING:
                    return (
                        answer
                        if answer.error == "ModuleNotFoundError"
                        else Answer(NO_NAME, "ImportError", module)
                    )
            return YES
        if not lazy.known:
            return Answer(UNKNOWN)
        return None if lazy.raises else Answer(NONE)

    def _through_stars(self, module: str, surface: Surface, name: str) -> tuple[Answer | None, str]:
        """What ``from x import *`` brings, depth first as they stand; and the module that has it."""
        todo = [(module, star) for star in reversed(surface.stars)]
        seen = {module}
        while todo:
            here, star = todo.pop()
            source = self.absolute(star, here)
            if not self._mine(source):
                return Answer(UNKNOWN), ""
            held = self.tree.surface(source)
            if source in seen or source not in self.tree.modules:
                continue
            if held is None:
                return Answer(UNREAD), ""
            if (name not in held.exported) if held.exported is not None else name.startswith("_"):
                continue
            line = self.partial.get((here, source))
            entry = held.names.get(name)
            if line is not None and (entry is None or entry.line >= line):
                continue  # it was not there yet
            seen.add(source)
            found = self._direct(held, name)
            if found is None and held.exported is not None:
                found = YES if f"{source}.{name}" in self.tree.modules else self._lazy(source, held, name)
            if found is not None:
                return found, source
            todo.extend((source, inner) for inner in reversed(held.stars))
        return None, ""

    def may_load(self, module: str, by: Collection[str]) -> bool:
        """Whether importing some modules may import another one: whether any of their files names it."""
        todo = [name for name in by if name not in self._reached]
        while todo:
            here = todo.pop()
            if here in self._reached:
                continue
            self._reached.add(here)
            summary = self.tree.summary(here)
            for mention in summary.flow.mentions if summary is not None else ():
                parts = self.absolute(mention, here).split(".")
                names = [".".join(parts[: length + 1]) for length in range(len(parts))]
                todo.extend(n for n in names if n in self.tree.modules and n not in self._reached)
        return module in self._reached

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

    # -- meaning

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
                source = self._through_stars(module, surface, name)[1] if surface is not None else ""
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

    # -- attributes

    def load(self, target: str, path: list[str]) -> tuple[Answer, str, str]:
        """Reading attributes of something imported: the answer, and module and name of what is missing."""
        place = self.target(target)
        for index, part in enumerate(path):
            if place is None:
                return Answer(UNKNOWN), "", ""
            if place.kind == "module":
                answer = self.name(place.module, part)
                if answer.status in MISSING:
                    return Answer(NO_ATTRIBUTE, "AttributeError"), place.module, part
                if answer.status != FOUND:
                    return answer, "", ""
                submodule = f"{place.module}.{part}"
                if submodule in self.tree.modules and self.defined(place.module, part).status in MISSING:
                    if index + 1 < len(path):
                        answer, module, name = self.load(submodule, path[index + 1 :])
                        if answer.status in MISSING:
                            return answer, module, name
                    return Answer(SUBMODULE, "AttributeError", submodule), place.module, part
                place = self.locate(place.module, part)
            elif place.kind == CLASS:
                own = (
                    part == "__dict__"
                    and path[index + 1 : index + 2] != []
                    and path[index + 1].startswith("[")
                )
                wanted = path[index + 1].strip("[]") if own else part
                there = self.attribute(place, wanted, own=own)
                if there is False:
                    error = "KeyError" if own else "AttributeError"
                    return Answer(NO_ATTRIBUTE, error), place.module, f"{place.name}.{wanted}"
                return (YES if there and index + 1 + own == len(path) else Answer(UNKNOWN)), "", ""
            else:
                return Answer(UNKNOWN), "", ""
        return YES, "", ""

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


def _failure(raised: Raised) -> Answer:
    status = {"ModuleNotFoundError": NO_MODULE, "ImportError": NO_NAME}.get(raised.error, FAILS)
    return Answer(status, raised.error, raised.detail)


__all__ = ["CLASS", "FUNCTION", "MISSING", "Answer", "Place", "Resolver"]
