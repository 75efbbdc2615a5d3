"""Results in SQLite: WAL, versioned schema, one transaction for each thing that happened.

An event is durable once `record` returns (``synchronous=FULL``), so neither kill -9 nor a power cut loses one.
The feed is written from here; a feed that is there without a database is read back by `merge`.
"""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from build_recipes.kit.console import one_line
from build_recipes.kit.errors import ArmoryError, BadData, NightBusy, NotEnoughDisk, NotWritable
from build_recipes.nightly.events import FINISHED, UNFINISHED, Event, decode, host_name, utc_now
from build_recipes.nightly.schema import MIGRATIONS, REDRAW_FROM

BUSY_S = 20.0
"""How long a writer waits for another one."""


@dataclass(frozen=True)
class Run:
    """One try to make a job green, as far as it has come."""

    id: str
    job: str
    fingerprint: str
    state: str
    """``running``, ``checkpointed``, ``interrupted``, ``green`` or ``red``."""
    host: str
    attempts: int
    seconds: float
    """Wall time of all attempts."""
    last: int
    """Sequence number of its newest event."""


class Store:
    """The results of all nights this machine knows of."""

    def __init__(self, path: Path, clock: Callable[[], datetime.datetime] = utc_now) -> None:
        """Open the database, make it, or bring it up to date.

        :raises BadData: the file is no database, is damaged, or was written by a newer version.
        :raises NotWritable: it or its folder cannot be written.
        """
        self.path = path
        self._clock = clock
        with self._words():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    # -- writing --------------------------------------------------------------------------------

    def record(self, kind: str, run: str, key: str, data: dict[str, Any]) -> Event:
        """Add one event of this machine.

        :param key: tells it apart from the run's other events of that kind.
        :returns: the event, or the one that was there under the same id.
        """
        event = Event(
            id=f"{run}#{kind}#{key}" if key else f"{run}#{kind}",
            kind=kind,
            run=run,
            time=self._clock().isoformat(timespec="seconds").replace("+00:00", "Z"),
            host=host_name(),
            data=data,
        )
        self.merge([event])
        return event

    def merge(self, events: Iterable[Event]) -> int:
        """Add events that are not known yet, all or none. Returns how many were new."""
        added = 0
        with self._words(), self._transaction():
            for event in events:
                cursor = self._db.execute(
                    "INSERT OR IGNORE INTO events (id, kind, run, body) VALUES (?, ?, ?, ?)",
                    (event.id, event.kind, event.run, event.line().decode()),
                )
                if cursor.rowcount:
                    added += 1
                    self._draw(int(cursor.lastrowid or 0), event)
        return added

    def _draw(self, seq: int, event: Event) -> None:
        """Bring ``runs`` and ``steps`` up to date with one event."""
        data, db = event.data, self._db
        if event.kind == "skipped":
            return
        db.execute("INSERT OR IGNORE INTO runs (id, host) VALUES (?, ?)", (event.run, event.host))
        db.execute("UPDATE runs SET last = ? WHERE id = ?", (seq, event.run))
        if event.kind == "started":
            db.execute(
                "UPDATE runs SET job = ?, fingerprint = ?, host = ?, attempts = attempts + 1,"
                " state = CASE WHEN state IN ('green', 'red') THEN state ELSE 'running' END WHERE id = ?",
                (data.get("job", ""), data.get("fingerprint", ""), event.host, event.run),
            )
        elif event.kind == "step":
            db.execute(
                "INSERT OR REPLACE INTO steps (run, step, state, event) VALUES (?, ?, ?, ?)",
                (event.run, data.get("step", ""), data.get("state", ""), seq),
            )
        elif event.kind in ("paused", "ended"):
            db.execute(
                "UPDATE runs SET state = ?, seconds = seconds + ?,"
                " fingerprint = CASE WHEN ? = '' THEN fingerprint ELSE ? END"
                " WHERE id = ? AND state NOT IN ('green', 'red')",
                (
                    data.get("state", ""),
                    float(data.get("seconds", 0)),
                    *([data.get("fingerprint", "")] * 2),
                    event.run,
                ),
            )

    # -- asking ---------------------------------------------------------------------------------

    def events(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Events with their sequence numbers, in order."""
        with self._words():
            for seq, body in self._db.execute(
                "SELECT seq, body FROM events WHERE seq > ? ORDER BY seq", (after,)
            ):
                try:
                    event = decode(str(body).encode())
                except (ValueError, UnicodeError) as error:
                    raise _as_ours(sqlite3.DataError(f"event {seq}: {error}"), self.path) from error
                yield seq, event

    def runs(self, job: str = "") -> list[Run]:
        """Runs, the newest first."""
        where, values = ("WHERE job = ?", (job,)) if job else ("", ())
        with self._words():
            rows = self._db.execute(
                "SELECT id, job, fingerprint, state, host, attempts, seconds, last FROM runs"
                f" {where} ORDER BY last DESC",
                values,
            ).fetchall()
        return [Run(*row) for row in rows]

    def unfinished(self, job: str, fingerprint: str) -> Run | None:
        """The run of a job that is to be gone on with; a changed fingerprint begins again."""
        return next(
            (r for r in self.runs(job)[:1] if r.state in UNFINISHED and r.fingerprint == fingerprint), None
        )

    def green(self, job: str, fingerprint: str) -> Run | None:
        """The run that built this very thing, if one did and nothing of the job was red since."""
        done = [run for run in self.runs(job) if run.state in FINISHED]
        newest = done[0] if done else None
        same = fingerprint and newest and newest.fingerprint == fingerprint
        return newest if newest and same and newest.state == "green" else None

    def steps(self, run: str) -> dict[str, Event]:
        """The newest result of each step of a run."""
        with self._words():
            rows = self._db.execute(
                "SELECT step, body FROM steps JOIN events ON seq = event WHERE steps.run = ? ORDER BY seq",
                (run,),
            ).fetchall()
        return {step: decode(body.encode()) for step, body in rows}

    # -- inside ---------------------------------------------------------------------------------

    def _migrate(self) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise BadData(
                f"{self.path} has schema {version}; this version of the program knows {len(MIGRATIONS)}",
                "update this checkout: the database was written by a newer one",
            )
        if version == len(MIGRATIONS):
            return
        with self._transaction():
            for number, statements in enumerate(MIGRATIONS[version:], version + 1):
                for statement in statements:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={number:d}")
            if version < REDRAW_FROM:
                for seq, event in list(self.events()):
                    self._draw(seq, event)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeError) as error:
            raise _as_ours(error, self.path) from error


def _as_ours(error: sqlite3.Error | OSError | UnicodeError, path: Path) -> ArmoryError:
    said = one_line(str(error))
    if "full" in said or "No space" in said:
        return NotEnoughDisk(
            f"{path} could not be written: {said}; what was recorded before is kept",
            "free some space and run the same command again: the night goes on from there",
        )
    if "locked" in said or "busy" in said:
        return NightBusy(
            f"{path} is held by another process", "wait for it to end, then run the same command again"
        )
    if "readonly" in said or "unable to open" in said or isinstance(error, OSError):
        return NotWritable(
            f"{path} cannot be written: {said}", "correct its permissions, or VLLM_ARMORY_WHEELS=DIR"
        )
    return BadData(
        f"{path} is damaged: {said}",
        f"mv {path} {path}.damaged; the next run reads everything back from {path.parent / 'feed.jsonl'}",
    )
