"""What an import calls: functions, methods, and what making a class runs."""

from __future__ import annotations

from build_recipes.verify.judge.answers import MISSING, Answer, Place, Raised
from build_recipes.verify.judge.played import NOT, State
from build_recipes.verify.read.expressions import RESULT
from build_recipes.verify.read.functions import EVERY, MAKING
from build_recipes.verify.read.model import CLASS, FUNCTION, Call, Make, Node
from build_recipes.verify.read.syntax import VLLM

_DEPTH = 12


class Running(State):
    """A player's calls."""

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
        if body is None and summary is not None and name in summary.flow.importing:
            summary = self.own.tree.summary(module, EVERY)
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
