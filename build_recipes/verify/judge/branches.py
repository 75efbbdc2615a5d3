"""What of an import happens only perhaps: conditions, ``try``, ``raise``, and what is put into vLLM on the way."""

from __future__ import annotations

import re

from build_recipes.verify.judge import conditions
from build_recipes.verify.judge.answers import FOUND, REFUSED, Answer, Raised
from build_recipes.verify.judge.played import NOT, State, put
from build_recipes.verify.read.model import If, Node, Patch, Raise, Try
from build_recipes.verify.read.syntax import FALSE, FALSE_HERE, TRUE, TRUE_HERE, VLLM

_BASES = {
    "ModuleNotFoundError": {"ModuleNotFoundError", "ImportError"},
    "ImportError": {"ImportError"},
    "AttributeError": {"AttributeError"},
    "KeyError": {"KeyError", "LookupError"},
    "TypeError": {"TypeError"},
}
_ABOUT_NAME = re.compile(r"""^\w+\.name (==|!=) ['"]([\w.]+)['"]$""")


class Branches(State):
    """A player's branches."""

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
        found = set(put(node))
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


class _Asked:
    """Answers conditions for a player."""

    def __init__(self, player: Branches, here: str) -> None:
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


def _catches(types: list[str], error: str) -> bool:
    if not types or "?" in types:
        return True
    return bool({"Exception", "BaseException", *_BASES.get(error, {error})} & set(types))
