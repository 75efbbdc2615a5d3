"""What playing an import keeps: where it stands, and what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from build_recipes.verify.judge.answers import Answer, Raised
from build_recipes.verify.packages import platforms
from build_recipes.verify.read.model import Node, Patch, Summary, walk
from build_recipes.verify.read.syntax import VLLM

if TYPE_CHECKING:
    from build_recipes.verify.judge.resolve import Resolver

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


class State(ABC):
    """Where a player stands. Its branches and its calls are rooms of their own, and play on through `block`."""

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
        self.patchers = {} if self.package == VLLM else patchers(summaries)
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

    @abstractmethod
    def block(self, nodes: list[Node], here: str, guard: str | None) -> Raised | None:
        """Play statements; the first exception that surely comes out."""

    @abstractmethod
    def node(self, node: Node, here: str, guard: str | None) -> Raised | None:
        """Play one statement."""

    @abstractmethod
    def event(
        self,
        answer: Answer,
        line: int,
        asked: tuple[str, str | None],
        here: str,
        guard: str | None,
    ) -> Event | None:
        """Tell of something that is not there; None where it was told."""


def put(node: Patch) -> Iterator[str]:
    """vLLM modules and names (``module:name``) that a patch puts there."""
    module, _, name = node.target.partition(":")
    path = [name, *node.path] if name else node.path
    if not path:
        yield module
    else:
        yield f"{module}:{'.'.join(path)}"
        yield f"{'.'.join([module, *path[:-1]])}:{path[-1]}"


def patchers(summaries: Mapping[str, Summary]) -> dict[str, tuple[str, str]]:
    """What functions of the package put into vLLM when they run, and which."""
    return {
        what: (module, name)
        for module, summary in summaries.items()
        for name, body in summary.flow.functions.items()
        for node, _ in walk(body)
        if isinstance(node, Patch)
        for what in put(node)
    }
