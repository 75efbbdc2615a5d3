"""What a bare call and ``--help COMMAND`` show, in the terminal's width."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.tasks import Task

from build_recipes.kit import console
from build_recipes.kit.ourselves import version

GROUPS: dict[str, tuple[str, ...]] = {
    "Before a build": ("doctor", "advise", "verify-omni", "verify", "devices", "patches", "plan"),
    "Build a wheel": ("build", "specialise", "clean"),
    "When something fails": ("diagnose", "repro", "canary"),
    "Look into a wheel": ("audit", "qualify", "rebuild", "retag", "index"),
    "Bring it to a machine": ("companions", "install", "deliver", "image"),
    "Sources": ("lock", "mirror", "tree", "env", "survey", "adopt", "propose"),
    "Every night": ("matrix", "nightly", "page", "gather", "release", "merge-cache"),
    "This project": ("test", "check"),
}
"""The commands in the order in which people need them. One that is in no group is listed at the end."""


def width() -> int:
    """Columns to write in: the terminal's, at most 100."""
    return min(shutil.get_terminal_size().columns, 100)


def grouped(tasks: Mapping[str, Task[Any]]) -> Iterator[tuple[str, list[str]]]:
    """Each heading with the commands below it that are here."""
    for title, names in GROUPS.items():
        if here := [name for name in names if name in tasks]:
            yield title, here
    known = {name for names in GROUPS.values() for name in names}
    if rest := [name for name in tasks if name not in known]:
        yield "More", rest


def overview(tasks: Mapping[str, Task[Any]]) -> str:
    """All commands under their headings, with what they do."""
    columns = width()
    about = "vLLM wheels from source for NVIDIA Arm machines with CUDA 13, and proof of what was built"
    lines = [*textwrap.wrap(f"vllm-armory {version()}: {about}", columns), ""]
    for title, names in grouped(tasks):
        lines.append(title)
        for name in names:
            said = _in_short((tasks[name].__doc__ or "").partition("\n")[0].strip(), columns - 15)
            lines += textwrap.wrap(
                f"  {name:<13}{said}", columns, subsequent_indent=" " * 15, break_on_hyphens=False
            )
        lines.append("")
    program = console.program()
    lines += [
        f"All options of one:      {program} build --help",
        f"A first try, in minutes: {program} build --tag v0.12.0 --smoke",
        f"Completion of words:     source <({program} --print-completion-script bash)",
        "",
    ]
    return "\n".join(lines)


def _in_short(said: str, most: int) -> str:
    """A sentence as far as its first colon, bracket or stop, where it is too long for a line."""
    if len(said) <= most:
        return said
    return f"{re.split(r'[:;.] | [(]|, and ', said)[0].rstrip('.')}."


def of_command(name: str, task: Task[Any], context: ParserContext) -> str:
    """What one command does, and its options in the order in which they are written."""
    columns = width()
    places = "".join(f" {one.names[0].upper()}" for one in context.positional_args)
    lines = [f"Usage: {console.program()} {name}{places} [options]", ""]
    for paragraph in inspect.cleandoc(task.__doc__ or "").split("\n\n"):
        lines += [*textwrap.wrap(console.as_called(" ".join(paragraph.split())), columns), ""]
    rows = [_row(one) for one in context.args.values()]
    if rows:
        lines.append("Options:")
    for word, said in rows:
        begin = f"  {word:<24}"
        if len(word) > 22:
            lines.append(f"  {word}")
            begin = " " * 26
        lines += textwrap.wrap(
            f"{begin}{said}", columns, subsequent_indent=" " * 26, break_on_hyphens=False
        ) or [begin.rstrip()]
    return "\n".join([*lines, ""])


def _row(one: Argument) -> tuple[str, str]:
    word = one.names[0]
    said = console.as_called(one.help or "")
    if one.positional:
        return word.upper(), said
    if one.takes_value:
        word += f" {'N' if isinstance(one.default, int) else word.rpartition('-')[2].upper()}"
    if one.takes_value and one.default and "default:" not in said and isinstance(one.default, (str, int)):
        said += f" (default: {one.default})"
    return f"--{word}", said
