"""The cache of what was parsed: one SQLite file, keyed by content.

Releases share most of their files, so a file is parsed once however many releases hold it. Keys carry a
digest of the code that made the value: a change of that code makes new entries, never wrong ones.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_CHUNK = 500
_ROOM = Path(__file__).parent.parent


@functools.cache
def code_digest(*rooms: str) -> str:
    """A short digest of what values are made by: modules or folders of verify (all of it, with the records of packages,
    where none is named) and the Python that parses.
    """
    state = hashlib.blake2b(repr(sys.version_info[:2]).encode(), digest_size=6)
    for path in [*sorted(_ROOM.rglob("*.py")), _ROOM / "packages.toml"]:
        if not rooms or path.stem in rooms or path.parent.name in rooms:
            state.update(path.read_bytes())
    return state.hexdigest()


JUDGING = ("read", "judge", "packages")
"""What a cell of the matrix is made by."""


class Store:
    """A table of ``kind`` x ``key`` -> bytes. Losing it costs time, never an answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._later: dict[str, dict[bytes, bytes]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.connection = self._open()
        except (sqlite3.DatabaseError, UnicodeError):
            path.unlink(missing_ok=True)
            self.connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS entry (kind TEXT, key BLOB, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )
        return connection

    def get(self, kind: str, key: bytes) -> bytes | None:
        """One value, or None."""
        value = self._later.get(kind, {}).get(key)
        if value is not None:
            return value
        return self.get_many(kind, [key]).get(key)

    def get_many(self, kind: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values that are there, whole."""
        wanted, found = list(keys), dict[bytes, bytes]()
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            with contextlib.suppress(sqlite3.DatabaseError, UnicodeError):  # damaged: judged again
                rows = self.connection.execute(
                    f"SELECT key, value FROM entry WHERE kind=? AND key IN ({marks})", (kind, *chunk)
                )
                for key, kept in rows:
                    value = _opened(kept)
                    if value is not None:
                        found[key] = value
        return found

    def put_later(self, kind: str, key: bytes, value: bytes) -> None:
        """Keep a value with the next `flush`; `get` finds it at once."""
        self._later.setdefault(kind, {})[key] = value

    def flush(self) -> None:
        """Write what was put for later."""
        for kind, values in self._later.items():
            self.put_many(kind, values)
        self._later = {}

    def put_many(self, kind: str, values: Mapping[bytes, bytes]) -> None:
        """Keep values. Where the disk or another process is in the way, they are simply not kept."""
        with contextlib.suppress(sqlite3.DatabaseError, UnicodeError), self.connection:
            self.connection.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?)",
                [(kind, key, _seal(value) + value) for key, value in values.items()],
            )


def _seal(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=8).digest()


def _opened(kept: object) -> bytes | None:
    """A value without its seal; None where it is not what was put."""
    if isinstance(kept, bytes) and _seal(kept[8:]) == kept[:8]:
        return kept[8:]
    return None
