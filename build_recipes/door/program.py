"""The program `armory`: Invoke with the commands of this project. `./inv` and `invoke` here are the same commands."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program
from invoke.tasks import Task

from build_recipes.door import building, complete, delivering, help, machine, nights, project, sources, wheels
from build_recipes.kit import console, paths
from build_recipes.kit.ourselves import version

MODULES = (building, delivering, wheels, machine, sources, nights, *((project,) if paths.CHECKOUT else ()))
"""The modules whose commands are here: an installed program has no tests to run."""


def tasks_of(module: ModuleType) -> list[Task[Any]]:
    """The tasks of a module, in its order."""
    return [value for value in vars(module).values() if isinstance(value, Task)]


namespace = Collection(*(task for module in MODULES for task in tasks_of(module)))
HELP = ("--help", "-h")


class Armory(Program):
    """Invoke's program: a bare call lists the commands, and a mistyped one is told what is near."""

    def no_tasks_given(self) -> None:
        """List the commands, in 80 columns or what the terminal has."""
        self.print_help()
        raise Exit

    def print_help(self) -> None:
        """The commands in groups; Invoke's own options are of no use here."""
        sys.stdout.write(help.overview(namespace.tasks))

    def print_task_help(self, name: str) -> None:
        """What a command does, and its options."""
        sys.stdout.write(help.of_command(name, namespace[name], self.parser.contexts[name]))

    def print_version(self) -> None:
        """Tell the version, which is asked of git only now."""
        sys.stdout.write(f"{self.name} {version()}\n")

    def normalize_argv(self, argv: list[str] | None) -> None:
        """`COMMAND ... --help` is `--help COMMAND`, also where a command would take the word for a file's name."""
        super().normalize_argv(argv)
        words = self.argv[1:]
        named = next((word for word in words if word in namespace.task_names), "")
        if named and any(word in HELP for word in words[words.index(named) :]):
            self.argv = [*self.argv[:1], "--help", named]

    def parse_tasks(self) -> None:
        """Parse the commands and their options; what is wrong ends with 2 and a next step."""
        self._parse(super().parse_tasks)
        words = [
            value
            for context in self.tasks
            for one in context.args.values()
            if one.positional and isinstance(value := one.value, str) and value[:1] == "-" and value != "-"
        ]
        if words:
            self._refuse(f"No idea what '{words[0]}' is!")

    def parse_core_args(self) -> None:
        """Parse the options before the commands; what is wrong ends as in `parse_tasks`."""
        self._parse(super().parse_core_args)
        if self.args.dry.value and not self.args.complete.value:
            self._refuse("No idea what '--dry' is!")  # Invoke's own stops nothing here

    def parse_cleanup(self) -> None:
        """Show what was asked for in place of a command: help, lists, words for a shell."""
        if self.args.complete.value:
            words = complete.candidates(self.core.remainder, self._contexts())
            sys.stdout.write("".join(f"{word}\n" for word in words))
            raise Exit
        self._parse(super().parse_cleanup)

    def parse_core(self, argv: list[str] | None) -> None:
        """Parse the options before the commands."""
        words = " ".join(sys.argv if argv is None else argv)
        if asked := re.search(r" --print-completion-script[ =](bash|zsh|fish)$", words):
            sys.stdout.write(complete.SCRIPTS[asked.group(1)])
            raise Exit
        super().parse_core(argv)

    def _contexts(self) -> dict[str, ParserContext]:
        """The commands and their options."""
        found = namespace.to_contexts(ignore_unknown_help=True)
        return {context.name: context for context in found if context.name}

    def _make_parser(self) -> Any:
        """Invoke's parser, in which an option that takes a number says so in one line where it gets none."""
        from build_recipes.door.mistakes import number

        parser = super()._make_parser()
        for context in parser.contexts.values():
            for one in context.args.values():
                if one.kind is int:
                    one.kind = number(one.names[0])
        return parser

    def _parse(self, step: Callable[[], None]) -> None:
        from build_recipes.door.frame import door

        with door("--json" in self.argv):
            try:
                step()
            except ParseError as error:
                self._refuse(str(error))

    def _refuse(self, said: str) -> NoReturn:
        from build_recipes.door.frame import door
        from build_recipes.door.mistakes import explained

        words = self.argv[1:]
        with door("--json" in words):
            raise explained(said, words, self._contexts())
        raise AssertionError("unreachable")


program = Armory(name="armory", namespace=namespace, binary=console.program())


def main() -> None:
    """Run what was typed."""
    # Invoke switches bytecode files off, so that every start would compile some 360 modules again
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    console.program()  # before PATH has this program's own tools first: cmake, ninja and uv of its environment
    own = str(Path(sys.prefix) / "bin")
    os.environ["PATH"] = f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    program.run()
