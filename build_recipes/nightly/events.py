"""What happens in a night, as events: the lines of the feed and the rows of the database are the same.

    started  a run begins, or goes on:  job label tag ref device fingerprint runner attempt program url
    step     one command ended:         step gate state exit seconds command log facts findings excerpt
    paused   to be gone on with:        state (checkpointed | interrupted) seconds reason failed
    ended    green or red:              state seconds wheel reason failed
    skipped  not run that night:        job label device reason (its run is JOB@DAY, and is none)

``program`` is this program's ``version`` and ``commit`` (40 digits), ``url`` the page of the workflow's run that the
attempt was made in (empty for one by hand), ``ref`` the commit of vLLM where the job is main. ``log`` is the step's
log, relative to the folder of the nights (``logs/RUN/STEP.log``); ``excerpt`` its last lines where it did not pass.
``failed`` is the step that made the run red: its ``step``, ``exit``, ``log``, ``excerpt``, and ``cause`` and ``fix``
where the failure is known (the first of its ``findings``).

A *job* is a cell of the matrix (``v0.12.0-thor``); a *run* is one try to make it green, which may take several
nights; an *attempt* is one process working on a run. An event's id is made from what it is about, so the
same thing told twice (two hosts, a feed read twice) is known as the same.
"""

from __future__ import annotations

import datetime
import os
import platform
import uuid
from typing import Annotated, Any

import msgspec

SCHEMA = 1
Size = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""Seconds or bytes."""
UNFINISHED = ("running", "checkpointed", "interrupted")
FINISHED = ("green", "red")


class _Finding(msgspec.Struct):
    id: str = ""
    cause: str = ""
    fix: str = ""
    text: str = ""


class _Verdict(msgspec.Struct):
    verdict: str = ""
    reasons: list[str] | None = None


class _Wheel(msgspec.Struct):
    name: str = ""
    size: Size = 0.0


class _Facts(msgspec.Struct):
    cached: int = 0
    units: int = 0
    up_to_date: bool = False
    breaks: int = 0
    verdict: str = ""
    counted: str = ""
    omni: str | None = None
    devices: dict[str, _Verdict] = {}
    tiers: dict[str, str] = {}
    wheel: _Wheel | None = None


class Program(msgspec.Struct):
    """Which state of this program ran."""

    version: str = ""
    commit: str = ""


class Failed(msgspec.Struct):
    """The step that made a run red."""

    step: str = ""
    exit: int | None = None
    log: str = ""
    excerpt: list[str] = []
    cause: str = ""
    fix: str = ""


class _Data(msgspec.Struct):
    """The keys of an event that this program reads, where they are there; what else is there is let through."""

    job: str = ""
    label: str = ""
    device: str = ""
    fingerprint: str = ""
    compiler_cache: str = ""
    ref: str = ""
    url: str = ""
    program: Program | None = None
    step: str = ""
    log: str = ""
    failed: Failed | None = None
    state: str = ""
    reason: str | None = None
    seconds: Size = 0.0
    gate: bool = False
    exit: int | None = None
    command: list[str] | None = None
    excerpt: list[str] | None = None
    findings: list[_Finding] | None = None
    facts: _Facts | None = None
    wheel: _Wheel | None = None


class Event(msgspec.Struct, frozen=True):
    """One thing that happened. Unknown keys of a newer writer are let through."""

    id: str
    kind: str
    run: str
    time: str
    """UTC, ISO 8601: for people. Order is the order of lines: a clock may jump."""
    host: str
    data: dict[str, Any]
    schema: int = SCHEMA

    def line(self) -> bytes:
        """The event as one line of JSON, without its newline."""
        return msgspec.json.encode(self)


def decode(line: bytes) -> Event:
    """The event of a line.

    :raises ValueError: it is none (cut off, damaged, or of a newer schema).
    """
    try:
        event = msgspec.json.decode(line, type=Event)
        msgspec.convert(event.data, _Data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if event.schema > SCHEMA:
        raise ValueError(f"schema {event.schema} is newer than {SCHEMA}")
    return event


def host_name() -> str:
    """What results call this machine: the runner's own name where it has one."""
    return os.environ.get("RUNNER_NAME") or platform.node() or "unknown"


def new_attempt() -> str:
    """A name for one process's work on runs."""
    return uuid.uuid4().hex[:12]


def new_run(job: str, now: datetime.datetime) -> str:
    """A name for a run, which is also a folder's (artifacts take no colon)."""
    return f"{job}@{now:%Y%m%dT%H%M%SZ}.{uuid.uuid4().hex[:6]}"


def utc_now() -> datetime.datetime:
    """The wall clock."""
    return datetime.datetime.now(datetime.timezone.utc)
