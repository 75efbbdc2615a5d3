"""The call tier: calls into vLLM that no longer bind, overrides that no longer fit, attributes that are gone.

Everything is looked at twice, against the vLLM a vllm-omni release was made for and against the one that is
asked about; only what is new is told. Names that are missing are the static tier's and are not told again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from build_recipes.verify.judge.resolve import Place, Resolver
from build_recipes.verify.judge.signature import bound, constructor, disorder, is_plain, misfit, problem
from build_recipes.verify.read.functions import HEIRS
from build_recipes.verify.read.model import (
    BODY,
    CLASS,
    FUNCTION,
    VALUE,
    Call,
    Class,
    Function,
    If,
    Node,
    Summary,
    Try,
    walk,
)
from build_recipes.verify.read.syntax import VLLM

ERROR, WARNING = "error", "warning"
_BY_CLASS = ("super:", "self:")


class Key(NamedTuple):
    """What is looked at, the same for every vLLM."""

    file: str
    line: int
    callee: str
    """Dotted: the function, ``Class.method``, or ``Class.attribute``."""
    kind: str
    """``call``, ``super``, ``self``, ``constructor``, ``override``, ``attribute`` or ``class``."""


class Finding(NamedTuple):
    """What is wrong with it."""

    problem: str
    severity: str


class Step(NamedTuple):
    """One class of a line of descent; `own` says whose."""

    own: bool
    place: Place
    entry: Class


class Caller:
    """Looks at all calls of a vllm-omni release against one vLLM."""

    def __init__(self, summaries: dict[str, Summary], own: Resolver, vllm: Resolver) -> None:
        self.summaries, self.own, self.vllm = summaries, own, vllm
        self._lines: dict[Place, list[Step | None]] = {}
        self.found: dict[Key, Finding] = {}
        self.seen: set[Key] = set()
        """Everything that could be judged."""

    def look(self, only: set[tuple[str, int]] | None = None) -> None:
        """Judge every call, override and attribute.

        :param only: file and line of the calls that an import makes: they and classes alone are judged, which is
            what may fail an import.
        """
        for module, summary in self.summaries.items():
            file = self.own.tree.modules[module]
            for call, tested in _calls(summary):
                if not call.target.startswith(_BY_CLASS) and (only is None or (file, call.line) in only):
                    self.call(call, module, tested)
            for name in summary.surface.classes:
                if only is None:
                    self.overrides(Place(CLASS, module, name))
                self.fields(Place(CLASS, module, name))
            if only is not None:
                continue
            if self.inherits(module, summary):
                self.inherited(module)

    def _judge(self, key: Key, wrong: str, severity: str) -> None:
        self.seen.add(key)
        if wrong:
            self.found[key] = Finding(wrong, severity)

    def inherits(self, module: str, summary: Summary) -> bool:
        """Whether a class of a file descends from one of vLLM's."""
        lines = (self.line(Place(CLASS, module, name)) for name in summary.surface.classes)
        return any(step is not None and not step.own for line in lines for step in line)

    def inherited(self, module: str) -> None:
        """Judge what methods ask of the classes that theirs descends from."""
        whole = self.own.tree.summary(module, HEIRS)
        for call, tested in _calls(whole) if whole is not None else ():
            if call.target.startswith(_BY_CLASS):
                self.method(call, module, tested)
        for name, read in whole.flow.selves.items() if whole is not None else ():
            self.attributes(Place(CLASS, module, name), read)

    # -- calls

    def call(self, call: Call, module: str, tested: bool) -> None:
        if call.target.partition(":")[0].partition(".")[0] == VLLM:
            place = self.vllm.target(call.target)
            path = list(call.path)
            while place is not None and place.kind == "module" and path:
                place = self.vllm.locate(place.module, path.pop(0))
            if place is not None and len(path) <= 1:
                self.into_vllm(call, module, tested, place, path)

    def into_vllm(self, call: Call, module: str, tested: bool, place: Place, path: list[str]) -> None:
        wrong: tuple[str, bool] | None = None
        kind = "call"
        if place.kind == FUNCTION and not path:
            function = self._function(place)
            wrong = (problem(function.parameters, call), is_plain(function)) if function else None
        elif place.kind == CLASS and not path:
            kind, wrong = "constructor", self.construct(call, place)
        elif place.kind in (CLASS, VALUE):
            wrong = self.on_object(call, place, path)
        if wrong is not None:
            text, sure = wrong
            key = Key(
                self.own.tree.modules[module],
                call.line,
                ".".join([call.target.replace(":", "."), *call.path]),
                kind,
            )
            self._judge(key, text, ERROR if sure and not tested else WARNING)

    def construct(self, call: Call, place: Place) -> tuple[str, bool] | None:
        """A call of a class of vLLM."""
        chain = self.vllm.ancestry(place)
        known: list[Class] = []
        for entry in chain:
            if entry is None:
                break
            known.append(entry[1])
            if "__new__" in entry[1].methods or any(k.startswith("metaclass") for k in entry[1].keywords):
                return None
            init = entry[1].methods.get("__init__")
            if init is not None:
                return problem(bound(init, True), call), is_plain(init)
        outside = [b for e in known for b in e.bases if b.rpartition(".")[2] in ("Struct", "NamedTuple")]
        if len(known) < len(chain) and not outside:
            return None
        parameters = constructor(known)
        return (problem(parameters, call), True) if parameters is not None else None

    def on_object(self, call: Call, place: Place, path: list[str]) -> tuple[str, bool] | None:
        """``Class.method(...)`` and ``instance.method(...)``, for instances a module of vLLM makes."""
        by_instance = place.kind == VALUE
        if by_instance:
            surface = self.vllm.tree.surface(place.module)
            made = surface.names[place.name].target if surface is not None else ""
            above = self.vllm.dotted(place.module, made) if made and not made.startswith(("=", "?")) else None
            if above is None or above.kind != CLASS:
                return None
            place = above
        if not path:
            return None
        for entry in self.vllm.ancestry(place):
            if entry is None:
                return None
            function = entry[1].methods.get(path[0])
            if function is not None:
                return problem(bound(function, by_instance), call), is_plain(function)
        return None

    def _function(self, place: Place) -> Function | None:
        surface = self.vllm.tree.surface(place.module)
        return surface.functions.get(place.name) if surface is not None else None

    # -- classes of vllm-omni that descend from vLLM's

    def line(self, place: Place) -> list[Step | None]:
        """A class of vllm-omni and all its bases, of both projects, nearest first; None for others."""
        if place in self._lines:
            return self._lines[place]
        found: list[Step | None] = []
        todo: list[tuple[bool, Place]] = [(True, place)]
        seen = set(todo)
        while todo:
            own, here = todo.pop(0)
            resolver = self.own if own else self.vllm
            entry = resolver.class_of(here)
            if entry is None:
                found.append(None)
                continue
            found.append(Step(own, here, entry))
            for base in entry.bases:
                if base.rpartition(".")[2] in ("object", "ABC", "Protocol", "Generic"):
                    continue
                above = self._base(resolver, own, here.module, base)
                if above is None:
                    found.append(None)
                elif above not in seen:
                    seen.add(above)
                    todo.append(above)
        self._lines[place] = found
        return found

    def _base(self, resolver: Resolver, own: bool, module: str, base: str) -> tuple[bool, Place] | None:
        place = resolver.dotted(module, base)
        if place is not None:
            return (own, place) if place.kind == CLASS else None
        if not own:
            return None
        target = self.own.leads_out(module, base)
        above = self.vllm.target(target) if target else None
        return (False, above) if above is not None and above.kind == CLASS else None

    def method(self, call: Call, module: str, tested: bool) -> None:
        """``super().name(...)``, or ``self.name(...)`` of what is inherited from vLLM."""
        whose, _, owner = call.target.partition(":")
        line = self.line(Place(CLASS, module, owner))
        name = call.path[0]
        file = self.own.tree.modules[module]
        for step in line[1:] if whose == "super" else line:
            if step is None:
                break
            function = step.entry.methods.get(name)
            if function is None:
                if name in step.entry.attributes or name in step.entry.fields or name in step.entry.instance:
                    return
                continue
            if step.own:
                return
            if _is_property(function):
                text, plain = "is a property, and is called", True
            else:
                text, plain = problem(bound(function, True), call), is_plain(function)
            if name == "__init__" and any(k.startswith("metaclass") for k in step.entry.keywords):
                return
            key = Key(file, call.line, f"{step.place.name}.{name}", whose)
            self._judge(key, text, ERROR if plain and not tested else WARNING)
            return
        theirs = [step for step in line if step is not None and not step.own]
        if whose == "super" and theirs and not name.startswith("__"):
            key = Key(file, call.line, f"{theirs[0].place.name}.{name}", whose)
            self.found[key] = Finding(
                "is gone from the base classes", WARNING if None in line or tested else ERROR
            )

    def overrides(self, place: Place) -> None:
        """Methods that replace one of vLLM's."""
        line = self.line(place)
        if not line or line[0] is None:
            return
        for name, ours in line[0].entry.methods.items():
            if name.startswith("__") or _is_property(ours):
                continue
            for step in line[1:]:
                if step is None or step.own:
                    if step is not None and name in step.entry.methods:
                        break
                    continue
                theirs = step.entry.methods.get(name)
                if theirs is not None:
                    path = self.own.tree.modules[place.module]
                    key = Key(path, ours.line, f"{step.place.name}.{name}", "override")
                    changed = "is a property in the base class" if _is_property(theirs) else ""
                    self._judge(key, changed or misfit(theirs, ours), WARNING)
                    break

    def attributes(self, place: Place, read: dict[str, int]) -> None:
        """Attributes of ``self`` that only a base of vLLM has."""
        line = self.line(place)
        steps = [step for step in line if step is not None]
        theirs = [step for step in steps if not step.own]
        if not theirs:
            return
        ours: set[str] = set()
        for step in steps:
            if step.own:
                ours.update(_members(step.entry))
        inherited: set[str] = set()
        for step in theirs:
            inherited.update(_members(step.entry))
        path = self.own.tree.modules[place.module]
        for name, number in read.items():
            if name not in ours and not name.startswith("__"):
                key = Key(path, number, f"{theirs[0].place.name}.{name}", "attribute")
                if name in inherited:
                    self.seen.add(key)
                else:
                    self.found[key] = Finding("is gone from the base class", WARNING)

    def fields(self, place: Place) -> None:
        """A dataclass of vllm-omni on one of vLLM: whether the fields of both go together."""
        line = self.line(place)
        steps = [step for step in line if step is not None]
        if not steps or all(step.own for step in steps):
            return
        made = [self._makes_dataclass(place.module, name) for name in steps[0].entry.decorators]
        struct = any(base.rpartition(".")[2] == "Struct" for step in steps for base in step.entry.bases)
        foreign = len(line) - len(steps)
        if not (any(made) or struct) or foreign > struct:
            return
        text = disorder([step.entry for step in steps], sum(made) > 1)
        theirs = next(step for step in steps if not step.own)
        key = Key(
            self.own.tree.modules[place.module],
            steps[0].entry.line,
            f"{theirs.place.module}.{theirs.place.name}",
            "class",
        )
        self._judge(key, text, ERROR)

    def _makes_dataclass(self, module: str, decorator: str) -> bool:
        last = decorator.rpartition(".")[2]
        if last == "dataclass":
            return True
        target = self.own.leads_out(module, decorator)
        place = self.vllm.target(target) if target else None
        function = self._function(place) if place is not None and place.kind == FUNCTION else None
        return function is not None and any(d.endswith("dataclass_transform") for d in function.decorators)


def _is_property(function: Function) -> bool:
    return any(name.rpartition(".")[2] in ("property", "cached_property") for name in function.decorators)


def news(then: Caller, now: Caller) -> dict[Key, Finding]:
    """What is wrong now and was right then. What could not be judged then is not told."""
    by_place: dict[tuple[str, int, str, str], Key] = {}
    for key in then.seen:
        if key not in then.found:
            by_place[_place_of(key)] = key
    return {key: finding for key, finding in now.found.items() if _place_of(key) in by_place}


def _place_of(key: Key) -> tuple[str, int, str, str]:
    return key.file, key.line, key.callee.rpartition(".")[2], key.kind


def _members(entry: Class) -> set[str]:
    return {*entry.methods, *entry.attributes, *entry.fields, *entry.instance}


_ASKS = ("signature", "hasattr", "version", "inspect", "supports")
"""Words of a condition that asks whether a call fits."""


def _calls(summary: Summary) -> Iterator[tuple[Call, bool]]:
    """All calls of a file, and whether they are tested for or caught."""
    for nodes in (summary.flow.body, *summary.flow.functions.values()):
        for node, around in walk(nodes):
            if isinstance(node, Call):
                yield node, any(_tests(outer, part) for outer, part in around)


def _tests(outer: Node, part: str) -> bool:
    if isinstance(outer, If):
        return any(word in outer.text for word in _ASKS)
    return (
        isinstance(outer, Try)
        and part == BODY
        and any(
            not h.types or {"TypeError", "Exception", "BaseException"} & set(h.types) for h in outer.handlers
        )
    )
