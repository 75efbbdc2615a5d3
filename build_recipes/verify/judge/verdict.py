"""The verdict on one pair: what breaks, where, how it is reached and where the name went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from build_recipes.verify.judge.answers import BREAKING, MISSING
from build_recipes.verify.judge.calls import ERROR, Caller, Finding, Key, news
from build_recipes.verify.judge.moved import History, Moved, Mover
from build_recipes.verify.judge.played import Event
from build_recipes.verify.judge.player import Player
from build_recipes.verify.judge.reach import ENTRY, MODEL, PLATFORM, Reached, reach
from build_recipes.verify.judge.resolve import Resolver
from build_recipes.verify.judge.room import with_room
from build_recipes.verify.judge.table import Release, Table
from build_recipes.verify.packages import entry_points, registered
from build_recipes.verify.read.model import Summary
from build_recipes.verify.read.tree import Tree

ENTRY_POINTS = "entry_points.txt"
CLEAN, BREAKS, UNDECIDED = "no-break-found", "breaks", "unknown"


class Break(msgspec.Struct):
    """A name that is not there (or, among warnings, something that may matter)."""

    module: str
    """The vLLM module that was asked."""
    name: str | None
    """The name asked of it; None for ``import module``."""
    file: str
    """File of vllm-omni."""
    line: int
    kind: str
    """``missing-module``, ``missing-name``, ``missing-attribute``, ``call``; warnings have more."""
    tier: str
    """``entry``, ``model`` or ``platform``."""
    guard: str | None
    """What keeps it from failing the import; None in ``breaks``."""
    chain: list[str]
    """Modules of vllm-omni from an entry point to this file."""
    moved_to: str | None
    """The module that defines it now; ``was in`` the vLLM that is compared with, or ``last in`` one of a matrix."""


class CallBreak(msgspec.Struct):
    """A call, an override or an attribute that fitted vllm-omni's own vLLM and does not fit this one."""

    severity: str
    """``error`` for what cannot bind, else ``warning``."""
    kind: str
    """``call``, ``constructor``, ``super``, ``self``, ``override`` or ``attribute``."""
    callee: str
    problem: str
    file: str
    line: int
    tier: str


class Report(msgspec.Struct):
    """The verdict on one pair; `as_json` is what ``--json`` prints."""

    omni: str
    vllm: str
    verdict: str
    breaks: list[Break]
    calls: list[CallBreak]
    warnings: list[Break]
    suggest: dict[str, Any] = {}
    package: str = "vllm-omni"
    """The distribution that is judged; ``omni`` is its version."""
    baseline: str = ""
    """The vLLM that the calls were compared with; empty where they were not looked at."""
    unread: dict[str, str] = {}
    """Files that an import needs and that could not be read, with the reason."""

    @property
    def guarded(self) -> list[Break]:
        """What is missing where nothing fails at import: behind a guard, or in a function."""
        return [entry for entry in self.warnings if entry.kind in MISSING and entry.tier != PLATFORM]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        baseline = plain.pop("baseline")
        plain = {"package": plain.pop("package"), **plain}
        for entry in plain["calls"]:
            entry["baseline"] = baseline
        return plain


class Cell(msgspec.Struct):
    """What the matrix keeps of a pair."""

    breaks: list[Break]

    @property
    def decisive(self) -> int:
        """Number of breaks that decide: those of an entry point or a model."""
        return sum(1 for entry in self.breaks if entry.tier != PLATFORM)


def cell(
    release: Release,
    omni: Tree,
    tiers: dict[str, Reached],
    table: Table,
    where: Moved,
    *,
    more: Sequence[Break] = (),
) -> Cell:
    """Judge a pair from a table of vLLM's answers.

    :param tiers: of the release on a vLLM that has everything.
    :param more: see `import_breaks`.
    """
    played = release.play(table)
    if any(edge.guard is None and edge not in release.clean.edges for edge in played.edges):
        tiers = reach(omni, release.summaries, played.edges)
    breaks = [_entry(event, tiers[event.where], where) for event in played.events if _breaks(event)]
    breaks.extend(more)
    order = {ENTRY: 0, MODEL: 1, PLATFORM: 2}
    return Cell(sorted(breaks, key=lambda e: order[e.tier]))


def _breaks(event: Event) -> bool:
    """Only what vLLM lacks, at import, without a guard: not what the package itself got wrong."""
    return (
        event.guard is None
        and event.kind in BREAKING
        and event.module.partition(".")[0] != event.where.partition(".")[0]
    )


def _entry(event: Event, reached: Reached, where: Moved) -> Break:
    own = event.module.partition(".")[0] == event.where.partition(".")[0]
    return Break(
        module=event.module,
        name=event.name,
        file=event.file,
        line=event.line,
        kind=f"own-{event.kind}" if own else event.kind,
        tier=reached.tier,
        guard=event.guard,
        chain=list(reached.chain),
        moved_to=None if own or event.kind not in MISSING else where(event.module, event.name, event.kind),
    )


def judge(omni: Tree, vllm: Tree, baseline: Tree | None = None) -> Report:
    """The verdict on a pair, made again. It is ``unknown`` where no break was found and a file that the import needs
    could not be read.

    :param baseline: the vLLM that this vllm-omni was made for; calls are compared with it, and names that this vLLM
        has nowhere are looked for in it.
    """
    return with_room(lambda: _judge(omni, vllm, baseline))


def _judge(omni: Tree, vllm: Tree, baseline: Tree | None) -> Report:
    vllm.look_anew()
    summaries = omni.summaries()
    own, resolver = Resolver(omni), Resolver(vllm)
    played = Player(own, summaries, resolver).play(entry_points(omni))
    tiers = reach(omni, summaries, played.edges)
    then = Resolver(baseline) if baseline is not None and baseline.identity != vllm.identity else None
    mover = Mover(vllm, _history(then) if then is not None else None)
    breaks: list[Break] = []
    warnings: list[Break] = []
    for event in played.events:
        entry = _entry(event, tiers[event.where], mover.where)
        (breaks if _breaks(event) else warnings).append(entry)
    warnings.extend(_not_there(omni, own))
    for tree in (omni, vllm):
        for path, problem in sorted(tree.problems.items()):
            warnings.append(Break(tree.package, None, path, 0, "unreadable", MODEL, problem, [], None))
    unread = _unread(omni, vllm, tiers, played.unread)
    by_file = {omni.modules[module]: reached for module, reached in tiers.items()}
    calls: list[CallBreak] = []
    if baseline is not None and then is not None:
        for key, finding in _news(summaries, own, then, resolver).items():
            reached = by_file[key.file]
            calls.append(
                CallBreak(
                    finding.severity, key.kind, key.callee, finding.problem, key.file, key.line, reached.tier
                )
            )
            at_import = key.kind in ("call", "constructor") and key[:2] in played.calls
            if finding.severity == ERROR and (at_import or key.kind == "class"):
                breaks.append(_call_break(key, reached))
        baseline.save()
    order = {ENTRY: 0, MODEL: 1, PLATFORM: 2}
    for entries in (breaks, warnings):
        entries.sort(key=lambda e: order[e.tier])  # stable: within a tier in the order of the imports
    calls.sort(key=lambda e: (e.severity, order[e.tier], e.file, e.line))
    vllm.save()
    decisive = any(entry.tier in (ENTRY, MODEL) for entry in breaks)
    return Report(
        omni=omni.version or omni.index.origin,
        vllm=vllm.version or vllm.index.origin,
        verdict=BREAKS if decisive else UNDECIDED if unread else CLEAN,
        breaks=breaks,
        calls=calls,
        warnings=warnings,
        baseline=(baseline.version or baseline.index.origin) if baseline is not None else "",
        unread=unread,
    )


def _not_there(omni: Tree, own: Resolver) -> Iterator[Break]:
    """Entry points of the package's metadata that it does not have: nobody can start them, on any vLLM."""
    for module, name in registered(omni):
        first = name.partition(".")[0]
        answer = own.name(module, first) if first else own.module(module)
        if answer.status in MISSING:
            kind = f"own-{answer.status}"
            yield Break(module, name or None, ENTRY_POINTS, 0, kind, ENTRY, None, [], None)


def _history(then: Resolver) -> History:
    """Whether the vLLM that is compared with had a name."""

    def had(module: str, name: str) -> str | None:
        found = then.name(module, name) if name else then.module(module)
        return None if found.status in MISSING else f"was in {then.version or then.tree.index.origin}"

    return had


def _unread(
    omni: Tree, vllm: Tree, tiers: dict[str, Reached], needed: set[tuple[str, str]]
) -> dict[str, str]:
    """Files on the way that could not be read: of the package those of no other platform, of vLLM those that
    such a file imports."""
    found = {
        omni.modules[module]: omni.unread(module)
        for module, reached in tiers.items()
        if reached.tier != PLATFORM and omni.unread(module)
    }
    if any(tiers[where].tier != PLATFORM for where, _ in needed):
        found.update(vllm.problems)
    return found


def import_breaks(
    release: Release, omni: Tree, tiers: dict[str, Reached], vllm: Tree, baseline: Tree | None
) -> list[Break]:
    """Calls that an import makes and that cannot bind any more, and classes that cannot be made any more."""
    if baseline is None or baseline.identity == vllm.identity:
        return []
    before, after = (Caller(release.summaries, release.own, Resolver(tree)) for tree in (baseline, vllm))
    before.look(release.clean.calls)
    after.look(release.clean.calls)
    by_file = {omni.modules[module]: reached for module, reached in tiers.items()}
    return [
        _call_break(key, by_file[key.file])
        for key, finding in news(before, after).items()
        if finding.severity == ERROR and key.kind in ("call", "constructor", "class")
    ]


def _news(summaries: dict[str, Summary], own: Resolver, then: Resolver, now: Resolver) -> dict[Key, Finding]:
    before, after = Caller(summaries, own, then), Caller(summaries, own, now)
    before.look()
    after.look()
    return news(before, after)


def _call_break(key: Key, reached: Reached) -> Break:
    """A call that an import makes and that cannot bind, or a class that cannot be made."""
    module, _, name = key.callee.rpartition(".")
    kind = "class" if key.kind == "class" else "call"
    return Break(module, name, key.file, key.line, kind, reached.tier, None, list(reached.chain), None)
