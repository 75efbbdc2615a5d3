"""The program `armory`: Invoke with the commands of this project. `./inv` and `invoke` here are the same commands."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.program import Program
from invoke.tasks import Task

from build_recipes.door import building, delivering, machine, nights, project, sources, wheels
from build_recipes.kit import console, paths
from build_recipes.kit.ourselves import version

GROUPS: dict[str, ModuleType] = {
    "Build a wheel": building,
    "Bring it to a machine": delivering,
    "Look into wheels, serve them": wheels,
    "This machine, and failures": machine,
    "Sources": sources,
    "Every night": nights,
    "This project": project,
}
"""Heading to the module whose tasks are listed under it."""


def tasks_of(module: ModuleType) -> list[Task[Any]]:
    """The tasks of a module, in its order."""
    return [value for value in vars(module).values() if isinstance(value, Task)]


def shown() -> dict[str, ModuleType]:
    """The groups that are here: an installed program has no tests to run."""
    return {title: module for title, module in GROUPS.items() if paths.CHECKOUT or module is not project}


namespace = Collection(*(task for module in shown().values() for task in tasks_of(module)))


class Armory(Program):
    """Invoke's program: a bare call lists the commands, and a mistyped one is told what is near."""

    def no_tasks_given(self) -> None:
        """List the commands, in 80 columns or what the terminal has."""
        sys.stdout.write(overview())
        raise Exit

    def print_version(self) -> None:
        """Tell the version, which is asked of git only now."""
        sys.stdout.write(f"{self.name} {version()}\n")

    def parse_tasks(self) -> None:
        """Parse the commands and their options; what is wrong ends with 2 and a next step."""
        try:
            super().parse_tasks()
        except ParseError as error:
            self._refuse(error)

    def parse_core_args(self) -> None:
        """Parse the options before the commands; what is wrong ends as in `parse_tasks`."""
        try:
            super().parse_core_args()
        except ParseError as error:
            self._refuse(error)

    def _refuse(self, error: ParseError) -> None:
        from build_recipes.door.frame import door
        from build_recipes.kit.errors import UsageError

        words = self.argv[1:]
        named = next((word for word in words if word in namespace.task_names), "")
        near = difflib.get_close_matches(
            next((word for word in words if word[:1] != "-"), ""), namespace.task_names
        )
        advice = f"./inv --help {named}" if named else f"./inv {near[0]}" if near else "./inv --list"
        said = re.sub(r"^No idea what (.*) is!$", r"there is no command or option \1", str(error))
        with door("--json" in words):
            raise UsageError(said, advice)


def overview() -> str:
    """All commands under their headings, with what they do."""
    width = min(shutil.get_terminal_size().columns, 100)
    about = "vLLM wheels from source for NVIDIA Arm machines with CUDA 13, and proof of what was built"
    lines = [*textwrap.wrap(f"vllm-armory {version()}: {about}", width), ""]
    for title, module in shown().items():
        lines.append(title)
        for task in tasks_of(module):
            name = task.name.replace("_", "-")
            said = (task.__doc__ or "").partition("\n")[0].strip()
            lines += textwrap.wrap(f"  {name:<13}{said}", width, subsequent_indent=" " * 15)
        lines.append("")
    start = f"{console.program()} build --tag v0.12.0 --smoke"
    lines += [
        f"All options of one: {console.program()} --help build",
        f"A first try, in minutes: {start}",
        "",
    ]
    return "\n".join(lines)


program = Armory(name="armory", namespace=namespace, binary=console.program())


def main() -> None:
    """Run what was typed."""
    # Invoke switches bytecode files off, so that every start would compile some 360 modules again
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    console.program()  # before PATH has this program's own tools first: cmake, ninja and uv of its environment
    own = str(Path(sys.prefix) / "bin")
    os.environ["PATH"] = f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    program.run()
