"""A stall can be seen: what the line of a compile says, once a minute off a terminal, and on SIGUSR1 with processes."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from build_recipes.build.units.broker import Broker, Unit
from build_recipes.build.units.costs import Cost
from build_recipes.build.units.progress import Progress
from build_recipes.kit.paths import PACKAGE, PROJECT


def unit(name: str, gib: float, seconds: float = 10.0) -> Unit:
    """A unit as a launcher asks for it."""
    return Unit(f"_C/{name}", os.getpid(), Cost(seconds, gib), socket.socketpair()[0])


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    made = Broker(tmp_path / "socket", cores=4, journal=tmp_path / "journal", free_gib=lambda: 10.1)
    made._selector = selectors.DefaultSelector()
    return made


def test_the_line_says_what_runs_and_what_the_others_wait_for(broker: Broker) -> None:
    running = unit("a.cu.o", 0.0)
    running.started = time.monotonic() - 200
    broker.running = [running]
    broker.waiting = [unit("b.cu.o", 12.3), unit("c.cu.o", 13.0), unit("d.cu.o", 12.5)]
    line = Progress(["_C/a.cu.o", "_C/b.cu.o", "_C/c.cu.o", "_C/d.cu.o"], {}).line(broker)
    assert line.startswith(
        "[0/4] 1 runs: a.cu.o (3 min 20 s, 10 s expected); 3 wait for 12.3 GiB, 9.1 free; about "
    )
    broker.waiting = broker.waiting[:1]
    assert broker.waits() == ["1 waits for 12.3 GiB, 9.1 free"]


def test_on_many_cores_the_oldest_units_are_named_and_the_others_counted(broker: Broker) -> None:
    broker.running = [unit(f"{number}.cu.o", 0.0) for number in range(64)]
    for number, one in enumerate(broker.running):
        one.started = time.monotonic() - number
    line = Progress([one.name for one in broker.running], {}).line(broker)
    assert line.startswith("[0/64] 64 run: 63.cu.o (1 min 03 s), 62.cu.o")
    assert "58.cu.o (58 s) and 58 more; " in line


def test_who_waits_for_a_core_does_not_wait_for_memory(broker: Broker) -> None:
    broker.cores, broker.running = 1, [unit("a.cu.o", 1.0)]
    broker.waiting = [unit("b.cu.o", 50.0), unit("c.cu.o", 1.0)]
    assert broker.waits() == ["2 wait for a core"]


def test_who_is_too_long_for_the_box_is_named_so(tmp_path: Path) -> None:
    now = time.monotonic()
    broker = Broker(tmp_path / "s", cores=2, journal=tmp_path / "j", deadline=now + 60, free_gib=lambda: 50.0)
    broker.waiting = [unit("a.cu.o", 1.0, seconds=300)]
    assert broker.waits() == ["1 does not fit into the time box"]


SCRIPT = """
import subprocess, sys, time
from build_recipes.door.frame import door
from build_recipes.kit import console, heartbeat

with door(), heartbeat.beating(0.2):
    console.step("patch", "")
    print("ready", flush=True)
    subprocess.run(["sleep", "1.5"])
    with heartbeat.telling(lambda: "[3/8] 1 runs: a.cu"):
        print("asked", flush=True)
        time.sleep(1.5)
    print("end", flush=True)
"""


def test_a_line_comes_by_the_clock_and_on_a_signal_with_the_processes() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGUSR1)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "asked\nend\n"), err
    assert len(re.findall(r"after 'patch': sleep \(.*kill -USR1 \d+ shows more", err)) >= 3
    assert len(re.findall(r"^ +[0-9.]+ s  \[3/8\] 1 runs: a\.cu$", err, re.MULTILINE)) >= 3
    tree = [line for line in err.splitlines() if re.match(r" *\d+ +[0-9.]+ s .*GiB ", line)]
    assert tree[0].split()[0] == str(child.pid)
    assert tree[1].endswith("  sleep 1.5"), err


def test_a_command_that_is_sent_the_signal_goes_on(tmp_path: Path) -> None:
    """SIGUSR1 ends a process that does not answer it: no command may be one."""
    child = subprocess.Popen(
        [sys.executable, PACKAGE / "__main__.py", "index", "--serve"],
        env={**os.environ, "VLLM_ARMORY_WHEELS": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    try:
        while "http" not in child.stderr.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGUSR1)
        said = child.stderr.readline()
        while "pid" not in said:
            said = child.stderr.readline()
        assert str(child.pid) in child.stderr.readline()
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
