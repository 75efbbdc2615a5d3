"""Play the import of every vllm-omni module against a vLLM tree, without running anything.

What is played is the flow of each file: what its top level does, in what order, under which guards, and
which of its functions it calls while it is imported. An event is a name that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from build_recipes.verify.judge.resolve import (
    MISSING,
    NO_ATTRIBUTE,
    NO_MODULE,
    NO_NAME,
    NONE,
    Answer,
    Place,
    Resolver,
)
from build_recipes.verify.read.model import (
    Call,
    Handler,
    If,
    Import,
    Load,
    Node,
    Patch,
    Raise,
    Summary,
    Try,
    With,
    walk,
)
from build_recipes.verify.read.syntax import FALSE_HERE, TRUE_HERE
from build_recipes.verify.read.tree import OMNI, VLLM

_BASES = {
    "ModuleNotFoundError": {"ModuleNotFoundError", "ImportError"},
    "ImportError": {"ImportError"},
    "AttributeError": {"AttributeError"},
    "KeyError": {"KeyError", "LookupError"},
    "TypeError": {"TypeError"},
}
_ABOUT_NAME = re.compile(r"""^\w+\.name (==|!=) ['"]([\w.]+)['"]$""")
_DEPTH = 12


@dataclass
class Event:
    """Something an import of a module would meet."""

    module: str
    """The module asked for: of vLLM, or of vllm-omni itself."""
    name: str | None
    file: str
    line: int
    kind: str
    error: str
    detail: str
    guard: str | None
    """What keeps it from failing the import; None where nothing does."""
    where: str
    """Dotted name of the vllm-omni module it is in."""


@dataclass(frozen=True)
class Edge:
    """One vllm-omni module imports another."""

    source: str
    target: str
    guard: str | None


@dataclass(frozen=True)
class Raised:
    """An exception that surely comes out of a statement."""

    error: str
    detail: str


@dataclass
class Played:
    """The outcome of playing all modules."""

    events: list[Event] = field(default_factory=list)
    edges: set[Edge] = field(default_factory=set)
    raised: dict[str, Raised | None] = field(default_factory=dict)
    """By module: what its import ends in."""
    calls: set[tuple[str, int]] = field(default_factory=set)
    """File and line of the calls into vLLM that an import surely makes."""
    crossings: set[tuple[str, str]] = field(default_factory=set)
    """A module, while it is imported, runs a function of another one."""


class Names(Protocol):
    """Who answers for vLLM: its `Resolver`, or a table of answers that were given before."""

    def module(self, module: str) -> Answer:
        """``import module``."""

    def name(self, module: str, name: str) -> Answer:
        """``from module import name``."""

    def load(self, target: str, path: list[str]) -> tuple[Answer, str, str]:
        """Reading attributes of something imported."""


class Player:
    """Plays modules; see `play`."""

    def __init__(self, own: Resolver, summaries: dict[str, Summary], vllm: Names) -> None:
        self.own, self.vllm, self.summaries = own, vllm, summaries
        self.result = Played()
        self.provided = _provided(summaries.values())
        self.events: list[Event] = self.result.events
        self.stack: list[tuple[str, str]] = []
        self.executed: set[tuple[str, str]] = set()
        self.seen: set[tuple[object, ...]] = set()
        self.untouched: dict[str, set[str]] = {}
        """Modules that need not be played, because nothing about them depends on this vLLM: what they import."""

    def play(self, first: Iterable[str] = ()) -> Played:
        """Import every module, then look into the functions that no import has run.

        :param first: modules to begin with, so that events come in the order a user meets them.
        """
        for module in (*first, *self.summaries):
            self.import_module(module)
        for module, summary in self.summaries.items():
            for name, body in summary.flow.functions.items():
                if (module, name) not in self.executed:
                    self.block(body, module, f"in function {name}")
        return self.result

    # -- modules

    def import_module(self, module: str) -> Raised | None:
        """What importing one module of vllm-omni surely raises. A module that is being imported is there."""
        if module in self.result.raised or module not in self.summaries:
            return self.result.raised.get(module)
        self.result.raised[module] = None
        if module in self.untouched:
            reached = (self.import_module(target) for target in self.untouched[module])
            self.result.raised[module] = next((raised for raised in reached if raised is not None), None)
            return self.result.raised[module]
        outer, self.stack = self.stack, []
        kept, self.events = self.events, self.result.events
        raised = self.block(self.summaries[module].flow.body, module, None)
        self.stack, self.events = outer, kept
        self.result.raised[module] = raised
        return raised

    # -- statements

    def block(self, nodes: list[Node], here: str, guard: str | None) -> Raised | None:
        """Play statements; the first exception that surely comes out."""
        first: Raised | None = None
        for node in nodes:
            raised = self.node(node, here, guard)
            first = first or raised
        return first

    def node(self, node: Node, here: str, guard: str | None) -> Raised | None:
        if isinstance(node, Import):
            return self.importing(node, here, guard)
        if isinstance(node, Load):
            return self.loading(node, here, guard)
        if isinstance(node, Call):
            return self.calling(node, here, guard)
        if isinstance(node, Try):
            return self.trying(node, here, guard)
        if isinstance(node, If):
            return self.branching(node, here, guard)
        if isinstance(node, With):
            return self.trying(Try(node.line, node.body, [Handler(node.types, [])], [], []), here, guard)
        if isinstance(node, Raise):
            return Raised("raise", "")
        return None

    def event(
        self, answer: Answer, line: int, asked: tuple[str, str | None], here: str, guard: str | None
    ) -> None:
        module, name = asked
        key = (here, line, module, name, guard)
        if key in self.seen:
            return
        self.seen.add(key)
        self.events.append(
            Event(
                module=module,
                name=name,
                file=self.own.tree.modules[here],
                line=line,
                kind=answer.status,
                error=answer.error,
                detail=answer.detail,
                guard=guard,
                where=here,
            )
        )

    def importing(self, node: Import, here: str, guard: str | None) -> Raised | None:
        module = self.own.absolute(node.module, here)
        top = module.partition(".")[0]
        if top == VLLM:
            return self.from_vllm(node, module, here, guard)
        return self.from_own(node, module, here, guard) if top == OMNI else None

    def from_vllm(self, node: Import, module: str, here: str, guard: str | None) -> Raised | None:
        if module in self.provided or (module == VLLM and not node.names):
            return None
        first: Raised | None = None
        wanted: list[str | None] = [*node.names] or [None]
        for name in wanted:
            answer = self.vllm.module(module) if name in (None, "*") else self.vllm.name(module, name)
            if answer.status not in MISSING and answer.status != NONE:
                continue
            if f"{module}:{name}" in self.provided:
                continue
            self.event(answer, node.line, (module, name), here, guard)
            if answer.status in MISSING:
                first = first or Raised(answer.error, answer.detail)
        return first if guard is None else None

    def from_own(self, node: Import, module: str, here: str, guard: str | None) -> Raised | None:
        wanted = [module]
        answer = self.own.module(module)
        if answer.status == NO_MODULE:
            self.event(answer, node.line, (module, node.names[0] if node.names else None), here, guard)
            first: Raised | None = Raised(answer.error, answer.detail)
        else:
            first = None
            for name in node.names:
                answer = self.own.name(module, name) if name != "*" else self.own.module(module)
                if answer.status in MISSING:
                    self.event(answer, node.line, (module, name), here, guard)
                    first = first or Raised(answer.error, answer.detail)
                if f"{module}.{name}" in self.own.tree.modules:
                    wanted.append(f"{module}.{name}")
        for target in wanted:
            self.result.edges.add(Edge(here, target, guard))
            if guard is None:
                parts = target.split(".")
                for length in range(1, len(parts) + 1):
                    raised = self.import_module(".".join(parts[:length]))
                    first = raised or first
        return first if guard is None else None

    def loading(self, node: Load, here: str, guard: str | None) -> Raised | None:
        if self.own.absolute(node.target.partition(":")[0], here).partition(".")[0] != VLLM:
            return None
        answer, module, name = self.vllm.load(node.target, node.path)
        if answer.status not in MISSING or f"{module}:{name}" in self.provided:
            return None
        self.event(answer, node.line, (module, name), here, guard)
        return Raised(answer.error, answer.detail) if guard is None else None

    def branching(self, node: If, here: str, guard: str | None) -> Raised | None:
        if node.test == TRUE_HERE:
            self.block(node.orelse, here, guard or f"unless {node.text}")
            return self.block(node.body, here, guard)
        if node.test == FALSE_HERE:
            self.block(node.body, here, guard or f"if {node.text}")
            return self.block(node.orelse, here, guard)
        self.block(node.body, here, guard or f"if {node.text}")
        self.block(node.orelse, here, guard or f"unless {node.text}")
        return None

    def trying(self, node: Try, here: str, guard: str | None) -> Raised | None:
        outer, self.events = self.events, []
        raised = self.block(node.body, here, guard)
        inside, self.events = self.events, outer
        caught = None
        if raised is not None:
            caught = next((h for h in node.handlers if _catches(h.types, raised.error)), None)
        came: Raised | None = raised
        for handler in node.handlers:
            if handler is not caught:
                self.block(handler.body, here, guard or "only if the try fails")
        if caught is not None and raised is not None:
            again = self.handler(caught.body, raised, here, guard)
            if again is None or again.error != "raise":
                came = again
                text = "except " + (" | ".join(caught.types) or "anything")
                for event in inside:
                    event.guard = event.guard or text
        self.events.extend(inside)
        after = self.block(
            node.orelse, here, guard if raised is None else guard or "only if the try succeeds"
        )
        final = self.block(node.final, here, guard)
        return came or (after if raised is None else None) or final

    def handler(self, body: list[Node], raised: Raised, here: str, guard: str | None) -> Raised | None:
        """Play a handler that runs. ``raise`` stands for: what was caught comes out again."""
        first: Raised | None = None
        for node in body:
            if isinstance(node, If) and (about := _ABOUT_NAME.match(node.text)):
                same = raised.detail == about[2]
                taken = node.body if same == (about[1] == "==") else node.orelse
                came = self.handler(taken, raised, here, guard)
            else:
                came = self.node(node, here, guard)
            first = first or came
        return first

    # -- calls

    def calling(self, node: Call, here: str, guard: str | None) -> Raised | None:
        """Run the function, where it is of vllm-omni: what it does happens on import too."""
        if guard is not None and guard.startswith("in function"):
            return None
        if guard is None and node.target.partition(":")[0].partition(".")[0] == VLLM:
            self.result.calls.add((self.own.tree.modules[here], node.line))
        found = self.function(node, here)
        if found is None or found in self.stack or len(self.stack) > _DEPTH:
            return None
        module, name = found
        body = self.summaries[module].flow.functions.get(name)
        if body is None:
            return None
        self.executed.add(found)
        if module != here:
            self.result.crossings.add((here, module))
        self.stack.append(found)
        raised = self.block(body, module, guard)
        self.stack.pop()
        return raised

    def function(self, node: Call, here: str) -> tuple[str, str] | None:
        """Module and qualified name of the vllm-omni function that a call runs."""
        module, _, name = node.target.partition(":")
        if module == "super":
            return None
        if not module:
            place = self.own.locate(here, name)
        else:
            module = self.own.absolute(module, here)
            if module.partition(".")[0] != OMNI:
                return None
            place = self.own.target(f"{module}:{name}" if name else module)
        for part in node.path:
            if place is None or place.kind != "module":
                break
            place = self.own.locate(place.module, part)
        if place is None or place.kind not in ("f", "c") or place.module not in self.summaries:
            return None
        if place.kind == "f":
            return place.module, place.name
        if node.path and node.path[-1] != place.name:
            return place.module, f"{place.name}.{node.path[-1]}"
        return self.constructor(place)

    def constructor(self, place: Place) -> tuple[str, str] | None:
        for entry in self.own.ancestry(place):
            if entry is None:
                return None
            if "__init__" in entry[1].methods:
                return entry[0].module, f"{entry[0].name}.__init__"
        return None


def _provided(summaries: Iterable[Summary]) -> frozenset[str]:
    """vLLM modules and names (``module:name``) that vllm-omni itself puts there."""
    found: set[str] = set()
    for summary in summaries:
        for nodes in (summary.flow.body, *summary.flow.functions.values()):
            for node, _ in walk(nodes):
                if isinstance(node, Patch):
                    module, _, name = node.target.partition(":")
                    path = [name, *node.path] if name else node.path
                    if not path:
                        found.add(module)
                    else:
                        found.add(f"{module}:{'.'.join(path)}")
                        found.add(f"{'.'.join([module, *path[:-1]])}:{path[-1]}")
    return frozenset(found)


def _catches(types: list[str], error: str) -> bool:
    if not types or "?" in types:
        return True
    return bool({"Exception", "BaseException", *_BASES.get(error, {error})} & set(types))


__all__ = ["NO_ATTRIBUTE", "NO_MODULE", "NO_NAME", "Edge", "Event", "Played", "Player", "Raised"]
