"""Repro: one compile unit of a configured tree, alone, with all its output."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

from build_recipes.build.plan import Plan
from build_recipes.build.stages import record
from build_recipes.build.units.graph import plain, read_graph
from build_recipes.kit import process
from build_recipes.kit.console import say
from build_recipes.kit.errors import ConfigureFailed, UsageError


def repro(plan: Plan, unit: str) -> int:
    """Run one unit's command without the compiler cache. Returns the compiler's exit code.

    :raises ConfigureFailed: the tree was never configured.
    :raises UsageError: no such unit; the nearest are named.
    """
    folder = plan.tree / "cmake"
    made = record.read(plan.tree, "provision")
    if made is None or not (folder / "build.ninja").exists():
        raise ConfigureFailed(f"{plan.tree} is not configured yet", f"./inv build {plan.words}")
    ninja = Path(made.outputs["python"]).parent / "ninja"
    commands = {command.unit: command for command in read_graph(folder, ninja, ["all"]).commands}
    if unit not in commands:
        near = difflib.get_close_matches(unit, commands, n=3, cutoff=0.3)
        raise UsageError(f"no unit is called '{unit}'", f"the nearest: {', '.join(near) or 'none'}")
    words = plain(commands[unit].command)
    say(shlex.join(words))
    environment = {
        **process.child_environment(*process.COMPILER_LEAKS),
        **plan.environment(Path(made.outputs["cuda_home"]), ninja.parent / "python", {}),
    }
    return process.passed_through(words, cwd=folder, env=environment)
