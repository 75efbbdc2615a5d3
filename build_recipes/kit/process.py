"""The only place that starts processes (ruff holds that: banned-api in pyproject.toml).

Commands are argument lists, never shell strings. Output is read line by line into a log file and a ring of
last lines, so memory stays flat however much a compiler says. A child runs in a session of its own and is
killed, with everything it started, when we stop for any reason.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.errors import ToolFailed

LineReader = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A process that ended."""

    argv: tuple[str, ...]
    returncode: int
    """Exit status; negative for a signal, as in `subprocess`."""
    seconds: float
    """Wall time."""
    tail: tuple[str, ...]
    """Last lines of output, stdout and stderr together."""

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.returncode == 0


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_line: LineReader | None = None,
    deadline: float | None = None,
    tail_lines: int = 60,
) -> Finished:
    """Run a command to its end.

    :param env: the whole environment; this process's where it is None.
    :param log: file the output is appended to.
    :param on_line: called with each line, without its newline.
    :param deadline: `time.monotonic` value past which the process group is ended.
    :raises TimeoutError: the deadline passed; the process group is gone.
    :raises FileNotFoundError: no such program.
    """
    command = tuple(str(word) for word in argv)
    tail: collections.deque[str] = collections.deque(maxlen=tail_lines)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("ab", buffering=1 << 16)) if log else None
        child = stack.enter_context(spawn(command, cwd=cwd, env=env))
        if deadline is not None:
            stack.enter_context(_alarm(child, deadline))
        assert child.stdout is not None
        for raw in child.stdout:
            if sink:
                sink.write(raw)
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            tail.append(line)
            if on_line:
                on_line(line)
        code = child.wait()
    if deadline is not None and code != 0 and time.monotonic() >= deadline:
        raise TimeoutError(f"{command[0]} was ended at its deadline")
    return Finished(command, code, time.monotonic() - started, tuple(tail))


def capture(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Standard output of a short command, stripped.

    :raises ToolFailed: it failed, or cannot be started.
    """
    command = tuple(str(word) for word in argv)
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ToolFailed(command, None, error.strerror or str(error)) from None
    if done.returncode:
        raise ToolFailed(command, done.returncode, done.stderr)
    return done.stdout.strip()


def succeeds(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> bool:
    """Whether a short command ends well; its words are dropped.

    :raises ToolFailed: it cannot be started at all.
    """
    try:
        capture(argv, cwd=cwd, env=env)
    except ToolFailed as error:
        if error.code is None:
            raise
        return False
    return True


def passed_through(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> int:
    """Run a command on this terminal, its output untouched. Returns its exit status."""
    command = [str(word) for word in argv]
    return subprocess.run(
        command, cwd=cwd, env=dict(env) if env is not None else None, check=False
    ).returncode


LEAKS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT")
"""Variables that would point a child at another Python's packages."""
COMPILER_LEAKS = ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "LDFLAGS")
"""Variables that would change what a compiler makes without anybody's knowing."""


def child_environment(*without: str, prefixes: tuple[str, ...] = (), **more: str) -> dict[str, str]:
    """This process's environment for a child, less `LEAKS`.

    :param without: further variables to leave out.
    :param prefixes: leave out every variable that begins with one of these.
    :param more: variables to set.
    """
    dropped = {*LEAKS, *without}
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in dropped and not (prefixes and key.startswith(prefixes))
    }
    return {**kept, **more}


@contextlib.contextmanager
def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in a session of its own; its whole group is killed when the block is left early.

    :param output: file that its output is appended to; a pipe where it is None.
    """
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(output.open("ab")) if output else subprocess.PIPE
        child = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            end_group(child)
        if child.stdout is not None:
            child.stdout.close()


def end_group(child: subprocess.Popen[bytes], grace: float = 3.0) -> None:
    """End a child and everything it started: SIGTERM, then SIGKILL after ``grace`` seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        if ended_within(child, grace):
            break
    child.wait()


def ended_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a child; whether it ended in time."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextlib.contextmanager
def _alarm(child: subprocess.Popen[bytes], deadline: float) -> Iterator[None]:
    import threading

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end_group, [child])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
