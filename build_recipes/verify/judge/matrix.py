"""All vllm-omni releases on all vLLM releases: every pair judged by names, in two passes over the releases.

First each vllm-omni release says what it asks, then each vLLM release answers all of it, then the pairs are
judged from these tables. Everything is kept by content, so a new release costs one row or one column.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.errors import CouldNotCheck
from build_recipes.kit.paths import Places
from build_recipes.verify.judge.answers import NO_ATTRIBUTE
from build_recipes.verify.judge.moved import Mover
from build_recipes.verify.judge.reach import reach
from build_recipes.verify.judge.resolve import Resolver
from build_recipes.verify.judge.suggest import remember
from build_recipes.verify.judge.table import Question, Release, Table, answer
from build_recipes.verify.judge.verdict import Cell, cell, import_breaks
from build_recipes.verify.packages import Package, entry_points, named
from build_recipes.verify.read import releases
from build_recipes.verify.read.releases import Release as Published
from build_recipes.verify.read.store import JUDGING, Store, code_digest
from build_recipes.verify.read.tree import VLLM, open_tree

WORKERS = 2
T = TypeVar("T")
R = TypeVar("R")
Tick = Callable[[], None]


@dataclass(frozen=True)
class Matrix:
    """The outcome: cells by ``(omni, vllm)``."""

    package: str
    omni: list[str]
    vllm: list[str]
    cells: dict[tuple[str, str], Cell]
    seconds: float
    unread: dict[str, str]
    """Releases that could not be read, with the reason."""

    def clean_omni(self, vllm: str) -> list[str]:
        """The vllm-omni releases without a break on a vLLM, oldest first."""
        return [o for o in self.omni if (found := self.cells.get((o, vllm))) and not found.decisive]

    def clean_vllm(self, omni: str) -> list[str]:
        """The vLLM releases without a break under a vllm-omni, oldest first."""
        return [v for v in self.vllm if (found := self.cells.get((omni, v))) and not found.decisive]


def compute(
    places: Places,
    workers: int = WORKERS,
    max_age: float = releases.FRESH,
    package: Package | None = None,
) -> Matrix:
    """Judge all pairs; what was judged before is read from the store.

    :raises CouldNotCheck: the releases are not known.
    """
    started = time.monotonic()
    package = package or named("vllm-omni")
    project = package.distribution
    omni = releases.listing(project, places, max_age=max_age).releases
    vllm = releases.listing(VLLM, places, max_age=max_age).releases
    store = Store(places.cache / "compat" / "parsed.sqlite")
    cells = _kept(store, omni, vllm)
    rows = [o for o in omni if any((o.version, v.version) not in cells for v in vllm)]
    columns = [v for v in vllm if any((o.version, v.version) not in cells for o in omni)]
    unread: dict[str, str] = {}
    if rows:
        _fetch(rows, columns, places, unread, project)
        rows = [r for r in rows if f"{project} {r.version}" not in unread]
        columns = [c for c in columns if f"vllm {c.version}" not in unread]
        work = _Work(places, workers)
        total = len(rows) * 2 + len(columns)
        with _progress("judging pairs", total) as tick:
            asked: set[Question] = set()
            for found in work.map(_ask, [(r, package) for r in rows], tick):
                asked.update(found)
            wanted = sorted(asked)
            tables = work.map(_answer, [(c, wanted) for c in columns], tick)
            answers = {c.version: table for c, table in zip(columns, tables, strict=True)}
            todo = [
                (
                    r,
                    package,
                    [(c, answers[c.version]) for c in columns if (r.version, c.version) not in cells],
                )
                for r in rows
            ]
            for row, judged in zip(rows, work.map(_judge, todo, tick), strict=True):
                for version, entry in judged.items():
                    cells[row.version, version] = msgspec.msgpack.decode(entry, type=Cell)
        _keep(store, rows, columns, cells)
    _last_seen([v.version for v in vllm], cells)
    remember(store, cells, project)
    return Matrix(
        project,
        [o.version for o in omni],
        [v.version for v in vllm],
        cells,
        time.monotonic() - started,
        unread,
    )


# -- work of one release, in a process of its own ----------------------------------------------------------


class _Work:
    """Runs tasks over releases in a small pool; neighbours go to the same process, because they share files."""

    def __init__(self, places: Places, workers: int) -> None:
        self.places, self.workers = places, workers

    def map(self, task: Callable[..., R], items: list[tuple[Any, ...]], tick: Tick) -> list[R]:
        """Results in the order of ``items``."""
        if self.workers < 2 or len(items) < 4:
            found = []
            for item in items:
                found.append(task(self.places, *item))
                tick()
            return found
        size = -(-len(items) // (self.workers * 3))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            jobs = [
                pool.submit(_several, task, self.places, items[i : i + size])
                for i in range(0, len(items), size)
            ]
            results: list[R] = []
            for job in jobs:
                part = job.result()
                results.extend(part)
                for _ in part:
                    tick()
            return results


def _several(task: Callable[..., R], places: Places, items: list[tuple[Any, ...]]) -> list[R]:
    return [task(places, *item) for item in items]


def _store(places: Places) -> Store:
    return Store(places.cache / "compat" / "parsed.sqlite")


def _ask(places: Places, published: Published, package: Package) -> list[Question]:
    """What one vllm-omni release asks of vLLM."""
    from build_recipes.verify.judge.table import questions

    store = _store(places)
    kind = f"questions {code_digest(*JUDGING)}"
    kept = store.get(kind, bytes.fromhex(published.sha256))
    if kept is not None:
        return msgspec.msgpack.decode(kept, type=list[Question])
    tree = open_tree(
        releases.fetch(published, package.distribution, places), package.module, store, published.sha256
    )
    found = sorted(questions(tree.summaries(), Resolver(tree)))
    store.put_many(kind, {bytes.fromhex(published.sha256): msgspec.msgpack.encode(found)})
    return found


Answered = tuple[Table, dict[str, str | None]]
"""A vLLM's answers, and where the names went that are missing."""


def _answer(places: Places, published: Published, wanted: list[Question]) -> bytes:
    """The answers of one vLLM release."""
    store = _store(places)
    kind, key = f"answers {code_digest(*JUDGING)}", bytes.fromhex(published.sha256)
    kept = store.get(kind, key)
    table, moved = msgspec.msgpack.decode(kept, type=Answered) if kept is not None else (Table(set(), {}), {})
    if not table.asked.issuperset(wanted):
        tree = open_tree(releases.fetch(published, VLLM, places), VLLM, store, published.sha256)
        resolver, mover = Resolver(tree), Mover(tree)
        table = answer(wanted, resolver, table)
        for question in table.bad():
            key_ = " ".join(question)
            if key_ not in moved:
                reply = table.replies[key_]
                module, name = (reply.module, reply.name) if reply.status == NO_ATTRIBUTE else question[1:]
                moved[f"{module} {name}"] = mover.where(module, name or None, reply.status)
        tree.save()
        store.put_many(kind, {key: msgspec.msgpack.encode((table, moved))})
    return msgspec.msgpack.encode((table, moved))


def _judge(
    places: Places, published: Published, package: Package, columns: list[tuple[Published, bytes]]
) -> dict[str, bytes]:
    """One row: a vllm-omni release on every vLLM that is not judged yet."""
    tree = open_tree(
        releases.fetch(published, package.distribution, places),
        package.module,
        _store(places),
        published.sha256,
    )
    from build_recipes.verify.check import Checker  # it stands above

    release = Release(tree.summaries(), Resolver(tree), entry_points(tree))
    tiers = reach(tree, release.summaries, release.clean.edges)
    found = {}
    checker = Checker(places, package)
    for column, encoded in columns:
        table, moved = msgspec.msgpack.decode(encoded, type=Answered)

        def where(
            module: str, name: str | None, kind: str, moved: dict[str, str | None] = moved
        ) -> str | None:
            return moved.get(f"{module} {name or ''}")

        vllm = checker.release(VLLM, column.version)
        more = import_breaks(release, tree, tiers, vllm, checker.baseline(tree, vllm))
        found[column.version] = msgspec.msgpack.encode(cell(release, tree, tiers, table, where, more=more))
        vllm.save()
        vllm.forget()
    return found


# -- keeping --------------------------------------------------------------------------------------------------


def _kept(store: Store, omni: list[Published], vllm: list[Published]) -> dict[tuple[str, str], Cell]:
    keys = {bytes.fromhex(o.sha256 + v.sha256): (o.version, v.version) for o in omni for v in vllm}
    found = store.get_many(f"cell {code_digest(*JUDGING)}", keys)
    decoder = msgspec.msgpack.Decoder(Cell)
    return {keys[key]: decoder.decode(value) for key, value in found.items()}


def _keep(
    store: Store, rows: list[Published], columns: list[Published], cells: dict[tuple[str, str], Cell]
) -> None:
    values = {
        bytes.fromhex(r.sha256 + c.sha256): msgspec.msgpack.encode(cells[r.version, c.version])
        for r in rows
        for c in columns
    }
    store.put_many(f"cell {code_digest(*JUDGING)}", values)


def _last_seen(vllm: list[str], cells: dict[tuple[str, str], Cell]) -> None:
    """Fill in, for names that went nowhere, the last release that had them."""
    lacks: dict[tuple[str, str | None], set[str]] = {}
    for (_, version), entry in cells.items():
        for item in entry.breaks:
            lacks.setdefault((item.module, item.name), set()).add(version)
    place = {version: index for index, version in enumerate(vllm)}
    for (_, version), entry in cells.items():
        for item in entry.breaks:
            if item.moved_to is None:
                missing = lacks[item.module, item.name]
                had = [v for v in vllm[: place[version]] if v not in missing]
                item.moved_to = f"last in {had[-1]}" if had else None


def _fetch(
    rows: list[Published], columns: list[Published], places: Places, unread: dict[str, str], project: str
) -> None:
    todo = [(project, r) for r in rows] + [(VLLM, c) for c in columns]
    missing = [t for t in todo if not (places.downloads / t[1].sha256 / t[1].filename).exists()]
    for name, published in missing:
        try:
            releases.fetch(published, name, places)
        except CouldNotCheck as error:
            unread[f"{name} {published.version}"] = str(error.args[0])
    if missing and len(unread) == len(todo):
        raise CouldNotCheck("no release could be fetched", "check the network, then run the same command")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Tick]:
    """A progress bar on a terminal, one line otherwise."""
    if not console.console().is_terminal:
        console.step("matrix", f"{what}: {counted(total, 'step')}")
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("    matrix  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console.console(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
