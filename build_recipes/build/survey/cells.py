"""A cell of the survey: a release on a device, how far it came, and what is compiled there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec
from packaging.version import Version

from build_recipes.build.survey.sampling import Sample
from build_recipes.build.units import estimate
from build_recipes.facts import device as devices
from build_recipes.kit.console import counted
from build_recipes.kit.data import parse_json, write_atomic

NATIVE, JIT, NONE = "native", "jit", "none"


@dataclass
class Cell:
    """One tag on one device."""

    tag: str
    device: str
    fingerprint: str = ""
    """Of the plan: a cell with another one is made again."""
    stage: str = "plan"
    """The stage that stopped it, or ``done``."""
    error: str = ""
    """What stopped it."""
    code: int = 0
    """Exit code of `error`."""
    missing: dict[str, str] = field(default_factory=dict)
    """External trees that were not at hand, and the modules made from them."""
    lacks: list[str] = field(default_factory=list)
    """Of these the pins that stopped it, or that something of the device's is compiled from: ``cutlass v4.7.1``."""
    modules: dict[str, dict[str, object]] = field(default_factory=dict)
    """Target: kind, units, and how many of its CUDA units load, are compiled by a driver, or do neither."""
    compiled: dict[str, Sample] = field(default_factory=dict)
    """Target to the one unit of it that was compiled, here or for another cell that has the same."""
    units: dict[str, list[str] | None] = field(default_factory=dict)
    """Target to its units, without its name; None where they are not known."""
    cpu_s: float = 0
    """CPU seconds that the known units are expected to take."""
    gib: float = 0
    """Peak memory of the heaviest unit, GiB."""
    seconds: float = 0
    """What the survey of the cell took."""

    @property
    def done(self) -> bool:
        """Whether it came to a configured tree."""
        return self.stage == "done"

    @property
    def count(self) -> int:
        """Units that are compiled, as far as they are known."""
        return sum(len(units or ()) for units in self.units.values())

    @property
    def untried(self) -> list[str]:
        """Targets that have units of which none was compiled."""
        found = (target for target, row in self.modules.items() if row.get("units") and "missing" not in row)
        return [target for target in found if target not in self.compiled]


def of_row(row: object) -> Cell:
    """A cell from plain data, less what this version does not know.

    :raises ValueError: it names no tag or device, or is of another shape.
    """
    if isinstance(row, dict) and isinstance(
        row.get("compiled"), dict
    ):  # an older version kept the error alone
        row = {**row, "compiled": {key: one for key, one in row["compiled"].items() if isinstance(one, dict)}}
    cell = msgspec.convert(row, Cell)
    Version(cell.tag[1:])
    if cell.device not in devices.devices():
        raise ValueError(f"there is no device {cell.device}")
    return cell


def read(path: Path) -> Cell | None:
    """A cell that is kept; None where it is torn or not there."""
    try:
        return of_row(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def keep(cell: Cell, path: Path) -> None:
    """Keep a cell."""
    write_atomic(path, json.dumps(asdict(cell), indent=1) + "\n")


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Oldest tag first, devices as in devices.toml."""
    order = list(devices.devices())
    return sorted(cells, key=lambda cell: (Version(cell.tag[1:]), order.index(cell.device)))


def costed(cell: Cell) -> Cell:
    """The cell at the figures of costs.toml as they are now."""
    names = [f"{target}/{unit}" for target, units in cell.units.items() for unit in units or ()]
    made = estimate.of_units(names, {}, "")
    return replace(cell, cpu_s=round(made.cpu_s), gib=round(made.gib, 1)) if names else cell


def one_line(cell: Cell) -> str:
    """A cell in a few words."""
    if not cell.done:
        return f"stops at {cell.stage} ({cell.code}): {cell.error.partition(chr(10))[0]}"
    text = f"{counted(cell.count, 'unit')}, {cell.cpu_s / 60:.0f} CPU min"
    if unknown := [target for target, units in cell.units.items() if units is None]:
        text += f"; not known: {', '.join(unknown)}"
    if dead := [target for target, row in cell.modules.items() if row.get(NONE)]:
        text += f"; does not load: {', '.join(dead)}"
    if cell.compiled:
        text += f"; one unit each of {counted(len(cell.compiled), 'module')} compiled"
    if broken := [target for target, one in cell.compiled.items() if not one.ok]:
        text += f", not of {', '.join(broken)}"
    return text


def lacks(cell: Cell) -> list[str]:
    """Pins that were not at hand and that stopped it, or that something of the device's is compiled from."""
    pins = cell.lacks or short(cell)  # cells that were made by an older version tell names only
    told = cell.error.lower() if cell.stage == "configure" else ""
    return [pin for pin in pins if pin.partition(" ")[0].lower() in told] or pins


def short(cell: Cell) -> list[str]:
    """Trees that were not at hand and that stopped it, or that something of the device's is compiled from."""
    targets = {target for target, row in cell.modules.items() if row.get("unknown") or row.get("missing")}
    return [name for name, users in cell.missing.items() if not cell.done or targets & set(users.split(", "))]
