"""The results database's schema, one migration after another. A migration is never edited once it was used.

``events`` is the truth: one row for everything that happened, in the order this machine learned of it. The
other tables are drawn from it, so a migration may drop and redraw them.
"""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (  # 1: what happened
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            run TEXT NOT NULL,
            body TEXT NOT NULL
        )""",
    ),
    (  # 2: what it comes to, so that a question does not read every event
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY,
            job TEXT NOT NULL DEFAULT '',
            fingerprint TEXT NOT NULL DEFAULT '',
            state TEXT NOT NULL DEFAULT 'running',
            host TEXT NOT NULL DEFAULT '',
            attempts INTEGER NOT NULL DEFAULT 0,
            seconds REAL NOT NULL DEFAULT 0,
            last INTEGER NOT NULL DEFAULT 0
        )""",
        "CREATE INDEX runs_by_job ON runs (job, last)",
        """CREATE TABLE steps (
            run TEXT NOT NULL,
            step TEXT NOT NULL,
            state TEXT NOT NULL,
            event INTEGER NOT NULL REFERENCES events (seq),
            PRIMARY KEY (run, step)
        )""",
    ),
)

REDRAW_FROM = 2
"""The first version whose tables are drawn from ``events``: a migration that reaches or passes it redraws."""
