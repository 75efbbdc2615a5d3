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
from build_recipes.verify.judge.places import Places
from build_recipes.verify.judge.player import Player
from build_recipes.verify.read.functions import EVERY
from build_recipes.verify.read.model import ALWAYS, CLASS, FUNCTION, TYPING, Surface
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


class Resolver(Places):
    """Answers for one tree; everything is remembered.

    A module of vLLM is there when its import goes well, too: what its own file and all that it imports do at
    import is played, with vLLM itself in the place of the package that is judged.
    """

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self._modules: dict[str, Answer] = {}
        self._names: dict[tuple[str, str], Answer] = {}
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
        summary = self.tree.summary(module, EVERY) if self.inside is not None else None
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
            found, _ = self.through_stars(module, surface, name)
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

    def through_stars(self, module: str, surface: Surface, name: str) -> tuple[Answer | None, str]:
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


def _failure(raised: Raised) -> Answer:
    status = {"ModuleNotFoundError": NO_MODULE, "ImportError": NO_NAME}.get(raised.error, FAILS)
    return Answer(status, raised.error, raised.detail)


__all__ = ["CLASS", "FUNCTION", "MISSING", "Answer", "Place", "Resolver"]
