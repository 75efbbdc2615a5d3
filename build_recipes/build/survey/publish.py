"""What the survey writes into docs/: a page, its data, and the table that estimates are made from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from packaging.version import Version

from build_recipes.build.survey.cells import NONE, Cell, costed, in_order, lacks, of_row, one_line
from build_recipes.build.units import surveyed
from build_recipes.facts import device as devices
from build_recipes.kit.console import counted, table, warn
from build_recipes.kit.data import parse_json, write_atomic
from build_recipes.kit.errors import BadData

LOG = re.compile(r" \(whole log: [^)]*\):?")
"""A place on the machine that ran it, which is not for docs/."""


def _published(docs: Path) -> list[Cell]:
    try:
        cells = [of_row(row) for row in parse_json((docs / "survey.json").read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise BadData(
            f"{docs / 'survey.json'} cannot be read ({error}); its cells would be lost",
            f"git checkout {docs / 'survey.json'}, then the same command again",
        ) from error
    arch = {name: device.arch_list for name, device in devices.devices().items()}
    for cell in cells:
        known = surveyed.units_of(cell.tag, arch.get(cell.device, "")) or {}
        cell.units = {target: None if units is None else list(units) for target, units in known.items()}
    return cells


def publish(cells: Sequence[Cell], asked: Sequence[tuple[str, str]], docs: Path) -> None:
    """Write docs/survey.json, docs/survey.md, and the table that estimates are made from.

    Cells that stand in docs/survey.json and were not made here stay: each machine adds what it ran.
    """
    made = {(cell.tag, cell.device) for cell in cells}
    ours = [costed(replace(cell, error=LOG.sub("", cell.error.partition("\n")[0]))) for cell in cells]
    others = [costed(cell) for cell in _published(docs) if (cell.tag, cell.device) not in made]
    shown = in_order([*ours, *others])
    plain = [{key: value for key, value in asdict(cell).items() if key != "units"} for cell in shown]
    write_atomic(docs / "survey.json", json.dumps(plain, indent=1) + "\n")
    write_atomic(docs / "survey.md", page(shown, asked))
    known: surveyed.Table = dict(surveyed.table())
    for cell in cells:
        if cell.done:
            arch = devices.device(cell.device).arch_list
            known[cell.tag] = {**known.get(cell.tag, {}), arch: cell.units}
    surveyed.write(known)


def page(cells: Sequence[Cell], asked: Sequence[tuple[str, str]]) -> str:
    """The survey as a Markdown page."""
    by = {(cell.tag, cell.device): cell for cell in cells}
    tags = sorted({tag for tag, _ in [*asked, *by]}, key=lambda tag: Version(tag[1:]), reverse=True)
    names = [name for name in devices.devices() if any(one == name for _, one in [*asked, *by])]
    lines = [
        "# Survey: how far each release comes on each device",
        "",
        "Made by `./inv survey`: every pair went from the lock to a configured tree; nothing but what CMake tries was "
        "compiled. A cell says the units that are compiled, the CPU minutes that they are expected to take by "
        "`costs.toml`, and what stands in the way. `-` was not run.",
        "",
        "| tag | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    notes: dict[str, int] = {}
    for tag in tags:
        row = [_text(by.get((tag, name)), notes) for name in names]
        lines.append(f"| {tag} | " + " | ".join(row) + " |")
    lines += _samples(by, tags, names, notes)
    lines += ["", "## Notes", ""]
    lines += [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join(lines) + "\n"


def _text(cell: Cell | None, notes: dict[str, int]) -> str:
    if cell is None:
        return "-"
    said = []
    if not cell.done:
        said.append(f"stops at {cell.stage} ({cell.code}): {cell.error}")
    if short := lacks(cell):
        said.append(f"not at hand: {', '.join(short)}")
    for target, row in cell.modules.items():
        if row.get(NONE):
            said.append(
                f"{target}: {row[NONE]} units only for {', '.join(map(str, _list(row)))}: cannot load"
            )
    marks = "".join(f" [{notes.setdefault(note, len(notes) + 1)}]" for note in said)
    if not cell.done:
        return f"stops{marks}"
    return f"{cell.count} u, {cell.cpu_s / 60:.0f} min{marks}"


def _samples(
    by: Mapping[tuple[str, str], Cell], tags: Sequence[str], names: Sequence[str], notes: dict[str, int]
) -> list[str]:
    """The table of units that were really compiled."""
    lines = []
    for tag in tags:
        cells = {name: cell for name in names if (cell := by.get((tag, name))) and cell.compiled}
        for target in dict.fromkeys(target for cell in cells.values() for target in cell.compiled):
            row = [_sample(cells.get(name), target, notes) for name in names]
            lines.append(f"| {tag} | {target} | " + " | ".join(row) + " |")
    if not lines:
        return []
    return [
        "",
        "## One unit of each module, compiled",
        "",
        "Made by `./inv survey --compile`: of each module the unit that is expected to cost least, by its own command, "
        "without a compiler cache. A cell says CPU seconds and peak memory; `=` before it: the same unit (command, "
        "files, compilers, torch) was compiled for another pair, which survey.json names. `-` was not compiled, or "
        "CMake compiles nothing there.",
        "",
        "| tag | module | " + " | ".join(names) + " |",
        "|---" * (len(names) + 2) + "|",
        *lines,
    ]


def _sample(cell: Cell | None, target: str, notes: dict[str, int]) -> str:
    one = cell.compiled.get(target) if cell else None
    if cell is None or one is None:
        return "-"
    if not one.ok:
        note = f"{one.unit} does not compile: {one.error}"
        return f"fails [{notes.setdefault(note, len(notes) + 1)}]"
    same = "" if one.pair == f"{cell.tag} {cell.device}" else "= "
    return f"{same}{one.seconds:.0f} s, {one.gib:.1f} GiB"


def _list(row: dict[str, object]) -> list[object]:
    value = row.get("does not load", [])
    return list(value) if isinstance(value, list) else []


def show(cells: Sequence[Cell]) -> None:
    """Print the survey for people."""
    rows = [[cell.tag, cell.device, cell.stage, one_line(cell), ", ".join(lacks(cell))] for cell in cells]
    table("Survey", ["tag", "device", "came to", "", "not at hand"], rows)
    if stopped := sum(not cell.done for cell in cells):
        warn(f"{stopped} of {counted(len(cells), 'pair')} stop before the first unit")
