"""Play the import of every vllm-omni module against a vLLM tree, without running anything.

What is played is the flow of each file: what its top level does, in what order, under which guards, and
which of its functions it calls while it is imported. An event is a name that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from build_recipes.verify.judge import conditions
from build_recipes.verify.judge.answers import (
    FOUND,
    MISSING,
    NO_ATTRIBUTE,
    NO_MODULE,
    NO_NAME,
    NONE,
    PRODUCT,
    REFUSED,
    SUBMODULE,
    UNREAD,
    YES,
    Answer,
    Place,
    Raised,
)
from build_recipes.verify.packages import platforms
from build_recipes.verify.read.expressions import RESULT
from build_recipes.verify.read.flow import MAKING
from build_recipes.verify.read.model import (
    ALWAYS,
    CLASS,
    FUNCTION,
    Call,
    Handler,
    If,
    Import,
    Leave,
    Load,
    Make,
    Node,
    Patch,
    Raise,
    Summary,
    Try,
    With,
    walk,
)
from build_recipes.verify.read.syntax import FALSE, FALSE_HERE, TRUE, TRUE_HERE, UNKNOWN, VLLM

if TYPE_CHECKING:
    from build_recipes.verify.judge.resolve import Resolver

_BASES = {
    "ModuleNotFoundError": {"ModuleNotFoundError", "ImportError"},
    "ImportError": {"ImportError"},
    "AttributeError": {"AttributeError"},
    "KeyError": {"KeyError", "LookupError"},
    "TypeError": {"TypeError"},
}
_ABOUT_NAME = re.compile(r"""^\w+\.name (==|!=) ['"]([\w.]+)['"]$""")
_DEPTH = 12
NOT, PERHAPS, SURELY = 0, 1, 2


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
    patch: tuple[str, str] | None = None
    """Module and function that would have put it there, had it run before."""


@dataclass(frozen=True)
class Edge:
    """One vllm-omni module imports another."""

    source: str
    target: str
    guard: str | None


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
    patches: dict[str, set[str]] = field(default_factory=dict)
    """By module: what its import puts into vLLM."""
    unread: set[tuple[str, str]] = field(default_factory=set)
    """A module, and one of vLLM that its import needs and whose file could not be read."""


class Names(Protocol):
    """Who answers for vLLM: its `Resolver`, or a table of answers that were given before."""

    @property
    def version(self) -> str:
        """The vLLM's version; empty where it is not known."""

    def module(self, module: str) -> Answer:
        """``import module``."""

    def name(self, module: str, name: str) -> Answer:
        """``from module import name``."""

    def load(self, target: str, path: list[str]) -> tuple[Answer, str, str]:
        """Reading attributes of something imported."""

    def may_load(self, module: str, by: Collection[str]) -> bool:
        """Whether importing some modules may import another one."""

    def runs(self, target: str, path: list[str]) -> Answer:
        """Calling a function, a class or a method."""

    def makes(self, target: str) -> Answer:
        """Making a class on a base."""


class Player:
    """Plays modules; see `play`."""

    def __init__(self, own: Resolver, summaries: Mapping[str, Summary], vllm: Names) -> None:
        self.own, self.vllm, self.summaries = own, vllm, summaries
        self.package = own.tree.package
        self.platforms = platforms(own.tree) if self.package != VLLM else frozenset()
        self.result = Played()
        self.events: list[Event] = self.result.events
        self.stack: list[tuple[str, str]] = []
        self.executed: set[tuple[str, str]] = set()
        self.seen: set[tuple[object, ...]] = set()
        self.untouched: dict[str, set[str]] = {}
        """Modules that need not be played, because nothing about them depends on this vLLM: what they import."""
        self.patches: dict[str, set[str]] = {}
        """What the import of an untouched module puts into vLLM."""
        self.active: dict[str, int] = {}
        """Modules that are being imported, and the line each is at."""
        self.provided: set[str] = set()
        """vLLM modules and names (``module:name``) that the package has put there so far."""
        self.patchers = {} if self.package == VLLM else _patchers(summaries)
        self.asked: set[str] = set()
        """vLLM's modules that were imported so far."""
        self.because = ""
        """The condition that was decided by what vLLM is, around the statement that is played."""
        self.dead = 0
        """More than 0 after an exception that surely came: what follows is looked at, and does not happen."""
        self.ran: dict[tuple[tuple[str, str], bool, bool], Raised | None] = {}
        """What running a function ended in: surely or perhaps, where it happens or is only looked at."""
        self.left = NOT
        """Whether the function that is played has returned."""
        self.truths: dict[str, int] = {}
        self.tainted: set[str] = set()
        """Modules whose import needs a file that could not be read."""

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
        for event in self.events:
            if event.patch is not None and event.patch in self.executed:
                event.guard = None  # patched, and too late
        return self.result

    # -- modules

    def import_module(self, module: str) -> Raised | None:
        """What importing one module of the package surely raises. One that is being imported is there."""
        if module in self.result.raised or module not in self.summaries:
            return self.result.raised.get(module)
        self.result.raised[module] = None
        if module in self.untouched:
            reached = (self.import_module(target) for target in self.untouched[module])
            self.result.raised[module] = next((raised for raised in reached if raised is not None), None)
            self.provided |= self.patches.get(module, set())
            return self.result.raised[module]
        outer = self.stack, self.events, self.because, self.dead, self.left
        self.stack, self.events, self.because, self.dead, self.left = [], self.result.events, "", 0, NOT
        self.active[module] = 0
        raised = self.block(self.summaries[module].flow.body, module, None)
        del self.active[module]
        self.stack, self.events, self.because, self.dead, self.left = outer
        self.result.raised[module] = raised
        return raised

    # -- statements

    def block(self, nodes: list[Node], here: str, guard: str | None) -> Raised | None:
        """Play statements; the first exception that surely comes out."""
        first: Raised | None = None
        for node in nodes:
            if self.left == SURELY:
                break
            raised = self.node(node, here, guard or ("unless it returns before" if self.left else None))
            if raised is not None and first is None:
                first = raised
                self.dead += 1
        if first is not None:
            self.dead -= 1
        return first

    def node(self, node: Node, here: str, guard: str | None) -> Raised | None:
        if not self.stack and here in self.active:
            self.active[here] = node.line
        if isinstance(node, Import):
            return self.importing(node, here, guard)
        if isinstance(node, Load):
            return self.loading(node, here, guard)
        if isinstance(node, Call):
            return self.calling(node, here, guard)
        if isinstance(node, Patch):
            self.patching(node, here)
            return None
        if isinstance(node, Make):
            return self.making(node, here, guard)
        if isinstance(node, Try):
            return self.trying(node, here, guard)
        if isinstance(node, If):
            return self.branching(node, here, guard)
        if isinstance(node, With):
            return self.trying(Try(node.line, node.body, [Handler(node.types, [])], [], []), here, guard)
        if isinstance(node, Raise):
            return self.raising(node, here, guard)
        if isinstance(node, Leave) and not self.dead:
            self.left = PERHAPS if guard else SURELY
        return None

    def event(
        self,
        answer: Answer,
        line: int,
        asked: tuple[str, str | None],
        here: str,
        guard: str | None,
    ) -> Event | None:
        module, name = asked
        key = (here, line, module, name, guard)
        if key in self.seen:
            return None
        self.seen.add(key)
        found = Event(
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
        self.events.append(found)
        return found

    def missing(
        self, answer: Answer, line: int, asked: tuple[str, str | None], here: str, guard: str | None
    ) -> Raised | None:
        """Something of vLLM that is not there, unless the package has put it there, or may have."""
        module, name = asked
        if f"{module}:{name}" in self.provided:
            return None
        patch = self.patchers.get(f"{module}:{name}") or self.patchers.get(module)
        why = guard or (f"unless {patch[1]} of {patch[0]} has run before" if patch else None)
        told = self.event(answer, line, asked, here, why)
        if told is not None and guard is None:
            told.patch = patch
        return Raised(answer.error, answer.detail) if why is None and answer.status in MISSING else None

    def importing(self, node: Import, here: str, guard: str | None) -> Raised | None:
        module = self.own.absolute(node.module, here)
        top = module.partition(".")[0]
        if top == self.package:
            return self.from_own(node, module, here, guard)
        return self.from_vllm(node, module, here, guard) if top == VLLM else None

    def from_vllm(self, node: Import, module: str, here: str, guard: str | None) -> Raised | None:
        if module in self.provided or (module == VLLM and not node.names):
            self.asked.add(module)
            return None
        first: Raised | None = None
        wanted: list[str | None] = [*node.names] or [None]
        for name in wanted:
            answer = self.vllm.module(module) if name is None else self.vllm.name(module, name)
            self.asked.update((module, f"{module}.{name}") if name else (module,))
            if answer.status == UNREAD:
                self.result.unread.add((here, module))
            if answer.status not in MISSING and answer.status != NONE:
                continue
            raised = self.missing(answer, node.line, (module, name), here, guard)
            first = first or raised
        return first if guard is None else None

    def from_own(self, node: Import, module: str, here: str, guard: str | None) -> Raised | None:
        parts = module.split(".")
        first: Raised | None = None
        for length in range(1, len(parts) + 1):
            first = first or self.reach(".".join(parts[:length]), here, guard)
        answer = self.own.exists(module)
        if answer.status == NO_MODULE:
            self.event(answer, node.line, (module, node.names[0] if node.names else None), here, guard)
            first = first or Raised(answer.error, answer.detail)
        elif answer.status != PRODUCT:
            for name in node.names:
                answer = self.starred(module, here) if name == "*" else self.own_name(module, name)
                if answer.status in MISSING:
                    self.event(answer, node.line, (module, name), here, guard)
                    first = first or Raised(answer.error, answer.detail)
                for target in self.own_targets(module, name):
                    first = first or self.reach(target, here, guard)
        return first if guard is None else None

    def reach(self, module: str, here: str, guard: str | None) -> Raised | None:
        """Import a module of the package from another one."""
        if module not in self.own.tree.modules:
            return None
        self.result.edges.add(Edge(here, module, guard))
        if guard is not None:
            return None
        raised = self.import_module(module)
        if module in self.tainted or (module in self.summaries and self.summaries[module].problem):
            self.tainted.update(self.active)
        return raised

    def own_name(self, module: str, name: str) -> Answer:
        """``from module import name`` in the package itself; what a module that is being imported binds later
        is not there yet."""
        if f"{module}.{name}" in self.own.tree.modules:
            return YES
        if module in self.active:
            surface = self.own.tree.surface(module)
            entry = surface.names.get(name) if surface is not None else None
            if entry is not None and entry.when == ALWAYS and entry.line > self.active[module]:
                return Answer(NO_NAME, "ImportError", module)
        if self.package == VLLM:
            return self.own.defined(module, name)
        return self.own.name(module, name)

    def starred(self, module: str, here: str) -> Answer:
        """``from module import *`` in the package itself."""
        if module in self.active:
            self.own.partial[here, module] = self.active[module]
            return YES
        surface = self.own.tree.surface(module)
        for name in (surface.exported or ()) if surface is not None else ():
            if self.own_name(module, name).status in MISSING:
                return Answer(NO_ATTRIBUTE, "AttributeError", name)
        return YES

    def own_targets(self, module: str, name: str) -> Iterator[str]:
        """Modules that a name of the package is taken from: a submodule, or where a ``__getattr__`` looks."""
        if f"{module}.{name}" in self.own.tree.modules:
            yield f"{module}.{name}"
            return
        surface = self.own.tree.surface(module)
        target = surface.lazy.targets.get(name) if surface is not None and surface.lazy is not None else None
        if target and surface is not None and name not in surface.names:
            yield self.own.absolute(target.partition(":")[0], module)

    def loading(self, node: Load, here: str, guard: str | None) -> Raised | None:
        target = node.target
        if target.startswith((".", "<")):
            module, _, name = target.partition(":")
            target = ":".join(filter(None, (self.own.absolute(module, here), name)))
        if target.partition(":")[0].partition(".")[0] != VLLM or self.package == VLLM:
            return None
        answer, module, name = self.vllm.load(target, node.path)
        if answer.status == UNREAD:
            self.result.unread.add((here, module or target.partition(":")[0]))
        if answer.status == SUBMODULE and guard is None and not self.loaded(answer.detail):
            answer = Answer(NO_ATTRIBUTE, "AttributeError")
        return (
            self.missing(answer, node.line, (module, name), here, guard) if answer.status in MISSING else None
        )

    def loaded(self, module: str) -> bool:
        """Whether a module of vLLM may have been imported by now."""
        return module in self.asked or self.vllm.may_load(module, {*self.asked, VLLM})

    def branching(self, node: If, here: str, guard: str | None) -> Raised | None:
        test = self.decided(node.ask, here) if node.ask else node.test
        if self.platforms and test in (TRUE_HERE, FALSE_HERE):
            test = self.elsewhere(node.text, test)
        if node.ask and test in (TRUE, FALSE):
            outer, self.because = self.because, node.text
            raised = self.block(node.body if test == TRUE else node.orelse, here, guard)
            self.because = outer
            return raised
        if test in (TRUE_HERE, TRUE):
            self.aside(node.orelse, here, guard or f"unless {node.text}")
            return self.block(node.body, here, guard)
        if test in (FALSE_HERE, FALSE):
            self.aside(node.body, here, guard or f"if {node.text}")
            return self.block(node.orelse, here, guard)
        self.block(node.body, here, guard or f"if {node.text}")
        self.block(node.orelse, here, guard or f"unless {node.text}")
        return None

    def elsewhere(self, text: str, test: int) -> int:
        """What a question for the platform is on the one that the package is for."""
        words = set(re.split(r"[\W_]+", text))
        if words & self.platforms or "cuda" in words:
            return FALSE_HERE if test == TRUE_HERE else TRUE_HERE
        return test

    def aside(self, nodes: list[Node], here: str, guard: str) -> None:
        """Look at statements that do not run here."""
        left, self.left = self.left, NOT
        self.dead += 1
        self.block(nodes, here, guard)
        self.dead -= 1
        self.left = left

    def decided(self, ask: str, here: str) -> int:
        """Whether a condition holds on this vLLM."""
        if ":" in ask and "_(':" in ask:
            return conditions.truth(ask, _Asked(self, here))
        if ask not in self.truths:
            self.truths[ask] = conditions.truth(ask, _Asked(self, here))
        return self.truths[ask]

    def raising(self, node: Raise, here: str, guard: str | None) -> Raised | None:
        """``raise``; one that what vLLM is has led to is told."""
        if guard is not None:
            return None
        if self.because and node.error and self.package != VLLM:
            self.event(Answer(REFUSED, node.error), node.line, (VLLM, None), here, None)
        return Raised(node.error or "raise", "", explicit=True)

    def patching(self, node: Patch, here: str) -> None:
        """What is put into vLLM is there from now on."""
        if self.dead:
            return
        found = set(_put(node))
        self.provided |= found
        for module in self.active:
            self.result.patches.setdefault(module, set()).update(found)

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
                self.aside(handler.body, here, guard or "only if the try fails")
        if caught is not None and raised is not None:
            again = self.handler(caught.body, raised, here, guard)
            if again is not None and again.explicit:
                came = raised if again.error == "raise" else Raised(again.error, "")
            else:
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
        """Run the function, where it is of the package: what it does happens on import too."""
        if guard is not None and guard.startswith("in function"):
            return None
        module, _, name = node.target.partition(":")
        if module.startswith((".", "<")):
            module = self.own.absolute(module, here)
        if guard is None and module.partition(".")[0] == VLLM and self.package != VLLM:
            self.result.calls.add((self.own.tree.modules[here], node.line))
            target = f"{module}:{name}" if name else module
            return self.failed(self.vllm.runs(target, node.path), node.line, (target, node.path), here)
        found = self.function(node, here)
        return self.run(found, here, guard) if found is not None else None

    def failed(self, answer: Answer, line: int, asked: tuple[str, list[str]], here: str) -> Raised | None:
        """A call into vLLM, or a class made on one of its classes, that surely ends in an error."""
        if answer.status not in MISSING:
            return None
        target, path = asked
        module, _, name = target.partition(":")
        self.event(answer, line, (module, ".".join(filter(None, [name, *path])) or None), here, None)
        return Raised(answer.error, answer.detail)

    def run(self, found: tuple[str, str], here: str, guard: str | None) -> Raised | None:
        """Run a function of the package."""
        if found in self.stack or len(self.stack) > _DEPTH:
            return None
        module, name = found
        summary = self.summaries.get(module)
        body = summary.flow.functions.get(name) if summary is not None else None
        if summary is None or body is None:
            return None
        if name in summary.flow.deferred and guard is None:
            guard = f"if {name} is run"  # a generator or a coroutine: a call alone runs nothing
        self.executed.add(found)
        if module != here:
            self.result.crossings.add((here, module))
        key = (found, guard is None, self.dead > 0)
        if key in self.ran:  # what it does was played, and its events are told
            return self.ran[key]
        self.stack.append(found)
        left, self.left = self.left, NOT
        raised = self.ran[key] = self.block(body, module, guard)
        self.left = left
        self.stack.pop()
        return raised

    def run_body(self, body: list[Node], here: str) -> Raised | None:
        """Play the body of a function of which nothing else is known."""
        left, self.left = self.left, NOT
        raised = self.block(body, here, None)
        self.left = left
        return raised

    def function(self, node: Call, here: str) -> tuple[str, str] | None:
        """Module and qualified name of the package's function that a call runs."""
        module, _, name = node.target.partition(":")
        if module in ("super", "self"):
            return None
        if not module:
            place = self.own.locate(here, name)
        else:
            module = self.own.absolute(module, here)
            if module.partition(".")[0] != self.package:
                return None
            place = self.own.target(f"{module}:{name}" if name else module)
        path = list(node.path)
        while path and place is not None and place.kind == "module":
            place = self.own.locate(place.module, path.pop(0))
        if place is None or place.kind not in (FUNCTION, CLASS) or place.module not in self.summaries:
            return None
        if place.kind == FUNCTION:
            return (place.module, place.name) if not path else self.inner(place, path)
        path = [part for part in path if part != RESULT]
        if path:
            return self.method(place, path[-1]) if path[-1] != place.name else self.method(place, "__init__")
        return self.method(place, "__call__" if RESULT in node.path else "__init__")

    def inner(self, place: Place, path: list[str]) -> tuple[str, str] | None:
        """What a function gives, where that is the one function in it: a decorator that takes arguments."""
        if path != [RESULT]:
            return None
        functions = self.summaries[place.module].flow.functions
        found = [key for key in functions if key.rpartition(".")[0] == place.name]
        return (place.module, found[0]) if len(found) == 1 else None

    def method(self, place: Place, name: str) -> tuple[str, str] | None:
        """The method a class of the package has, itself or from its bases."""
        names = (name, "__post_init__", "__new__") if name == "__init__" else (name,)
        for entry in self.own.ancestry(place):
            if entry is None:
                return None
            for wanted in names:
                if wanted in entry[1].methods:
                    return entry[0].module, f"{entry[0].name}.{wanted}"
        return None

    def making(self, node: Make, here: str, guard: str | None) -> Raised | None:
        """A class statement: the metaclass and ``__init_subclass__`` of the bases run."""
        if guard is not None and guard.startswith("in function"):
            return None
        first: Raised | None = None
        metas = [node.metaclass] if node.metaclass else []
        for meta in metas:
            place = self.own.dotted(here, meta)
            target = self.own.leads_out(here, meta) if place is None and guard is None else ""
            for name in MAKING[1:] if target else ():
                answer = self.vllm.runs(target, [name])
                first = first or self.failed(answer, node.line, (target, [name]), here)
            first = first or self.made_by(place, here, guard, MAKING[1:])
        for base in node.bases:
            place = self.own.dotted(here, base)
            if place is not None and place.kind == CLASS:
                first = first or self.made_by(place, here, guard, MAKING[:1])
                for entry in self.own.ancestry(place):
                    for keyword in entry[1].keywords if entry is not None else ():
                        if entry is not None and keyword.startswith("metaclass=") and not metas:
                            meta_place = self.own.dotted(entry[0].module, keyword.partition("=")[2])
                            first = first or self.made_by(meta_place, here, guard, MAKING[1:])
            elif place is None and self.package != VLLM and guard is None:
                target = self.own.leads_out(here, base)
                if target:
                    answer = self.vllm.makes(target)
                    first = first or self.failed(answer, node.line, (target, []), here)
        return first

    def made_by(
        self, place: Place | None, here: str, guard: str | None, names: tuple[str, ...]
    ) -> Raised | None:
        if place is None or place.kind != CLASS:
            return None
        for name in names:
            found = self.method(place, name) if name != "__init__" else self.own_init(place)
            raised = self.run(found, here, guard) if found is not None else None
            if raised is not None:
                return raised
        return None

    def own_init(self, place: Place) -> tuple[str, str] | None:
        """The ``__init__`` of a metaclass."""
        entry = self.own.class_of(place)
        return (place.module, f"{place.name}.__init__") if entry and "__init__" in entry.methods else None


class _Asked:
    """Answers conditions for a player."""

    def __init__(self, player: Player, here: str) -> None:
        self.player, self.here = player, here

    def versions(self, distribution: str) -> str:
        tree = self.player.own.tree
        if distribution == VLLM:
            return self.player.vllm.version
        return tree.version if distribution in (tree.index.name, tree.package) else ""

    def module(self, module: str) -> Answer:
        return self.player.vllm.module(module)

    def load(self, target: str, path: list[str]) -> Answer:
        answer, module, name = self.player.vllm.load(target, path)
        return Answer(FOUND) if f"{module}:{name}" in self.player.provided else answer

    def compares(self, target: str) -> str:
        module, _, name = target.partition(":")
        module = self.player.own.absolute(module, self.here) if module else self.here
        place = self.player.own.locate(module, name)
        summary = self.player.summaries.get(place.module) if place is not None else None
        return summary.flow.versions.get(place.name, "") if summary is not None and place is not None else ""


def _put(node: Patch) -> Iterator[str]:
    """vLLM modules and names (``module:name``) that a patch puts there."""
    module, _, name = node.target.partition(":")
    path = [name, *node.path] if name else node.path
    if not path:
        yield module
    else:
        yield f"{module}:{'.'.join(path)}"
        yield f"{'.'.join([module, *path[:-1]])}:{path[-1]}"


def _patchers(summaries: Mapping[str, Summary]) -> dict[str, tuple[str, str]]:
    """What functions of the package put into vLLM when they run, and which."""
    return {
        what: (module, name)
        for module, summary in summaries.items()
        for name, body in summary.flow.functions.items()
        for node, _ in walk(body)
        if isinstance(node, Patch)
        for what in _put(node)
    }


def _catches(types: list[str], error: str) -> bool:
    if not types or "?" in types:
        return True
    return bool({"Exception", "BaseException", *_BASES.get(error, {error})} & set(types))


__all__ = ["NO_ATTRIBUTE", "NO_MODULE", "NO_NAME", "UNKNOWN", "Edge", "Event", "Played", "Player", "Raised"]
