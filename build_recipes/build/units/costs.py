"""What a compile unit is expected to cost: from the project's table, then from this tree's own history."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.kit.data import Model, load_toml


class Rule(Model, frozen=True):
    """One row of costs.toml."""

    pattern: str
    """fnmatch pattern on ``<target>/<object path>``."""
    cpu_s: float
    """CPU seconds of one unit."""
    gib: float
    """Peak resident memory of its largest process, GiB."""
    source: str
    """Where the figures come from."""


class Default(Model, frozen=True):
    """Cost of a unit that no rule names."""

    cpu_s: float
    gib: float
    source: str
    pattern: str = "default"


class Measured(Model, frozen=True):
    """A real build whose units the table was fitted to: ``docs/evidence/NAME/units.jsonl``."""

    machine: str
    """What compiled it."""
    pace: float
    """CPU seconds of that machine over those of the first one, for the same units."""


class Table(Model, frozen=True):
    """costs.toml."""

    measured: dict[str, Measured]
    default: Default
    rule: list[Rule]


@dataclass(frozen=True)
class Cost:
    """Expected cost of one unit."""

    seconds: float
    """CPU seconds, which is wall time on a free core."""
    gib: float
    """Peak memory, GiB."""


def unit_name(output: str) -> str:
    """``_C/csrc/x.cu.o`` from the object path that ninja uses (``CMakeFiles/_C.dir/csrc/x.cu.o``)."""
    head, _, tail = output.partition(".dir/")
    return f"{head.rsplit('/', 1)[-1]}/{tail}" if tail else output


@functools.cache
def table() -> Table:
    """The project's cost table."""
    return load_toml(Path(__file__).with_name("costs.toml"), Table)


def expected(unit: str, history: dict[str, Cost] | None = None) -> Cost:
    """Expected cost of a unit, by its `unit_name`."""
    if history and unit in history:
        return history[unit]
    found = rule_of(unit)
    return Cost(found.cpu_s, found.gib)


@functools.lru_cache(maxsize=1 << 14)
def rule_of(unit: str) -> Rule | Default:
    """The first rule whose pattern a unit's name matches."""
    return next((rule for rule in table().rule if fnmatch.fnmatchcase(unit, rule.pattern)), table().default)


class Row(msgspec.Struct, frozen=True):
    """One line of a journal of units. Lines of older versions lack what is optional here."""

    unit: str
    code: int
    cpu_s: float
    rss_kib: int
    wall_s: float = 0.0
    cached: bool = False
    killed: bool = False
    oom: bool = False
    alone: bool = False
    ended: float = 0.0
    output: str = ""
    size: int = 0
    sha256: str = ""


_SEAL = b', "seal": "'


def add_line(journal: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a journal of units. Each line can tell whether it is whole; a torn line before it stays alone."""
    raw = json.dumps(row).encode()
    line = raw[:-1] + _SEAL + _seal_of(raw) + b'"}\n'
    with journal.open("ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            line = line if stream.read(1) == b"\n" else b"\n" + line
        stream.write(line)


def _seal_of(raw: bytes) -> bytes:
    return hashlib.sha256(raw).hexdigest()[:16].encode()


def read_journal(journal: Path) -> Iterator[dict[str, Any]]:
    """Records of finished units. Lines that are torn or lack something are passed over; a line without a seal (an
    older version wrote it) tells what a unit costs, but is no evidence for its object."""
    try:
        lines = journal.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        head, mark, tail = line.rpartition(_SEAL)
        if mark and tail != _seal_of(head + b"}") + b'"}':
            continue
        try:
            row = msgspec.json.decode(line, type=Row)
        except (ValueError, msgspec.MsgspecError):
            continue
        yield msgspec.structs.asdict(row if mark else msgspec.structs.replace(row, sha256=""))


def learned(journal: Path) -> dict[str, Cost]:
    """Costs of units that were really compiled in this tree (cache hits say nothing), the last of each.

    A unit that the kernel ended for want of memory is expected to need a third more than it had, or than was
    expected of it before anything was known, until it succeeds. However often it is killed, that does not grow.
    """
    known: dict[str, Cost] = {}
    for record in read_journal(journal):
        gib = float(record["rss_kib"]) / 2**20
        if record["code"] == 0 and not record.get("cached"):
            known[record["unit"]] = Cost(float(record["cpu_s"]), gib)
        elif record["oom"]:
            before = expected(record["unit"])
            known[record["unit"]] = Cost(before.seconds, max(before.gib, gib) * 4 / 3)
    return known
