"""Nights of real, quick commands: red ones, interrupted ones, killed ones, two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from build_recipes.kit import ourselves
from build_recipes.kit.errors import NightBusy, NightFailed
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly import config as configuration
from build_recipes.nightly import events, feed, leash, matrix, runner, sharing, steps
from build_recipes.nightly.extract import extract
from build_recipes.nightly.jobs import Job
from build_recipes.nightly.night import open_store
from build_recipes.nightly.page.view import fold

REAL = Places.from_environment()
INVOKE = Path(sys.executable).with_name("invoke")
HEAD = """
title = "test"
[tags]
always = {tags}
[[device]]
name = "thor"
runners = ["any"]
[[runner]]
name = "any"
labels = ["ubuntu-24.04-arm"]
machine = "aarch64"
cores = 4
memory_gib = 16
time_box = "1h"
enabled = true
"""
DEVICES = '["devices", "--json"]'
FAILS = '["plan", "--tag", "{tag}", "--device", "nowhere"]'
"""Exit code 12 on every machine."""
UNCHECKED = '["verify-omni", "--vllm", "/nowhere", "--json"]'


def written(folder: Path, *commands: str, gate: bool = True, tags: str = '["v0.12.0"]') -> Path:
    rows = [
        f'[[step]]\nname = "s{number}"\ncommand = {command}\ngate = {str(gate).lower()}\n'
        for number, command in enumerate(commands)
    ]
    path = folder / "night.toml"
    path.write_text(HEAD.format(tags=tags) + "".join(rows))
    return path


def a_night(places: Places, path: Path, deadline: float | None = None) -> tuple[runner.Night, list[Job]]:
    config, store = configuration.load(path), open_store(places)
    jobs = matrix.resolve(config, places, store, here=True, offline=True)
    return runner.Night(config, places, store, sharing.choose({}), deadline), jobs


def of(places: Places, kind: str) -> list[dict[str, Any]]:
    """Data of the feed's events of a kind."""
    path = matrix.folder(places) / "feed.jsonl"
    return [event.data for event in feed.read(path).events if event.kind == kind]


def test_a_red_job_does_not_stop_the_others_and_keeps_its_words(tmp_path: Path, places: Places) -> None:
    path = written(tmp_path, DEVICES, FAILS, DEVICES, tags='["v0.12.0", "v0.11.0", "v0.12.7", "v0.14.0"]')
    night, jobs = a_night(places, path)
    with pytest.raises(NightFailed, match="3 of 4 jobs are red"):
        runner.run_night(night, runner.choose(jobs, ""))
    assert sorted(night.states.values()) == ["red", "red", "red", "skipped"]
    rows = of(places, "step")
    assert [data["state"] for data in rows] == ["passed", "failed", "not run"] * 2
    assert rows[1]["exit"] == 12
    assert any("nowhere" in line for line in rows[1]["excerpt"])
    assert rows[1]["command"] == ["./inv", "plan", "--tag", "v0.14.0", "--device", "nowhere"]
    ended = {data["reason"]: data for data in of(places, "ended")}
    reasons = set(ended)
    failed = ended["s1 failed with exit code 12"]["failed"]
    assert (failed["step"], failed["exit"], failed["excerpt"]) == ("s1", 12, rows[1]["excerpt"])
    assert failed["log"] == rows[4]["log"]
    assert "nowhere" in (matrix.folder(places) / failed["log"]).read_text()
    shown = {run.reason: run for run in fold(event for _, event in night.store.events())}
    assert shown["s1 failed with exit code 12"].failed == failed
    assert all(len(run.commit) == 40 for run in shown.values()), "which state of this program ran"
    assert {"s1 failed with exit code 12"} < reasons
    assert any("no tag v0.12.7" in reason for reason in reasons)


def test_without_a_gate_a_failure_is_told_and_the_job_is_green(tmp_path: Path, places: Places) -> None:
    night, jobs = a_night(places, written(tmp_path, FAILS, '["no-such-task"]', DEVICES, gate=False))
    runner.run_night(night, jobs)
    assert [data["state"] for data in of(places, "step")] == ["failed", "not available", "passed"]
    assert night.states == {"v0.12.0-thor": "green"}
    again, jobs = a_night(places, tmp_path / "night.toml")
    runner.run_night(again, jobs)
    assert again.states == {"v0.12.0-thor": "skipped"}, "the same fingerprint is green"


def test_with_no_time_left_the_job_is_kept_for_the_next_night(tmp_path: Path, places: Places) -> None:
    path = written(tmp_path, DEVICES)
    night, jobs = a_night(places, path, time.monotonic() + 1)
    runner.run_night(night, jobs)
    assert night.states == {"v0.12.0-thor": "left"}
    night.states.clear()
    night.deadline = time.monotonic() + 1
    assert runner.run_job(night, jobs[0]) == "checkpointed"
    night, jobs = a_night(places, path)
    assert jobs[0].state == "resume"
    runner.run_night(night, jobs)
    assert night.states == {"v0.12.0-thor": "green"}
    assert [data["state"] for data in of(places, "paused")] == ["checkpointed"]
    assert len({event.run for _, event in night.store.events()}) == 1


def test_a_step_past_its_deadline_is_ended_as_a_checkpoint(tmp_path: Path) -> None:
    outcome = steps.run(
        ["devices"], tmp_path / "s.log", env=steps.environment(), deadline=time.monotonic() + 0.05
    )
    assert outcome.state == "checkpointed"


def started(places: Places, path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [INVOKE, "nightly", "--config", str(path), "--offline", *words],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(places: Places, kind: str, count: int, child: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 60
    while len(of(places, kind)) < count:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_killed_night_is_gone_on_with_and_ends_once(tmp_path: Path, places: Places) -> None:
    path = written(tmp_path, *[DEVICES] * 4)
    child = started(places, path)
    wait_for(places, "step", 2, child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(of(places, "step")) < 4
    done = started(places, path, "--json")
    said, _ = done.communicate(timeout=120)
    assert done.returncode == 0, said
    assert "was interrupted by a crash or a kill" in said
    assert [data["state"] for data in of(places, "paused")] == ["interrupted"]
    assert [data["state"] for data in of(places, "ended")] == ["green"]
    assert len(of(places, "started")) == 2
    with open_store(places) as store:
        (run,) = store.runs()
        assert (run.state, run.attempts, len(store.steps(run.id))) == ("green", 2, 4)
        assert [event.line() for _, event in store.events()] == (
            matrix.folder(places) / "feed.jsonl"
        ).read_bytes().splitlines()


def test_ctrl_c_is_a_pause(tmp_path: Path, places: Places) -> None:
    path = written(tmp_path, *[DEVICES] * 4)
    child = started(places, path)
    wait_for(places, "step", 1, child)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert [data["state"] for data in of(places, "paused")] == ["interrupted"]
    with open_store(places) as store:
        assert store.runs()[0].state == "interrupted"


def test_a_second_night_can_wait(tmp_path: Path, places: Places) -> None:
    path = written(tmp_path, DEVICES)
    with runner.night_lock(matrix.folder(places), wait=False):
        waiting = started(places, path, "--wait")
        second = started(places, path)
        said, _ = second.communicate(timeout=60)
        assert second.returncode == NightBusy.exit_code
        assert f"another night (process {os.getpid()}) runs" in said
        assert waiting.poll() is None
    said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said


@pytest.mark.parametrize("background", [False, True])
def test_no_child_outlives_a_killed_night(tmp_path: Path, background: bool) -> None:
    """The leash: the parent is killed with SIGKILL, the child gets Ctrl-C; its output is in the file.

    Also where the night is a background job of a shell, which has Ctrl-C ignored.
    """
    words = [sys.executable, leash.__file__, str(tmp_path / "out"), sys.executable, "-c"]
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    parent = subprocess.Popen(
        [
            sys.executable, "-c",
            "import signal, subprocess;"
            + "signal.signal(signal.SIGINT, signal.SIG_IGN);" * background
            + f"subprocess.run({[*words, child]!r})",
        ]
    )  # fmt: skip
    limit = time.monotonic() + 30
    while not (tmp_path / "out").exists() or not (tmp_path / "out").read_text().strip():
        assert time.monotonic() < limit
        time.sleep(0.02)
    pid = int((tmp_path / "out").read_text())
    parent.kill()
    parent.wait()
    limit = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_the_run_of_a_workflow_is_told() -> None:
    """By GitHub Actions' default variables; the builder is what GitHub's attestations name."""
    workflow = "owner/name/.github/workflows/nightly.yml@refs/heads/main"
    known = {
        "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "owner/name", "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "2", "GITHUB_WORKFLOW_REF": workflow, "GITHUB_SHA": "a" * 40,
    }  # fmt: skip
    told = ourselves.invocation(known)
    assert told.builder == f"https://github.com/{workflow}"
    assert told.url == "https://github.com/owner/name/actions/runs/7/attempts/2"
    assert ourselves.invocation({}) == ourselves.Invocation(ourselves.LOCAL)


def test_secrets_and_colours_stay_out_of_results(tmp_path: Path, places: Places) -> None:
    assert steps._plain("\x1b[31merror\x1b[0m\x07 at x") == "error at x"
    assert len(steps._plain("y" * 5000)) == steps.EXCERPT_COLUMNS
    assert "FORCE_COLOR" not in steps.environment()
    assert events.host_name()


def test_json_is_the_only_thing_on_stdout(tmp_path: Path, places: Places) -> None:
    path = written(tmp_path, DEVICES)
    done = subprocess.run(
        [INVOKE, "nightly", "--config", path, "--offline", "--json"],
        cwd=PROJECT, capture_output=True, text=True, check=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert json.loads(done.stdout)["states"] == {"v0.12.0-thor": "green"}


def test_facts_are_read_from_what_the_commands_print(tmp_path: Path) -> None:
    manifest = tmp_path / "w.manifest.json"
    units = {"_C/a.cu.o": {"cached": True, "cpu_s": 1.25}, "_C/b.cu.o": {"cached": False, "cpu_s": 20}}
    manifest.write_text(
        json.dumps({"wheel": {"name": "w.whl", "size": 5}, "plan": {"fingerprint": "f"}, "units": units})
    )
    built = extract("build", {"wheel": "/x/w.whl", "manifest": str(manifest), "up_to_date": False})
    assert (built["units"], built["cached"], built["cpu_s"]) == (2, 1, 21.2)
    assert built["wheel"]["name"] == "w.whl"
    verdict = {"verdict": "not usable", "reasons": ["a", "b", "c", "d"]}
    assert extract("audit", {"devices": {"thor": verdict}})["devices"]["thor"]["reasons"] == ["a", "b", "c"]
    entry = {"file": "f.py", "line": 1, "kind": "missing-name", "tier": "model", "guard": None, "chain": []}
    breaks = [{"module": "vllm.x", "name": "Y", "moved_to": None, **entry}] * 9
    told = extract("omni 0.20.0", {"omni": "0.20.0", "verdict": "breaks", "breaks": breaks})
    assert (told["breaks"], told["names"][0], len(told["names"])) == (9, "vllm.x.Y", 5)
    cells = [{"patch": "P1", "state": "applies"}, {"patch": "P2", "state": "conflict"}]
    assert extract("patches", {"cells": cells})["bad"] == ["P2"]
    assert extract("qualify", {"tiers": [{"name": "import", "result": "passed"}]})["tiers"] == {
        "import": "passed"
    }
    for step, document in (
        ("audit", None),
        ("audit", {}),
        ("build", {"manifest": "/no"}),
        ("lock", {"a": 1}),
    ):
        assert extract(step, document) == {}


@pytest.mark.network
def test_the_smoke_night_reads_facts_of_the_real_commands(tmp_path: Path, places: Places) -> None:
    """What `patches` really prints, so that a change of theirs is seen here."""
    outcome = steps.run(
        ["patches", "--tag", "v0.12.0", "--device", "thor", "--json"],
        tmp_path / "patches.log", env=steps.environment(VLLM_ARMORY_CACHE=str(REAL.cache)), deadline=None,
    )  # fmt: skip
    assert outcome.document is not None, outcome
    assert extract("patches", outcome.document)["states"]
