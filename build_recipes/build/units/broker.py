"""The broker: one place that decides which compile unit starts when.

Ninja knows what must be built; it does not know that one unit needs 13 GiB and the next 3. Every compiler
command goes through a launcher (unit.py) that asks here for leave. A unit starts when a core is free and its
expected memory fits into what is free now, less what running units will still take. Among those that wait, the
longest goes first, so light units fill the cores around a heavy one and nothing long is left for the end.

The broker is driven by a selector, in the same thread that reads ninja's output; it never blocks.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from build_recipes.build.units.box import Box
from build_recipes.build.units.costs import Cost, add_line, expected, unit_name
from build_recipes.kit.console import counted
from build_recipes.kit.limits import Machine

RESERVE_GIB = 1.0
"""Memory never promised to compilers: the rest of the system."""

SETTLE_S = 0.1
"""How long to wait after a launcher asks: ninja starts several at once, and the longest is to go first."""


@dataclass
class Unit:
    """A compile unit that asks or runs."""

    name: str
    pid: int
    cost: Cost
    link: socket.socket
    buffer: bytes = b""
    started: float | None = None
    alone: bool = True
    """Whether no other unit ran beside it."""
    oom_kills: int | None = None
    """The kernel's count of kills for want of memory when it started."""


def held_by(pids: Collection[int]) -> dict[int, float]:
    """Memory (GiB) that the descendants of each process hold, by one look at the process table.

    (Asking process by process reads the whole table for each: with 64 compilers that took half a second a start.)
    """
    below: dict[int, list[tuple[int, float]]] = {}
    for process in psutil.process_iter(["ppid", "memory_info"]):
        memory = process.info["memory_info"]
        below.setdefault(process.info["ppid"], []).append(
            (process.pid, memory.rss / 2**30 if memory else 0.0)
        )

    def descendants(pid: int) -> float:
        return sum(gib + descendants(child) for child, gib in below.get(pid, ()) if child != pid)

    return {pid: descendants(pid) for pid in pids}


@dataclass(frozen=True)
class Finished:
    """A unit that ended, as the journal keeps it."""

    unit: str
    code: int
    wall_s: float
    cpu_s: float
    rss_kib: int
    cached: bool
    killed: bool
    """Whether SIGKILL ended the compiler itself (a driver exits with 1 when its compiler proper is killed)."""
    oom: bool = False
    """Whether it failed and the kernel's own count of kills for want of memory rose while it ran."""
    alone: bool = False
    """Whether no other unit ran beside it."""
    output: str = ""
    """The object, as ninja names it."""
    size: int = 0
    """Bytes of the object."""
    sha256: str = ""
    """Of the object; empty where none was written."""


def write_record(journal: Path, unit: Finished) -> None:
    """Add a line to the journal of a tree."""
    add_line(journal, {**unit.__dict__, "ended": round(time.time(), 1)})


@dataclass
class Broker:
    """Admission of compile units.

    :param address: path of the Unix socket launchers connect to.
    :param cores: how many units may run at once.
    :param journal: file that gets one JSON line per finished unit.
    :param history: costs learned in this tree.
    :param deadline: `time.monotonic` value past which no unit starts that would outlast it.
    :param on_finished: called with each finished unit.
    """

    address: Path
    cores: int
    journal: Path
    history: dict[str, Cost] = field(default_factory=dict)
    deadline: float | None = None
    grace: float = 0.0
    """Seconds past the deadline in which running units may end."""
    on_finished: Callable[[Finished], None] = lambda unit: None
    machine: Machine = field(default_factory=Machine)
    free_gib: Callable[[], float] | None = None
    """Memory that can be taken now, GiB; the machine's where it is None."""

    waiting: list[Unit] = field(default_factory=list)
    running: list[Unit] = field(default_factory=list)
    refused_for_time: bool = False
    heard: float = 0.0
    """`time.monotonic` value at which a launcher last asked or reported."""
    pace: float = 1.0
    """Wall seconds per expected second, learned from what finished."""
    lost: dict[str, float] = field(default_factory=dict)
    """Units that were ended unfinished when the box ended, and the seconds they had run."""
    _settled: float = 0.0

    def __post_init__(self) -> None:
        self.box = Box(self.deadline, self.grace) if self.deadline is not None else None

    def open(self, selector: selectors.BaseSelector) -> None:
        """Start to listen; `selector` calls back through its key data."""
        self.address.parent.mkdir(parents=True, exist_ok=True)
        self.address.unlink(missing_ok=True)
        self._selector = selector
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self.address.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:  # a socket's path has at most 107 bytes; by way of the folder's descriptor a tree may be anywhere
            self._listener.bind(f"/proc/self/fd/{folder}/{self.address.name}")
        finally:
            os.close(folder)
        self.address.chmod(0o600)
        self._listener.listen(256)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop: launchers see the end of the connection and end their compilers."""
        now = time.monotonic()
        self.lost |= {unit.name: now - (unit.started or now) for unit in self.running}
        for unit in [*self.waiting, *self.running]:
            self._forget(unit)
        self._selector.unregister(self._listener)
        self._listener.close()
        self.address.unlink(missing_ok=True)

    def _accept(self, _: object) -> None:
        link, _peer = self._listener.accept()
        link.setblocking(False)
        unit = Unit("", 0, Cost(0, 0), link)
        self._selector.register(link, selectors.EVENT_READ, lambda _: self._read(unit))

    def _read(self, unit: Unit) -> None:
        try:
            data = unit.link.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._forget(unit)
            self._fill()
            return
        unit.buffer += data
        while b"\n" in unit.buffer:
            line, unit.buffer = unit.buffer.split(b"\n", 1)
            self._hear(unit, json.loads(line))

    def _hear(self, unit: Unit, message: dict[str, Any]) -> None:
        self.heard = time.monotonic()
        if "ask" in message:
            unit.name = unit_name(message["ask"])
            unit.pid = int(message["pid"])
            unit.cost = expected(unit.name, self.history)
            self.waiting.append(unit)
            self.waiting.sort(key=lambda other: -other.cost.seconds)
            self._settled = time.monotonic() + SETTLE_S
        else:
            self._finish(unit, message)
            self._fill()

    def _finish(self, unit: Unit, message: dict[str, Any]) -> None:
        code = int(message["code"])
        done = Finished(
            unit.name,
            code,
            float(message["wall_s"]),
            float(message["cpu_s"]),
            int(message["rss_kib"]),
            bool(message["cached"]),
            killed=code in (-9, 137),
            oom=code != 0 and self._oom_since(unit),
            alone=unit.alone,
            output=str(message.get("output", "")),
            size=int(message.get("size", 0)),
            sha256=str(message.get("sha256", "")),
        )
        write_record(self.journal, done)
        if code == 0 and not done.cached and unit.cost.seconds > 5:
            self.pace = 0.8 * self.pace + 0.2 * (done.wall_s / unit.cost.seconds)
        if code == 0 and not done.cached and self.box:
            self.box.learn(unit.cost.seconds, done.wall_s)
        self.on_finished(done)
        self._answer(unit)
        self._forget(unit)

    def _oom_since(self, unit: Unit) -> bool:
        now = self.machine.oom_kills()
        return now is not None and unit.oom_kills is not None and now > unit.oom_kills

    def admit(self) -> None:
        """Let the waiting units start that fit now, once those that come together have all asked."""
        if time.monotonic() >= self._settled:
            self._fill()

    def _fill(self) -> None:
        held: dict[int, float] | None = None
        for unit in list(self.waiting):
            if len(self.running) >= self.cores:
                return
            if not self._in_time(unit):
                self.refused_for_time = True
                continue
            if self.running:
                held = held_by([other.pid for other in self.running]) if held is None else held
                if not self._fits(unit, held):
                    continue
            self.waiting.remove(unit)
            unit.started, unit.oom_kills = time.monotonic(), self.machine.oom_kills()
            unit.alone = not self.running
            for other in self.running:
                other.alone = False
            self.running.append(unit)
            self._answer(unit)

    def _in_time(self, unit: Unit) -> bool:
        return self.box is None or self.box.fits(time.monotonic(), unit.cost.seconds)

    def end_box(self) -> list[str]:
        """The box has ended: what waits or is not nearly ready is ended.

        :returns: names of the units that still run.
        """
        assert self.box is not None
        now = time.monotonic()
        for unit in list(self.waiting):
            self._forget(unit)
        for unit in list(self.running):
            started = unit.started or now
            if not self.box.nearly(now, started, unit.cost.seconds):
                self.lost[unit.name] = now - started
                self._forget(unit)
        return [unit.name for unit in self.running]

    def _fits(self, unit: Unit, held: Mapping[int, float]) -> bool:
        return self._left_gib(held) >= unit.cost.gib

    def _left_gib(self, held: Mapping[int, float]) -> float:
        """Memory that can be promised now, GiB."""
        promised = sum(max(0.0, other.cost.gib - held.get(other.pid, 0.0)) for other in self.running)
        free = self.free_gib() if self.free_gib else self.machine.available() / 2**30
        return free - promised - RESERVE_GIB

    def waits(self) -> list[str]:
        """How many units wait, and for what, as people read it: ``3 wait for 12.3 GiB, 9.1 free``."""
        late = [unit for unit in self.waiting if not self._in_time(unit)]
        ready = [unit for unit in self.waiting if unit not in late]
        said = []
        if len(self.running) >= self.cores:
            said = [f"{counted(len(ready), 'waits', 'wait')} for a core"] if ready else []
        elif ready:
            left = self._left_gib(held_by([other.pid for other in self.running]))
            short = [unit.cost.gib for unit in ready if unit.cost.gib > left]
            if short and self.running:
                need = f"{min(short):.1f} GiB, {max(0.0, left):.1f} free"
                said = [f"{counted(len(short), 'waits', 'wait')} for {need}"]
        if late:
            said.append(f"{counted(len(late), 'does', 'do')} not fit into the time box")
        return said

    def _answer(self, unit: Unit) -> None:
        try:
            unit.link.sendall(b"go\n")
        except OSError:
            self._forget(unit)

    def _forget(self, unit: Unit) -> None:
        for group in (self.waiting, self.running):
            if unit in group:
                group.remove(unit)
        try:
            self._selector.unregister(unit.link)
        except (KeyError, ValueError):
            return
        unit.link.close()
