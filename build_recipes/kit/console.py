"""What people see. People's text goes to stderr, machines' JSON to stdout, colour only to a terminal.

`rich` does the terminal (it honours ``NO_COLOR`` and ``TERM=dumb``); it is imported on first use so that
``./inv --list`` stays fast. Whatever is printed goes through `visible`, because names, versions and logs come
from outside: none of them can steer the terminal (title, clipboard, colours, direction of writing).

The texts of this program write each next step as ``./inv ...``; what prints them puts the program that was
called in its place, so that the line can be typed where one stands.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_recipes.kit import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


def visible(text: str) -> str:
    """Text in which every character that is not seen is written as its escape: ``\\x1b``, ``\\u202e``.

    Those are the control characters (C0, C1), what sets the direction of writing, invisible format characters
    and halves of surrogate pairs. Line ends, tabs and spaces stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode()
        for char in text
    )


def one_line(text: str, most: int = 200) -> str:
    """A name from outside within a sentence: `visible`, on one line, and cut after ``most`` characters."""
    shown = visible(text).replace("\n", "\\n").replace("\t", "\\t")
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


PROGRAM = "VLLM_ARMORY_PROGRAM"
"""Variable in which ``./inv`` hands on how it was called, and a command to the commands that it starts."""
_COMMAND = re.compile(r"(?<![\w/.-])\./inv(?![\w/-])")


@dataclass
class Printed:
    """What this process has printed: documents for machines, and the last stage for people."""

    documents: int = 0
    step: str = ""


printed = Printed()


@functools.cache
def program() -> str:
    """The words that call this program again, as a shell reads them: ``./inv``, ``invoke``, ``armory``, a path."""
    if handed_on := os.environ.get(PROGRAM):
        return handed_on
    called = sys.argv[0]
    name = Path(called).name
    if name not in ("inv", "invoke", "armory"):
        return "./inv" if paths.CHECKOUT else "armory"
    if name != "armory" and os.environ.get("UV_RUN_RECURSION_DEPTH"):
        return f"uv run {name}"
    found = shutil.which(name)
    on_path = found and Path(called).exists() and Path(found).samefile(called)
    return name if on_path else shlex.quote(called)


def as_called(text: str) -> str:
    """``text`` with each ``./inv`` as the program that was called."""
    return _COMMAND.sub(lambda _: program(), text) if "./inv" in text else text


@functools.cache
def console() -> Console:
    """The console for people, on stderr. All text that it renders goes through `visible`."""
    from rich.console import Console
    from rich.segment import Segment

    class Visible(Console):
        def render(self, *words: Any, **options: Any) -> Iterator[Segment]:
            for segment in super().render(*words, **options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    return Visible(stderr=True, highlight=False, soft_wrap=True)


_PARTS = re.compile(r"[^/.,]+[/.,]*|[/.,]+")


def say(text: str = "", style: str | None = None) -> None:
    """Print one line for people. ``text`` is printed as it is: no markup is read from it."""
    console().print(as_called(text), style=style, markup=False)


def step(name: str, detail: str = "") -> None:
    """Announce a stage."""
    printed.step = name
    console().print(f"[bold cyan]{name:>10}[/]  ", end="")
    console().print(as_called(detail), markup=False)


def last_step() -> str:
    """The stage that was announced last; empty where there was none."""
    return printed.step


def warn(text: str) -> None:
    """Print a warning."""
    console().print("[bold yellow]   warning[/]  ", end="")
    console().print(as_called(text), markup=False)


def failure(message: str, advice: str) -> None:
    """Print why a command failed, and the next step."""
    console().print("[bold red]error[/] ", end="")
    console().print(as_called(message), markup=False)
    console().print("[bold]next[/]  ", end="")
    console().print(as_called(advice), markup=False)


def item(text: str) -> None:
    """Print a line below a heading: indented, and wrapped to the terminal's width."""
    for line in textwrap.wrap(
        as_called(text), max(40, console().width), initial_indent="  ", subsequent_indent="  "
    ):
        console().print(line, markup=False)


def paragraph(text: str, *, indent: str = "", style: str | None = None) -> None:
    """Print a text within the terminal's width, or 80 columns where there is none.

    A word that is longer, such as a path, goes on below from one of its slashes, dots or commas.
    """
    width = max(40, console().width)
    lines, fresh = [indent], True
    for word in as_called(text).split(" "):
        if not fresh and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
            continue
        if not fresh:
            lines.append(f"{indent}  ")
        fresh = True
        for part in [word] if len(lines[-1]) + len(word) <= width else _PARTS.findall(word):
            if not fresh and len(lines[-1]) + len(part) > width:
                lines.append(f"{indent}    ")
            lines[-1] += part
            fresh = False
    for line in lines:
        console().print(line, style=style, markup=False)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table for people on stderr."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(visible(as_called(cell))) for cell in row))
    console().print(drawn)


def emit_json(document: Any) -> None:
    """Print the one JSON document of a ``--json`` run on stdout."""
    text = json.dumps(document, indent=2, sort_keys=False, default=str)
    sys.stdout.write(_COMMAND.sub(lambda _: json.dumps(program())[1:-1], text) + "\n")
    printed.documents += 1


def size(octets: float) -> str:
    """A number of bytes as people read it: ``436 MB`` (powers of 1000, as disks and indexes count)."""
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000 or unit == "GB":
            return f"{octets:.0f} {unit}" if octets >= 10 or unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    raise AssertionError("unreachable")


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its word: ``1 unit``, ``2 units``.

    :param many: the plural, where it is not ``one`` with an s.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """Seconds as people read them: ``3 s``, ``12 min 05 s``, ``3 h 20 min``."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"
