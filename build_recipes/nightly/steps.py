"""One command of a job: run on a leash, its words in a log, its JSON read, its exit code understood."""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build_recipes.kit import console, paths, process
from build_recipes.kit.data import parse_json
from build_recipes.kit.errors import ArmoryError, Checkpointed, CouldNotCheck, TreeBusy
from build_recipes.nightly import leash

EXCERPT_LINES = 25
EXCERPT_COLUMNS = 400
BUSY_WAIT_S = 90.0
"""How long a step waits for a build tree that a dying build still holds."""
INTERRUPTED = 130
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    state: str
    """``passed``, ``failed``, ``checkpointed``, ``interrupted``, ``unknown`` (could not be checked) or
    ``not available``."""
    exit: int | None = None
    seconds: float = 0
    document: Any = None
    """What it printed as JSON."""
    excerpt: tuple[str, ...] = ()
    """Its last lines."""
    findings: tuple[dict[str, Any], ...] = field(default=())
    """What `diagnose` made of its log."""


@functools.cache
def available() -> frozenset[str]:
    """Commands that this program has."""
    listed = json.loads(process.capture([*paths.OURSELVES, "--list", "--list-format=json"]))
    return frozenset(task["name"] for task in listed["tasks"])


def run(
    words: list[str], log: Path, *, env: Mapping[str, str], deadline: float | None,
    say: Callable[[str], None] | None = None,
) -> Outcome:  # fmt: skip
    """Run ``./inv WORDS``.

    :param log: file for its words; its JSON goes beside it.
    :param deadline: `time.monotonic` value past which it is ended, which counts as a checkpoint.
    """
    if words[0] not in available():
        return Outcome("not available", excerpt=(f"this version has no ./inv {words[0]}",))
    log.parent.mkdir(parents=True, exist_ok=True)
    result = log.with_suffix(".json")
    command = [sys.executable, "-I", "-S", str(Path(leash.__file__)), str(result), *paths.OURSELVES, *words]
    started = time.monotonic()
    while True:
        try:
            done = process.run(
                command, env=env, log=log, on_line=say, deadline=deadline,
                tail_lines=EXCERPT_LINES,
            )  # fmt: skip
        except TimeoutError:
            return Outcome("checkpointed", None, time.monotonic() - started, excerpt=("its time was up",))
        waited = time.monotonic() - started
        if done.returncode != TreeBusy.exit_code or waited > BUSY_WAIT_S:
            break
        time.sleep(5)
    state = _state(done.returncode)
    excerpt = tuple(_plain(line) for line in done.tail) if state != "passed" else ()
    findings = diagnosis(log) if state == "failed" else ()
    return Outcome(state, done.returncode, time.monotonic() - started, _document(result), excerpt, findings)


def environment(**more: str) -> dict[str, str]:
    """This process's environment for a step: plain output, no inherited virtual environment."""
    return {
        **process.child_environment("FORCE_COLOR", NO_COLOR="1", COLUMNS="120"),
        console.PROGRAM: console.program(),
        **more,
    }


def _state(code: int) -> str:
    if code in (INTERRUPTED, -2):
        return "interrupted"
    named = {
        0: "passed",
        Checkpointed.exit_code: "checkpointed",
        TreeBusy.exit_code: "checkpointed",  # somebody else builds there: no fault of the job
        CouldNotCheck.exit_code: "unknown",
    }
    return named.get(code, "failed")


def _document(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _plain(line: str) -> str:
    return CONTROL.sub("", line)[:EXCERPT_COLUMNS]


def diagnosis(log: Path) -> tuple[dict[str, Any], ...]:
    """Known failures in a log, the first cause first; empty where nothing is known."""
    from build_recipes.diagnosis.diagnose import diagnose_file

    try:
        diagnosed = diagnose_file(str(log))
    except ArmoryError:
        return ()
    found: list[dict[str, Any]] = list(diagnosed.as_dict()["findings"])
    if diagnosed.report and not diagnosed.primary:
        report = diagnosed.report
        cause = f"{report.tool or 'a tool'} reports a failure that is not known here"
        found.insert(0, {"id": "unknown", "text": report.text, "cause": cause, "fix": report.look})
    return tuple(
        {key: _plain(str(one.get(key) or "")) for key in ("id", "text", "cause", "fix")} for one in found[:3]
    )
