"""The survey: how far each vLLM release comes on each device, without compiling it.

A cell is a tag and a device. It goes the way of a build (lock, fetch, patch, provision, configure) and stops before
the first unit: what is compiled then, for which targets, and whether the device loads them, is read from the graph.
Cells are kept as JSON in the build folder; one that came to the end is not made again unless its plan changed. All
cells share one tree, so sources and environment are made once where they are the same. Nothing is built on it, so
no evidence is kept of what CMake leaves.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from packaging.version import Version

from build_recipes.build import sampling
from build_recipes.build.modules import LEFT_OUT
from build_recipes.build.pipeline import patch_sources
from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages import configure as configuring
from build_recipes.build.stages.provision import provision
from build_recipes.build.stages.record import tree_lock
from build_recipes.build.stages.trees import fetch_sources
from build_recipes.build.units import estimate, surveyed
from build_recipes.build.units import graph as graphs
from build_recipes.facts import architectures, versions
from build_recipes.facts import device as devices
from build_recipes.kit import paths
from build_recipes.kit.console import counted, say, table, warn
from build_recipes.kit.data import parse_json, write_atomic
from build_recipes.kit.errors import ArmoryError
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import Kind, makeup

NATIVE, JIT, NONE = "native", "jit", "none"


LOG = re.compile(r" \(whole log: [^)]*\):?")
"""A place on the machine that ran it, which is not for docs/."""


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
    compiled: dict[str, str] = field(default_factory=dict)
    """Target to what became of the one unit of it that was compiled: empty where it compiles, else the error."""
    units: dict[str, list[str] | None] = field(default_factory=dict)
    """Target to its units, without its name; None where they are not known."""
    cpu_s: float = 0
    """CPU seconds that the known units are expected to take."""
    gib: float = 0
    """Peak memory of the heaviest unit, GiB."""
    seconds: float = 0
    """What the survey of the cell took."""


def asked(tags: str, names: str) -> tuple[list[str], list[str]]:
    """Comma separated tags and devices as lists; every tag with a lock, newest first, and every device with an Arm
    CPU where they are empty.

    :raises NotATag, UnknownTag, UnknownDevice: a word is none; the nearest is named.
    """
    chosen = [word for word in tags.split(",") if word] or sorted(
        (path.stem for path in paths.LOCKS.glob("v*.toml")), key=lambda tag: Version(tag[1:]), reverse=True
    )
    known = devices.devices()
    wanted = [word for word in names.split(",") if word] or [
        name for name, entry in known.items() if entry.machine == "aarch64"
    ]
    for word in chosen:
        versions.check_known(word)
    for word in wanted:
        devices.device(word)
    return chosen, wanted


def survey(
    tags: Sequence[str],
    names: Sequence[str],
    mirrors: Sequence[str],
    places: Places,
    *,
    offline: bool = False,
    sample: bool = False,
) -> list[Cell]:
    """Go through all pairs; those that were done before are read. A cell that stops does not stop the others.

    :param sample: compile one unit of each module, too (`sampling`).
    """
    found: list[Cell] = []
    tree = places.build / "survey/tree"
    for tag in tags:
        for name in names:
            kept = places.build / "survey/cells" / f"{tag}-{name}.json"
            request = Request(tag=tag, device=name, mirrors=tuple(mirrors), offline=offline, allow=("gcc",))
            cell = _cell(request, places, tree, kept, places.build / "survey/compiled" if sample else None)
            found.append(cell)
            say(f"{tag} {name}: {one_line(cell)}")
    remove_tree(tree)
    return found


def read_cells(places: Places) -> list[Cell]:
    """Every cell that was made, oldest tag first."""
    cells = [_read(path) for path in (places.build / "survey/cells").glob("*.json")]
    return in_order(cell for cell in cells if cell)


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Oldest tag first, devices as in devices.toml."""
    order = list(devices.devices())
    return sorted(cells, key=lambda cell: (Version(cell.tag[1:]), order.index(cell.device)))


def _published(docs: Path) -> list[Cell]:
    try:
        cells = [Cell(**row) for row in parse_json((docs / "survey.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
    arch = {name: device.arch_list for name, device in devices.devices().items()}
    for cell in cells:
        known = surveyed.units_of(cell.tag, arch[cell.device]) or {}
        cell.units = {target: None if units is None else list(units) for target, units in known.items()}
    return cells


def _read(path: Path) -> Cell | None:
    try:
        return Cell(**parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _cell(request: Request, places: Places, tree: Path, kept: Path, compiled: Path | None) -> Cell:
    cell, began = Cell(request.tag, request.device), time.monotonic()
    try:
        plan = dataclasses.replace(make_plan(request, places), tree=tree)
        cell.fingerprint = plan.fingerprint
        before = _read(kept)
        done = before is not None and before.fingerprint == plan.fingerprint and before.stage == "done"
        if before is not None and done and (before.compiled or not compiled):
            return before
        with tree_lock(tree):
            try:
                _walk(plan, cell, compiled)
            finally:
                cell.lacks = needed(plan, cell)
    except ArmoryError as error:
        cell.error, cell.code = str(error.args[0]).replace(f"{tree}/", ""), error.exit_code
    cell.seconds = round(time.monotonic() - began, 1)
    write_atomic(kept, json.dumps(asdict(cell), indent=1) + "\n")
    return cell


def _walk(plan: Plan, cell: Cell, compiled: Path | None) -> None:
    """The stages, each named in the cell before it begins."""
    cell.stage = "fetch"
    fetched = fetch_sources(plan, whatever=True)
    for name in fetched.missing:
        cell.missing[name] = ", ".join(plan.lock.tree(name).users)
    cell.stage = "patch"
    patch_sources(plan, fetched)
    cell.stage = "provision"
    made = provision(plan)
    cell.stage = "configure"
    environment = configuring.build_environment(plan, fetched, made)
    folder = plan.tree / "cmake"
    remove_tree(folder)
    remove_tree(plan.tree / "deps")
    configuring.run_cmake(plan, made, configuring.cmake_arguments(plan, fetched, made), environment)
    cell.stage = "units"
    found = read_units(plan, fetched, folder, made.python.parent / "ninja", cell)
    for target, commands in found.items() if compiled else ():
        one = sampling.try_one(
            commands, pair=f"{cell.tag} {cell.device}", torch=made.torch_version, folder=folder, env=environment,
            kept=compiled or folder,
        )  # fmt: skip
        if one:
            cell.compiled[target] = one.error
    cell.stage = "done"


def read_units(
    plan: Plan, fetched: Fetched, folder: Path, ninja: Path, cell: Cell
) -> dict[str, tuple[graphs.Command, ...]]:
    """What is compiled of each module, and what becomes of its targets on the device.

    :returns: target to its commands, of the modules whose sources are there.
    """
    found: dict[str, tuple[graphs.Command, ...]] = {}
    capability = architectures.number(plan.device.capability)
    for module in makeup(fetched.vllm).modules:
        if module.kind is Kind.RUST:  # cargo builds it, CMake compiles nothing of it
            cell.units[module.target], cell.modules[module.target] = [], {"kind": module.kind.value}
            continue
        gone = [tree for tree in module.trees if tree in fetched.missing]
        there = graphs.has_library(folder, module.target)
        if not there and graphs.commands(folder, ninja, module.target):
            cell.units[module.target] = (
                None  # its own commands compile: what they take is not to be read here
            )
            cell.modules[module.target] = {"kind": module.kind.value, "commands": True}
            continue
        if module.outside and not there and gone:
            cell.units[module.target] = None  # the tree that is missing would say what is compiled
            cell.modules[module.target] = {"kind": module.kind.value, "unknown": ", ".join(gone)}
            continue
        commands = graphs.read_graph(folder, ninja, [module.target]).commands if there else ()
        tally = Counter(fate(command, capability) for command in commands if command.cuda)
        row: dict[str, object] = {"kind": module.kind.value, "units": len(commands), **tally}
        if codes := sorted({code for command in commands if command.cuda for code in command.codes}):
            row["targets"] = codes
        if stray := sorted({target for command in commands if command.cuda
                            for target in strays(command, capability)}):  # fmt: skip
            row["does not load"] = stray
        if (
            gone and commands
        ):  # what a placeholder's own CMake would add to the commands is not to be seen in them
            row["missing"] = ", ".join(gone)
        else:
            found[module.target] = commands
        cell.modules[module.target] = row
        cell.units[module.target] = [command.unit.partition("/")[2] for command in commands]
    cell.cpu_s, cell.gib = (costed := _costed(cell)).cpu_s, costed.gib
    return found


def fate(command: graphs.Command, capability: int) -> str:
    """What a CUDA unit is on a device: ``native``, ``jit`` (a driver compiles its PTX), ``none``, or ``no target``."""
    if not command.targets:
        return "no target"
    if command.native(capability):
        return NATIVE
    return JIT if command.usable(capability) else NONE


def strays(command: graphs.Command, capability: int) -> list[str]:
    """The targets of a unit of which nothing runs on a device."""
    if fate(command, capability) != NONE:
        return []
    return [code for code in command.codes if code.startswith("sm_")]


# -- what is written -----------------------------------------------------------------------------


def one_line(cell: Cell) -> str:
    """A cell in a few words."""
    if cell.stage != "done":
        return f"stops at {cell.stage} ({cell.code}): {cell.error.splitlines()[0]}"
    count = sum(len(units or ()) for units in cell.units.values())
    text = f"{counted(count, 'unit')}, {cell.cpu_s / 60:.0f} CPU min"
    if unknown := [target for target, units in cell.units.items() if units is None]:
        text += f"; not known: {', '.join(unknown)}"
    if dead := [target for target, row in cell.modules.items() if row.get(NONE)]:
        text += f"; does not load: {', '.join(dead)}"
    if cell.compiled:
        text += f"; one unit each of {counted(len(cell.compiled), 'module')} compiled"
    if broken := [target for target, error in cell.compiled.items() if error]:
        text += f", not of {', '.join(broken)}"
    return text


def lacks(cell: Cell) -> list[str]:
    """Pins that were not at hand and that stopped it, or that something of the device's is compiled from."""
    pins = cell.lacks or _short(cell)  # cells that were made by an older version tell names only
    told = cell.error.lower() if cell.stage == "configure" else ""
    return [pin for pin in pins if pin.partition(" ")[0].lower() in told] or pins


def _short(cell: Cell) -> list[str]:
    targets = {target for target, row in cell.modules.items() if row.get("unknown") or row.get("missing")}
    return [
        name
        for name, users in cell.missing.items()
        if cell.stage != "done" or targets & set(users.split(", "))
    ]


def needed(plan: Plan, cell: Cell) -> list[str]:
    """The pins for `Cell.lacks`."""
    log, names = plan.tree / "logs/configure.log", _short(cell)
    if cell.stage == "configure" and log.is_file():
        said = log.read_text(encoding="utf-8", errors="replace")
        names = [name for name in names if f"/{name}{LEFT_OUT}" in said] or names
    pins = {name: plan.lock.tree(name).revision for name in names}
    return [f"{name} {pin[:12] if re.fullmatch('[0-9a-f]{40}', pin) else pin}" for name, pin in pins.items()]


def publish(cells: Sequence[Cell], asked: Sequence[tuple[str, str]], docs: Path) -> None:
    """Write docs/survey.json, docs/survey.md, and the table that estimates are made from.

    Cells that stand in docs/survey.json and were not made here stay: each machine adds what it ran.
    """
    made = {(cell.tag, cell.device) for cell in cells}
    ours = [_costed(replace(cell, error=LOG.sub("", cell.error.partition("\n")[0]))) for cell in cells]
    others = [_costed(cell) for cell in _published(docs) if (cell.tag, cell.device) not in made]
    shown = in_order([*ours, *others])
    plain = [{key: value for key, value in asdict(cell).items() if key != "units"} for cell in shown]
    write_atomic(docs / "survey.json", json.dumps(plain, indent=1) + "\n")
    write_atomic(docs / "survey.md", page(shown, asked))
    known: surveyed.Table = dict(surveyed.table())
    for cell in cells:
        if cell.stage == "done":
            arch = devices.device(cell.device).arch_list
            known[cell.tag] = {**known.get(cell.tag, {}), arch: cell.units}
    surveyed.write(known)


def _costed(cell: Cell) -> Cell:
    """The cell at the figures of costs.toml as they are now."""
    names = [f"{target}/{unit}" for target, units in cell.units.items() for unit in units or ()]
    made = estimate.of_units(names, {}, "")
    return replace(cell, cpu_s=round(made.cpu_s), gib=round(made.gib, 1)) if names else cell


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
    lines += ["", "## Notes", ""]
    lines += [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join(lines) + "\n"


def _text(cell: Cell | None, notes: dict[str, int]) -> str:
    if cell is None:
        return "-"
    said = []
    if cell.stage != "done":
        said.append(f"stops at {cell.stage} ({cell.code}): {cell.error}")
    if short := lacks(cell):
        said.append(f"not at hand: {', '.join(short)}")
    said += [
        f"{target}: a unit of it does not compile: {error}"
        for target, error in cell.compiled.items()
        if error
    ]
    for target, row in cell.modules.items():
        if row.get(NONE):
            said.append(
                f"{target}: {row[NONE]} units only for {', '.join(map(str, _list(row)))}: cannot load"
            )
    marks = "".join(f" [{notes.setdefault(note, len(notes) + 1)}]" for note in said)
    if cell.stage != "done":
        return f"stops{marks}"
    count = sum(len(units or ()) for units in cell.units.values())
    return f"{count} u, {cell.cpu_s / 60:.0f} min{marks}"


def _list(row: dict[str, object]) -> list[object]:
    value = row.get("does not load", [])
    return list(value) if isinstance(value, list) else []


def show(cells: Sequence[Cell]) -> None:
    """Print the survey for people."""
    rows = [[cell.tag, cell.device, cell.stage, one_line(cell), ", ".join(lacks(cell))] for cell in cells]
    table("Survey", ["tag", "device", "came to", "", "not at hand"], rows)
    if stopped := sum(cell.stage != "done" for cell in cells):
        warn(f"{stopped} of {counted(len(cells), 'pair')} stop before the first unit")
