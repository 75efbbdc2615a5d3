"""A line without what wraps it: colours, progress bars, time stamps, the names of processes and of log levels."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from build_recipes.kit.data import Model, load_toml

_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
_QUOTES = str.maketrans("‘’“”", "''\"\"")
_INDENTED = re.compile(
    r"\s+(?=\(\w+ (?:rank=\d+ )?pid=|#\d+ \d|\d+\.\d+ \S|\d{4}-\d\d-\d\d[T ]|\[rank\d|\[pod/"
    r"|(?:DEBUG|INFO|WARNING|ERROR) \d\d-\d)"
)
"""Blanks before a prefix that leaves no doubt."""
_MOST = 12
"""Prefixes taken off one line."""
_LEVELS = {
    "D": "debug", "I": "info", "W": "warning", "E": "error", "F": "error", "warn": "warning", "critical": "error",
    "fatal": "error", "notice": "info", "command": "info", "section": "info", "success": "info",
}  # fmt: skip


class Line(NamedTuple):
    """One line of a log."""

    number: int
    """From 1."""
    shown: str
    """As a person sees it: no colours, plain quotes, what a progress bar left standing."""
    text: str
    """Without its prefixes and the blanks around it."""
    indent: int
    """Blanks before `text`."""
    source: str
    """Process that said it (``EngineCore``, ``rank0``), empty where that is not told."""
    level: str
    """``debug``, ``info``, ``warning`` or ``error`` where the line says it."""


class _Prefix(Model, frozen=True):
    name: str
    regex: str


class _Document(Model, frozen=True):
    prefix: list[_Prefix]


@functools.cache
def _pattern() -> re.Pattern[str]:
    """All prefixes as one regex; groups of one name are numbered apart."""
    parts = []
    for number, prefix in enumerate(load_toml(Path(__file__).with_name("prefixes.toml"), _Document).prefix):
        counter = iter(range(100))
        named = re.sub(r"\(\?P<(\w+)>", lambda m: f"(?P<{m[1]}_{number}_{next(counter)}>", prefix.regex)  # noqa: B023
        parts.append(f"(?:{named})")
    return re.compile("|".join(parts))


def plain(raw: bytes) -> str:
    """A line as text: no control sequences, plain quotes, and only what a progress bar left standing."""
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    if "\r" in text:
        text = max(text.split("\r"), key=_telling)
    return _CONTROL.sub("", text).translate(_QUOTES)


def _telling(piece: str) -> tuple[bool, bool]:
    """How much a piece between two carriage returns is worth: an error more than the rest, a bar least."""
    return (
        bool(re.search(r"[Ee]rror|ERROR|FAIL|fatal|Traceback|died|illed|not found", piece)),
        bool(piece.strip()) and "%|" not in piece,
    )


def strip(shown: str, number: int = 0) -> Line:
    """Take a line's prefixes off."""
    source, level = "", ""
    indented = _INDENTED.match(shown)
    at = indented.end() if indented else 0
    for _ in range(_MOST):
        found = _pattern().match(shown, at)
        if found is None or found.end() == at:
            break
        at = found.end()
        for name, value in found.groupdict().items():
            if value and name.startswith("source"):
                source = value
            elif value and name.startswith("level"):
                level = _LEVELS.get(value, _LEVELS.get(value.lower(), value.lower()))
    rest = shown[at:]
    text = rest.strip()
    return Line(number, shown.rstrip(), text, len(rest) - len(rest.lstrip()), source, level)
