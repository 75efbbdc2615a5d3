"""What all vllm-omni releases ask of vLLM, and the answers of one vLLM release to all of it.

Releases ask the same things again and again: some two thousand questions in all. A vLLM tree is opened once
to answer them; after that every pair is judged from the table, and of a vllm-omni release only the modules
that are touched by a bad answer are played again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from build_recipes.verify.judge import conditions
from build_recipes.verify.judge.answers import FOUND, MISSING, NONE, YES, Answer
from build_recipes.verify.judge.played import Edge, Event, Played
from build_recipes.verify.judge.player import Player
from build_recipes.verify.judge.resolve import Resolver
from build_recipes.verify.read.model import BODY, If, Import, Load, Node, Row, Summary, Try, With, walk
from build_recipes.verify.read.tree import VLLM

Question = tuple[str, str, str]
"""``("n", module, name)``, ``("m", module, "")`` or ``("a", target, "dotted.path")``."""

_FOUND = Answer(FOUND)


class Reply(Row):
    """An answer that is not plainly yes."""

    status: str
    error: str
    detail: str
    module: str
    """For an attribute: what is missing, and where."""
    name: str


class Table(msgspec.Struct):
    """The answers of one vLLM release."""

    asked: set[Question]
    replies: dict[str, Reply]
    """By the question's parts, joined by a space; what is not here was found."""
    version: str = ""

    def may_load(self, module: str, by: Collection[str]) -> bool:
        """Not known from answers."""
        return True

    def runs(self, target: str, path: list[str]) -> Answer:
        """Not known from answers."""
        return YES

    def makes(self, target: str) -> Answer:
        """Not known from answers."""
        return YES

    def module(self, module: str) -> Answer:
        """``import module``."""
        return self._answer("m", module, "")

    def name(self, module: str, name: str) -> Answer:
        """``from module import name``."""
        return self._answer("n", module, name)

    def _answer(self, *question: str) -> Answer:
        found = self.replies.get(" ".join(question))
        return _FOUND if found is None else Answer(found.status, found.error, found.detail)

    def load(self, target: str, path: list[str]) -> tuple[Answer, str, str]:
        """Reading attributes of something imported."""
        found = self.replies.get(f"a {target} {'.'.join(path)}")
        if found is None:
            return _FOUND, "", ""
        return Answer(found.status, found.error, found.detail), found.module, found.name

    def bad(self) -> set[Question]:
        """Questions whose answer may fail an import."""
        return {
            question
            for question in self.asked
            if (reply := self.replies.get(" ".join(question))) and reply.status in (*MISSING, NONE)
        }


def questions(summaries: dict[str, Summary], own: Resolver) -> dict[Question, set[str]]:
    """What a vllm-omni release asks, with the modules that ask it."""
    found: dict[Question, set[str]] = {}

    for here, summary in summaries.items():
        for nodes in (summary.flow.body, *summary.flow.functions.values()):
            for node, _ in walk(nodes):
                if isinstance(node, Import):
                    module = own.absolute(node.module, here)
                    if module.partition(".")[0] == VLLM:
                        found.setdefault(("m", module, ""), set()).add(here)
                        for name in node.names:
                            found.setdefault(("n", module, name), set()).add(here)
                elif isinstance(node, If) and node.ask:
                    for question in conditions.questions(node.ask):
                        found.setdefault(question, set()).add(here)
                elif isinstance(node, Load) and node.target.partition(".")[0].partition(":")[0] == VLLM:
                    found.setdefault(("a", node.target, ".".join(node.path)), set()).add(here)
    return found


def answer(wanted: Iterable[Question], resolver: Resolver, known: Table | None = None) -> Table:
    """Ask a vLLM tree; what ``known`` answers already is not asked again."""
    table = known or Table(set(), {}, resolver.version)
    for question in wanted:
        if question in table.asked:
            continue
        kind, left, right = question
        module, name = "", ""
        if kind == "m":
            found = resolver.module(left)
        elif kind == "n":
            found = resolver.name(left, right)
        else:
            found, module, name = resolver.load(left, right.split("."))
        table.asked.add(question)
        if found.status != FOUND:
            table.replies[" ".join(question)] = Reply(found.status, found.error, found.detail, module, name)
    return table


class Release:
    """A vllm-omni release, played once on a vLLM that has everything; then per vLLM only what differs.

    :param first: modules to begin with, see `Player.play`.
    """

    def __init__(self, summaries: dict[str, Summary], own: Resolver, first: list[str]) -> None:
        self.summaries, self.own, self.first = summaries, own, first
        self.questions = questions(summaries, own)
        everything = Player(own, summaries, Table(set(), {}))
        self.clean = everything.play(first)
        self.imports: dict[str, set[str]] = {}
        for edge in self.clean.edges:
            if edge.guard is None:
                self.imports.setdefault(edge.source, set()).update(_with_parents(edge.target))
        self.sensitive = {m for m, s in summaries.items() if _guards_own(s.flow.body) or _asks(s)}

    def play(self, table: Table) -> Played:
        """The outcome on one vLLM; events of functions that no import runs are left out."""
        touched = set(self.sensitive)
        for question in table.bad():
            touched |= self.questions.get(question, set())
        while more := {a for a, b in self.clean.crossings if b in touched} - touched:
            touched |= more
        player = Player(self.own, self.summaries, table)
        player.untouched = {m: self.imports.get(m, set()) for m in self.summaries if m not in touched}
        player.patches = self.clean.patches
        for module in (*self.first, *self.summaries):
            player.import_module(module)
        player.result.edges |= {edge for edge in self.clean.edges if edge.source not in touched}
        return player.result


def _with_parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def _guards_own(body: list[Node]) -> bool:
    """Whether a file guards an import of its own project's modules (then its outcome decides what runs)."""
    return any(
        isinstance(node, Import)
        and node.module.partition(".")[0] != VLLM
        and any(isinstance(outer, (Try, With)) and part == BODY for outer, part in around)
        for node, around in walk(body)
    )


def _asks(summary: Summary) -> bool:
    """Whether what a file does depends on the vLLM it finds."""
    bodies = (summary.flow.body, *summary.flow.functions.values())
    return any(isinstance(node, If) and bool(node.ask) for body in bodies for node, _ in walk(body))


__all__ = ["Edge", "Event", "Question", "Release", "Table", "answer", "questions"]
