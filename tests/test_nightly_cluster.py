"""A night on two real Dask workers, one of them killed in the middle: its job ends elsewhere, once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_nightly_cache import free_port
from test_nightly_runner import DEVICES, written

from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly import feed

BIN = Path(sys.executable).parent
TAGS = '["v0.12.0", "v0.14.0", "v0.20.0", "v0.22.0"]'


@contextlib.contextmanager
def process(words: list[object], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        child = subprocess.Popen(
            [str(word) for word in words], cwd=PROJECT, env={**os.environ, **env}, stdout=sink, stderr=sink
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


@contextlib.contextmanager
def worker(name: str, scheduler: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with cache, build and wheels folders of its own, as another host has them."""
    own = {f"VLLM_ARMORY_{kind.upper()}": str(folder / name / kind) for kind in ("cache", "build", "wheels")}
    words = [
        BIN / "dask",
        "worker",
        scheduler,
        "--nthreads",
        1,
        "--no-nanny",
        "--no-dashboard",
        "--name",
        name,
    ]
    words += ["--local-directory", folder / name]
    (folder / name).mkdir()
    with process(words, folder / f"{name}.log", RUNNER_NAME=name, **own) as child:
        yield child


def under_way(folder: Path, name: str) -> str:
    """The run a worker is in the middle of: at least one step is done, and it has not ended."""
    got = feed.read(folder / name / "wheels/nightly/feed.jsonl").events
    ended = {event.run for event in got if event.kind == "ended"}
    open_runs = [event.run for event in got if event.kind == "step" and event.run not in ended]
    return open_runs[-1] if open_runs else ""


def wait_until(what: str, answer: object, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not answer():  # type: ignore[operator]
        assert time.monotonic() < limit, what
        time.sleep(0.02)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    words = [BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    with process(words, tmp_path / "scheduler.log") as child:
        wait_until("scheduler", lambda: b"Scheduler at" in (tmp_path / "scheduler.log").read_bytes())
        assert child.poll() is None
        yield f"tcp://127.0.0.1:{port}"


def test_the_job_of_a_killed_worker_is_run_again_elsewhere_and_ends_once(
    tmp_path: Path, places: Places, scheduler: str
) -> None:
    config = written(tmp_path, *[DEVICES] * 3, tags=TAGS)
    with worker("first", scheduler, tmp_path) as first, worker("second", scheduler, tmp_path):
        for name in ("first", "second"):
            log = tmp_path / f"{name}.log"
            wait_until(name, lambda log=log: b"Registered to" in log.read_bytes())
        words = [BIN / "invoke", "nightly", "--config", config, "--offline", "--workers", scheduler]
        with process(words, tmp_path / "night.log") as night:
            wait_until("a job on the first worker", lambda: under_way(tmp_path, "first"))
            lost = under_way(tmp_path, "first")
            first.send_signal(signal.SIGKILL)
            night.wait(timeout=240)
        said = (tmp_path / "night.log").read_text()
        assert night.returncode == 0, said
    got = feed.read(places.wheels / "nightly/feed.jsonl").events
    ends = [event for event in got if event.kind == "ended"]
    assert Counter(event.run.split("@")[0] for event in ends) == Counter(
        f"{tag}-thor" for tag in ("v0.12.0", "v0.14.0", "v0.20.0", "v0.22.0")
    )
    assert {event.data["state"] for event in ends} == {"green"}
    assert {event.host for event in ends if event.run == lost} == {"second"}
    for end in ends:
        steps = [event.data["step"] for event in got if event.run == end.run and event.kind == "step"]
        assert sorted(steps) == ["s0", "s1", "s2"], "nothing lost, nothing doubled"
    partial = feed.read(tmp_path / "first/wheels/nightly/feed.jsonl").events
    assert any(event.run == lost for event in partial)
    assert not any(event.run == lost and event.kind == "ended" for event in partial)


def test_without_a_scheduler_the_error_says_so(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_nightly_runner import a_night

    from build_recipes.kit.errors import NetworkError
    from build_recipes.nightly import cluster

    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)
    night, jobs = a_night(places, written(tmp_path, DEVICES))
    with pytest.raises(NetworkError, match="does not answer"):
        cluster.spread(night, jobs, f"tcp://127.0.0.1:{free_port()}")
