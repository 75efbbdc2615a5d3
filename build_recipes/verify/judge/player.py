"""Play the import of every module of a package against a vLLM tree, without running anything.

What is played is the flow of each file: what its top level does, in what order, under which guards, and
which of its functions it calls while it is imported. An event is a name that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from build_recipes.verify.judge.answers import (
    MISSING,
    NO_ATTRIBUTE,
    NO_MODULE,
    NO_NAME,
    NONE,
    PRODUCT,
    SUBMODULE,
    UNREAD,
    YES,
    Answer,
    Raised,
)
from build_recipes.verify.judge.branches import Branches
from build_recipes.verify.judge.played import NOT, PERHAPS, SURELY, Edge, Event, Played
from build_recipes.verify.judge.running import Running
from build_recipes.verify.read.model import (
    ALWAYS,
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
    Try,
    With,
)
from build_recipes.verify.read.syntax import VLLM


class Player(Branches, Running):
    """Plays modules; see `play`."""

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
