"""The ninja graph: which units there are, whether each names its architecture, and the order they start in."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build.units.costs import Cost, expected, unit_name
from build_recipes.facts import architectures
from build_recipes.kit import process
from build_recipes.kit.console import counted, warn
from build_recipes.kit.data import parse_json, write_atomic
from build_recipes.kit.errors import UngatedUnits, UnloadableUnits


@dataclass(frozen=True)
class Command:
    """One compile command of the graph."""

    unit: str
    """`costs.unit_name` of the object."""
    output: str
    """Object path as ninja writes it."""
    command: str
    cuda: bool

    @property
    def gencodes(self) -> tuple[str, ...]:
        """The architectures of its ``-gencode`` options, ``arch=compute_110,code=sm_110``."""
        return tuple(re.findall(r"-gencode[= ](?:\")?(arch=[^ \"]+)", self.command))

    @property
    def codes(self) -> tuple[str, ...]:
        """What device code it is to hold: ``sm_110f``, ``compute_80``."""
        return tuple(
            code
            for gencode in self.gencodes
            for code in re.findall(r"\b(?:sm|compute)_\d+[af]?", gencode.partition("code=")[2])
        )

    @property
    def targets(self) -> tuple[tuple[str, int, str], ...]:
        """`codes` as kind (``sm`` or ``compute``), number and suffix."""
        matches = (re.fullmatch(r"(sm|compute)_(\d+)([af]?)", code) for code in self.codes)
        return tuple((match[1], int(match[2]), match[3]) for match in matches if match)

    def native(self, capability: int) -> bool:
        """Whether it holds machine code that a GPU of a capability loads."""
        return any(
            architectures.loads(n, suffix, capability) for kind, n, suffix in self.targets if kind == "sm"
        )

    def usable(self, capability: int) -> bool:
        """Whether a GPU of a capability loads it, or its driver compiles it."""
        return self.native(capability) or any(
            architectures.compiles(n, suffix, capability)
            for kind, n, suffix in self.targets
            if kind == "compute"
        )


@dataclass(frozen=True)
class Graph:
    """The compile units of a configured tree."""

    folder: Path
    """CMake's build folder."""
    ninja: Path
    targets: tuple[str, ...]
    commands: tuple[Command, ...]

    @property
    def cuda_units(self) -> tuple[Command, ...]:
        """The units nvcc compiles."""
        return tuple(command for command in self.commands if command.cuda)

    def heaviest(self, history: dict[str, Cost]) -> tuple[str, Cost]:
        """The unit with the highest expected memory."""
        costs = {command.unit: expected(command.unit, history) for command in self.commands}
        return max(costs.items(), key=lambda item: item[1].gib)

    def seconds(self, history: dict[str, Cost]) -> float:
        """Expected CPU seconds of all units."""
        return sum(expected(command.unit, history).seconds for command in self.commands)


def read_graph(folder: Path, ninja: Path, targets: Sequence[str]) -> Graph:
    """Read the compile commands that the targets need."""
    text = process.capture([ninja, "-t", "commands", *targets], cwd=folder) if targets else ""
    commands: dict[str, Command] = {}
    for line in text.splitlines():
        match = re.search(r" -o (\S+\.o)\b", line)
        if match and " -c " in line:
            output = match.group(1)
            commands[output] = Command(unit_name(output), output, line, " -x cu " in line)
    return Graph(folder, ninja, tuple(targets), tuple(commands.values()))


def check_gencode(graph: Graph, host_code: Sequence[str] = ()) -> None:
    """Refuse CUDA units that name no architecture.

    :param host_code: fnmatch patterns of units that hold no kernel, so that the default does no harm.

    nvcc would compile them for its default (sm_75 in CUDA 13.0), which no device here can load: at vLLM
    v0.12.0 that was 222 FlashAttention 3 units of a Thor build.

    :raises UngatedUnits: with their number and modules.
    """
    ungated = [
        command
        for command in graph.cuda_units
        if not command.gencodes and not any(fnmatch.fnmatchcase(command.unit, one) for one in host_code)
    ]
    if ungated:
        modules = sorted({command.unit.split("/")[0] for command in ungated})
        raise UngatedUnits(
            f"{len(ungated)} CUDA units of {', '.join(modules)} have no -gencode: nvcc would compile them for its "
            f"default architecture, which the device cannot load. First: {ungated[0].unit}",
            "leave the module out: --without " + ",".join(modules),
        )


def check_targets(graph: Graph, capability: int) -> None:
    """Refuse CUDA units that hold nothing the device can use, before any of them is compiled.

    :param capability: of the device's GPU, 110 for 11.0.
    :raises UnloadableUnits: with their number, modules and what they would be compiled to.
    """
    useless = [unit for unit in graph.cuda_units if unit.targets and not unit.usable(capability)]
    if useless:
        modules = sorted({unit.unit.split("/")[0] for unit in useless})
        codes = sorted({code for unit in useless for code in unit.codes})
        raise UnloadableUnits(
            f"{len(useless)} CUDA units of {', '.join(modules)} would be compiled to {', '.join(codes)}, which a GPU "
            f"of capability {capability // 10}.{capability % 10} cannot load. First: {useless[0].unit}",
            "leave the module out, which makes the wheel a partial one: --without "
            + ",".join(modules)
            + "; or add a patch for its list of architectures (docs/add-a-patch.md)",
        )


def compare(path: Path, targets: Sequence[str], units: Sequence[str]) -> None:
    """Say which units went away since the last configure of the same targets; nothing goes in silence.

    :param path: where the units of the last one stand; written again.
    """
    try:
        before = parse_json(path.read_text(encoding="utf-8"))
        known = [str(unit) for unit in before["units"]] if before["targets"] == list(targets) else []
    except (OSError, ValueError, KeyError, TypeError):
        known = []
    if gone := sorted(set(known) - set(units)):
        warn(
            f"{counted(len(units), 'unit')} now, {len(known)} at the last configure of this tree; gone: "
            f"{', '.join(gone[:3])}" + (f" and {len(gone) - 3} more" if gone[3:] else "")
        )
    write_atomic(path, json.dumps({"targets": list(targets), "units": sorted(units)}, indent=0))


def pending(graph: Graph) -> list[str]:
    """Units that ninja would compile now, by name."""
    text = (
        process.capture([graph.ninja, "-n", "-v", *graph.targets], cwd=graph.folder) if graph.targets else ""
    )
    found = []
    for line in text.splitlines():
        match = re.search(r" -o (\S+\.o)\b", line)
        if match and " -c " in line:
            found.append(unit_name(match.group(1)))
    return found


def order_by_cost(folder: Path, history: dict[str, Cost]) -> None:
    """Rewrite ``build.ninja`` so that the longest units come first.

    Ninja starts edges of equal depth in file order. Only the order of the object statements changes: no command
    does, so nothing that is built becomes out of date.
    """
    path = folder / "build.ninja"
    blocks = re.split(r"(?<=\n)\n+", path.read_text(encoding="utf-8"))
    places = [
        index for index, block in enumerate(blocks) if re.search(r"^build \S+\.o: ", block, re.MULTILINE)
    ]

    def cost(index: int) -> float:
        match = re.search(r"^build (\S+\.o): ", blocks[index], re.MULTILINE)
        return -expected(unit_name(match.group(1)), history).seconds if match else 0.0

    ordered = [blocks[index] for index in sorted(places, key=cost)]
    for place, block in zip(places, ordered, strict=True):
        blocks[place] = block
    write_atomic(path, "\n".join(block if block.endswith("\n") else block + "\n" for block in blocks))


def link(folder: Path, ninja: Path, target: str) -> str:
    """The command that links a module; empty where there is none."""
    lines = commands(folder, ninja, target).splitlines()
    return next((line for line in reversed(lines) if " -shared " in line), "")


def commands(folder: Path, ninja: Path, target: str) -> str:
    """Every command that making a target takes, a line each; empty where the graph has no such target."""
    text = (folder / "build.ninja").read_text(encoding="utf-8")
    if re.search(rf"^build {re.escape(target)}: ", text, re.MULTILINE) is None:
        return ""  # an external tree that is left out would define it
    return process.capture([ninja, "-t", "commands", target], cwd=folder).strip()


COMPILER = re.compile(r"(?:nvcc|(?:[\w.]+-)*(?:g\+\+|gcc|c\+\+|cc)(?:-\d+)?)$")
"""Name of a compiler's program, with a CPU before it or a version behind it."""


def plain(command: str) -> list[str]:
    """A compile command of the graph without launchers and compiler cache.

    :raises ValueError: it calls no compiler.
    """
    words = shlex.split(command)
    for index, word in enumerate(words):
        if COMPILER.match(Path(word).name):
            return words[index:]
    raise ValueError(f"no compiler in {command[:200]}")


def has_library(folder: Path, target: str) -> bool:
    """Whether a target links a module (upstream leaves empty targets where there is no code for a device)."""
    text = (folder / "build.ninja").read_text(encoding="utf-8")
    return re.search(rf"^build (\S*/)?{re.escape(target)}(\.\S+)?\.so: ", text, re.MULTILINE) is not None
