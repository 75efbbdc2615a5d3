"""The walk of the survey: from the lock to a configured tree, without compiling it.

A cell is a tag and a device. It goes the way of a build (lock, fetch, patch, provision, configure) and stops before
the first unit: what is compiled then, for which targets, and whether the device loads them, is read from the graph.
Cells are kept as JSON in the build folder; one that came to the end is not made again unless its plan changed. All
cells share one tree, so sources and environment are made once where they are the same. Nothing is built on it, so
no evidence is kept of what CMake leaves.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

from build_recipes.build.modules import LEFT_OUT
from build_recipes.build.pipeline import patch_sources
from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages import configure as configuring
from build_recipes.build.stages.given import host_compiler
from build_recipes.build.stages.provision import provision
from build_recipes.build.stages.record import tree_lock
from build_recipes.build.stages.trees import fetch_sources
from build_recipes.build.survey import sampling
from build_recipes.build.survey.cells import (
    JIT,
    NATIVE,
    NONE,
    Cell,
    costed,
    in_order,
    keep,
    one_line,
    read,
    short,
)
from build_recipes.build.units import graph as graphs
from build_recipes.facts import architectures, versions
from build_recipes.facts import device as devices
from build_recipes.kit import paths
from build_recipes.kit.console import say
from build_recipes.kit.errors import ArmoryError
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import Kind, makeup


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


@dataclasses.dataclass(frozen=True)
class Survey:
    """What every cell of a survey has in common."""

    places: Places
    mirrors: tuple[str, ...] = ()
    """``URL=DIR``."""
    offline: bool = False
    sample: bool = False
    """Compile one unit of each module, too (`sampling`)."""
    deadline: float = float("inf")
    """`time.monotonic` value past which no cell, and no unit that would not end, is begun."""

    @property
    def tree(self) -> Path:
        """The build tree of all cells."""
        return self.places.build / "survey/tree"

    def kept(self, tag: str, name: str) -> Path:
        """Where a cell is kept."""
        return self.places.build / "survey/cells" / f"{tag}-{name}.json"


def walk(tags: Sequence[str], names: Sequence[str], how: Survey) -> list[Cell]:
    """Go through all pairs; those that were done before are read. A cell that stops does not stop the others.

    :returns: fewer than there are pairs where the time was over.
    """
    found: list[Cell] = []
    for tag in tags:
        for name in names:
            if time.monotonic() >= how.deadline:
                break
            cell = _cell(tag, name, how)
            found.append(cell)
            say(f"{tag} {name}: {one_line(cell)}")
    remove_tree(how.tree)
    return found


def read_cells(places: Places) -> list[Cell]:
    """Every cell that was made, oldest tag first."""
    return in_order(filter(None, map(read, (places.build / "survey/cells").glob("*.json"))))


def _cell(tag: str, name: str, how: Survey) -> Cell:
    cell, began, kept = Cell(tag, name), time.monotonic(), how.kept(tag, name)
    request = Request(tag=tag, device=name, mirrors=how.mirrors, offline=how.offline, allow=("gcc",))
    try:
        plan = dataclasses.replace(make_plan(request, how.places), tree=how.tree)
        cell.fingerprint = plan.fingerprint
        before = read(kept)
        if (
            before
            and before.done
            and before.fingerprint == plan.fingerprint
            and not (how.sample and before.untried)
        ):
            return before
        with tree_lock(how.tree):
            try:
                _walk(plan, cell, how)
            finally:
                cell.lacks = needed(plan, cell)
    except ArmoryError as error:
        cell.error, cell.code = str(error.args[0]).replace(f"{how.tree}/", ""), error.exit_code
    cell.seconds = round(time.monotonic() - began, 1)
    keep(cell, kept)
    return cell


def _walk(plan: Plan, cell: Cell, how: Survey) -> None:
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
    if how.sample:
        compiler = host_compiler(plan)
        bench = sampling.Bench(
            pair=f"{cell.tag} {cell.device}",
            folder=folder,
            env=environment,
            compilers=f"nvcc {made.cuda_version}, {compiler}, torch {made.torch_version}",
            kept=how.places.build / "survey/compiled",
            deadline=how.deadline,
            jobs=max(1, min(plan.jobs, int(plan.host.memory_gib // 8))),
        )
        cell.compiled = sampling.try_all(found, bench)
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
    cell.cpu_s, cell.gib = (known := costed(cell)).cpu_s, known.gib
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


def needed(plan: Plan, cell: Cell) -> list[str]:
    """The pins for `Cell.lacks`."""
    log, names = plan.tree / "logs/configure.log", short(cell)
    if cell.stage == "configure" and log.is_file():
        said = log.read_text(encoding="utf-8", errors="replace")
        names = [name for name in names if f"/{name}{LEFT_OUT}" in said] or names
    pins = {name: plan.lock.tree(name).revision for name in names}
    return [f"{name} {pin[:12] if re.fullmatch('[0-9a-f]{40}', pin) else pin}" for name, pin in pins.items()]
