"""The feed: one JSON event a line, only ever appended to, in the order things happened.

It is written from the database, so a line that a crash cut off is completed from there, and a missing one
is added. Readers (the page, other machines) take the lines that are whole and count the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.console import counted, warn
from build_recipes.kit.errors import BadData, NotEnoughDisk, NotWritable
from build_recipes.nightly.events import Event, decode
from build_recipes.nightly.store import Store


@dataclass(frozen=True)
class Read:
    """What a feed holds."""

    events: list[Event]
    damaged: list[int]
    """Numbers of lines that are no events, from 1."""
    cut: int
    """Bytes after the last newline: a line that a crash cut off."""


def read(path: Path) -> Read:
    """Read a feed; a feed that is not there is empty.

    :raises BadData: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Read([], [], 0)
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}", "name a feed.jsonl") from error
    *lines, rest = content.split(b"\n")
    events, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            events.append(decode(line))
        except ValueError:
            damaged.append(number)
    return Read(events, damaged, len(rest))


def read_all(paths: Iterable[Path]) -> list[Event]:
    """The events of several feeds, each once; what is damaged is warned of and left out."""
    seen: dict[str, Event] = {}
    for path in paths:
        got = read(path)
        if got.damaged:
            shown = ", ".join(map(str, got.damaged[:5])) + ("..." if len(got.damaged) > 5 else "")
            warn(
                f"{path}: {counted(len(got.damaged), 'line is', 'lines are')} damaged and left out (line {shown})"
            )
        if got.cut:
            warn(f"{path}: the last line is cut off ({got.cut} bytes) and left out")
        for event in got.events:
            seen.setdefault(event.id, event)
    return list(seen.values())


def sync(store: Store, path: Path) -> int:
    """Bring the feed up to date with the database. Returns how many lines were added.

    A cut-off last line is removed first (its event is in the database and is written again). Where the
    database does not know events of the feed (it was lost, or made anew), they are read back.

    :raises NotEnoughDisk: the disk is full; the feed still ends in a whole line.
    :raises NotWritable: it cannot be written.
    """
    try:
        with _open(path) as stream:
            got = read(path)
            whole = os.fstat(stream).st_size - got.cut
            if got.cut:
                warn(f"{path}: removing {got.cut} bytes of a line that a crash cut off")
                os.ftruncate(stream, whole)
            store.merge(got.events)
            there = {event.id for event in got.events}
            missing = [event.line() + b"\n" for _, event in store.events() if event.id not in there]
            if missing:
                _append(stream, b"".join(missing), whole)
    except OSError as error:
        kind = NotEnoughDisk if error.errno in (28, 122) else NotWritable
        raise kind(
            f"{path} could not be written: {error.strerror}; nothing is lost, the database has it",
            "free some space and run the same command again",
        ) from error
    return len(missing)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    """The feed for writing, held against other writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream
    finally:
        os.close(stream)


def _append(stream: int, content: bytes, at: int) -> None:
    """Write at the end, whole lines or nothing."""
    try:
        view = memoryview(content)
        place = at
        while view:
            written = os.pwrite(stream, view, place)
            view, place = view[written:], place + written
        os.fsync(stream)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(stream, at)
        raise
