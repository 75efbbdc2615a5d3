"""How the tools report errors, as data: ``grammar.toml``, ``python.toml``, ``families.toml`` and ``endings.toml``."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import BadData

Role = Literal["error", "after", "wrapper", "unit", "logged", "harmless"]
Phase = Literal["prepare", "configure", "compile", "link", "start", "run", ""]

_FOLDER = Path(__file__).parent
_LONGEST = 1500
"""Characters of a line that are held against the grammar."""


class _Says(Model, frozen=True):
    tool: str
    role: Role
    phase: Phase = ""
    at_start: str = msgspec.field(default="", name="in")
    has: str = ""


class _Grammar(Model, frozen=True):
    says: list[_Says]


class _Speaks(Model, frozen=True):
    tool: str
    regex: str


class _Python(Model, frozen=True):
    wrappers: list[str]
    stopped: list[str]
    transparent: list[str]
    speaks: list[_Speaks]
    distributions: dict[str, str]


class Family(Model, frozen=True):
    """What is true of every failure that one tool reports."""

    title: str
    """The tool, for people."""
    look: str
    """Where to look."""
    send: str
    """What to send to those who know more."""


class _Endings(Model, frozen=True):
    success: list[str]
    running: list[str]


class Said(NamedTuple):
    """What one line says."""

    tool: str
    role: Role
    phase: Phase
    unit: str
    package: str


@dataclass(frozen=True)
class _Rule:
    says: _Says
    match: re.Pattern[str] | None
    search: re.Pattern[str] | None


@functools.cache
def _rules() -> tuple[_Rule, ...]:
    found = []
    for says in load_toml(_FOLDER / "grammar.toml", _Grammar).says:
        try:
            found.append(
                _Rule(
                    says,
                    re.compile(_numbered(says.at_start)) if says.at_start else None,
                    re.compile(_numbered(says.has)) if says.has else None,
                )
            )
        except re.error as error:
            raise BadData(f"grammar.toml, {says.tool} {says.role}: {error}", "correct the regex") from error
    return tuple(found)


def _numbered(regex: str) -> str:
    """The regex with groups of one name numbered apart."""
    counter = iter(range(100))
    return re.sub(r"\(\?P<(\w+)>", lambda found: f"(?P<{found[1]}_{next(counter)}>", regex)


def classify(text: str) -> Said | None:
    """Who says a line and what it is; None for a line that reports nothing.

    :param text: without prefixes and the blanks around it.
    """
    text = text[:_LONGEST]
    for rule in _rules():
        found = rule.match.match(text) if rule.match else None
        if found is None and rule.search:
            found = rule.search.search(text)
        if found:
            groups = {name.rpartition("_")[0]: value for name, value in found.groupdict().items() if value}
            return Said(
                groups.get("tool", rule.says.tool),
                rule.says.role,
                rule.says.phase,
                groups.get("unit", ""),
                groups.get("package", ""),
            )
    return None


@functools.cache
def _python() -> _Python:
    return load_toml(_FOLDER / "python.toml", _Python)


@functools.cache
def _any_of(kind: Literal["wrappers", "stopped"]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{one})" for one in getattr(_python(), kind)))


def wraps(exception: str) -> bool:
    """Whether an exception only says that something inside it failed."""
    return bool(_any_of("wrappers").match(exception))


def stopped(exception: str) -> bool:
    """Whether an exception only says that the process was told to stop."""
    return bool(_any_of("stopped").match(exception))


@functools.cache
def _speakers() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((one.tool, re.compile(one.regex)) for one in _python().speaks)


def speaker(exception: str) -> str:
    """The tool that speaks in an exception of Python; ``python`` where it is none other."""
    return next((tool for tool, regex in _speakers() if regex.search(exception)), "python")


def transparent(package: str) -> bool:
    """Whether a package's frames only pass a call on."""
    return package in _transparent()


@functools.cache
def _transparent() -> frozenset[str]:
    return frozenset(_python().transparent)


def distribution(folder: str) -> str:
    """The name people install: ``flashinfer-python`` of the folder ``flashinfer``."""
    return _python().distributions.get(folder, folder)


@functools.cache
def families() -> dict[str, Family]:
    """Tool to what is true of its failures."""
    return load_toml(_FOLDER / "families.toml", dict[str, Family])


def family(tool: str) -> Family:
    """What is true of a tool's failures; of any tool's where it is not known."""
    return families().get(tool, families()["other"])


@functools.cache
def _endings() -> tuple[re.Pattern[str], ...]:
    table = load_toml(_FOLDER / "endings.toml", _Endings)
    return tuple(re.compile(one) for one in (*table.success, *table.running))


def ends_well(text: str) -> bool:
    """Whether a line is how a log of success, or of a server at work, ends."""
    return any(regex.search(text) for regex in _endings())
