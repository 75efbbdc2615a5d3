"""A sign of life: off a terminal one line a minute, and on SIGUSR1 the same plus the process tree.

Both come from signals in the main thread (an interval timer, and whoever asks), so that they come whatever the
program waits for: a download, CMake, a compiler. A stage that knows more than how long it has run says so with
`telling`. Lines are written to the file descriptor of stderr, because a signal may come while stderr is written to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from build_recipes.kit.console import duration, last_step, one_line

EVERY_S = 60.0
"""Seconds between two lines."""
WIDEST = 110
"""Characters of a process's command line that are shown."""


@dataclass
class _State:
    """What this process would tell."""

    started: float = field(default_factory=time.monotonic)
    tellers: list[Callable[[], str]] = field(default_factory=list)


_state = _State()


@contextlib.contextmanager
def telling(line: Callable[[], str]) -> Iterator[None]:
    """Within the block, ``line()`` says what goes on, in the main thread, at any moment."""
    _state.tellers.append(line)
    try:
        yield
    finally:
        _state.tellers.remove(line)


@contextlib.contextmanager
def beating(every: float = 0.0) -> Iterator[None]:
    """Within the block, one line a minute goes to a stderr that is no terminal.

    :param every: seconds between two lines; `EVERY_S` where it is 0.
    """
    free = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    )
    if not free or sys.stderr.isatty():
        yield
        return
    _state.started = time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: _write(now()))
    signal.setitimer(signal.ITIMER_REAL, every or EVERY_S, every or EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def answer_signal() -> None:
    """From now on SIGUSR1 is answered with what goes on and the process tree."""
    signal.signal(signal.SIGUSR1, lambda *_: _write("\n".join([now(), *process_tree()])))


def now() -> str:
    """One line: how long it has run, and what goes on."""
    try:
        said = _state.tellers[-1]() if _state.tellers else _children()
    except Exception as error:  # a sign of life never ends what it tells of
        said = f"cannot be told: {error!r}"
    return f"{duration(time.monotonic() - _state.started):>12}  {said}"


def _children() -> str:
    """What runs below this process, for a stage that says no more."""
    import psutil

    after = f"after '{last_step()}': " if last_step() else ""
    rows = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            rows.append(f"{child.name()} ({duration(time.time() - child.create_time())})")
    return (
        f"{after}{', '.join(rows) or 'no other program runs below it'}; kill -USR1 {os.getpid()} shows more"
    )


def process_tree() -> list[str]:
    """This process and what runs below it: number, age, CPU time, memory, state, command."""
    import psutil

    lines = ["     pid        age        cpu    memory  state"]

    def add(process: psutil.Process, depth: int) -> None:
        try:
            with process.oneshot():
                used = process.cpu_times()
                age, cpu = time.time() - process.create_time(), used.user + used.system
                gib, state = process.memory_info().rss / 2**30, process.status()
                command = " ".join(process.cmdline()) or process.name()
            below = process.children()
        except psutil.Error:
            return
        lines.append(
            f"{process.pid:>8} {duration(age):>10} {duration(cpu):>10} {gib:>5.1f} GiB  {state:<9} "
            f"{'  ' * depth}{one_line(command, WIDEST)}"
        )
        for child in below:
            add(child, depth + 1)

    add(psutil.Process(), 0)
    return lines


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode("utf-8", "replace"))
