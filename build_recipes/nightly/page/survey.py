"""The survey on the page: how far each release comes on each device, as docs/survey.json has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from packaging.version import InvalidVersion, Version

from build_recipes.facts.device import devices


class _Module(msgspec.Struct):
    units: int = 0


class _Cell(msgspec.Struct):
    tag: str
    device: str
    stage: str
    error: str = ""
    missing: dict[str, str] = {}
    modules: dict[str, _Module] = {}
    cpu_s: float = 0


@dataclass(frozen=True)
class Entry:
    """A cell of the table."""

    text: str
    style: str
    title: str = ""


@dataclass(frozen=True)
class Survey:
    """The table; no rows where nothing was surveyed."""

    devices: list[str]
    rows: list[tuple[str, list[Entry]]]


def read(path: Path) -> Survey:
    """The table of a survey.json; empty where there is none or it is of another shape."""
    try:
        cells = msgspec.json.decode(path.read_bytes(), type=list[_Cell])
        tags = sorted({cell.tag for cell in cells}, key=lambda tag: Version(tag[1:]), reverse=True)
    except (OSError, msgspec.MsgspecError, InvalidVersion):
        return Survey([], [])
    by = {(cell.tag, cell.device): cell for cell in cells}
    names = [name for name in devices() if any(cell.device == name for cell in cells)]
    return Survey(names, [(tag, [_entry(by.get((tag, name))) for name in names]) for tag in tags])


def _entry(cell: _Cell | None) -> Entry:
    if cell is None:
        return Entry("not run", "none")
    lacks = f"not at hand: {', '.join(sorted(cell.missing))}" if cell.missing else ""
    if cell.stage != "done":
        return Entry(f"stops at {cell.stage}", "bad", "; ".join(filter(None, (cell.error, lacks))))
    units = sum(module.units for module in cell.modules.values())
    return Entry(f"{units} units, {cell.cpu_s / 60:.0f} CPU min", "plain" if not lacks else "wait", lacks)
