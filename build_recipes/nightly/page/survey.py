"""The survey on the page: how far each release comes on each device, as docs/survey.json has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from build_recipes.build.survey.cells import Cell, lacks, of_row
from build_recipes.facts.device import devices
from build_recipes.kit.console import counted
from build_recipes.kit.data import parse_json


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
        rows = parse_json(path.read_text(encoding="utf-8"))
        cells = [of_row(row) for row in rows]
        tags = sorted({cell.tag for cell in cells}, key=lambda tag: Version(tag[1:]), reverse=True)
        by = {(cell.tag, cell.device): cell for cell in cells}
        names = [name for name in devices() if any(cell.device == name for cell in cells)]
        return Survey(names, [(tag, [_entry(by.get((tag, name))) for name in names]) for tag in tags])
    except (OSError, ValueError, TypeError):
        return Survey([], [])


def _entry(cell: Cell | None) -> Entry:
    if cell is None:
        return Entry("not run", "none")
    short = lacks(cell)
    away = f"not at hand: {', '.join(sorted(short))}" if short else ""
    if cell.stage != "done":
        return Entry(f"stops at {cell.stage}", "bad", "; ".join(filter(None, (cell.error, away))))
    units = sum(int(str(module.get("units") or 0)) for module in cell.modules.values())
    text = f"{units} units, {cell.cpu_s / 60:.0f} CPU min"
    broken = [
        f"{target} does not compile: {one.error}" for target, one in cell.compiled.items() if not one.ok
    ]
    if broken:
        return Entry(text, "bad", "; ".join(filter(None, (*broken, away))))
    tried = f"one unit each of {counted(len(cell.compiled), 'module')} compiled" if cell.compiled else ""
    return Entry(text, "wait" if short else "plain", "; ".join(filter(None, (tried, away))))
