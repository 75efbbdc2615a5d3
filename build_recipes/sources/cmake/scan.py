"""A reader of CMake's language: text to commands, arguments as they are written.

Grammar: https://cmake.org/cmake/help/latest/manual/cmake-language.7.html. Quoted, unquoted and bracket
arguments, line and bracket comments, nested parentheses (conditions). Nothing is evaluated here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Read = Callable[[str], "str | None"]
"""Text of a file of a tree by its relative path; None where there is none."""

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r]+)
  | (?P<newline>\n)
  | (?P<bracket_comment>\#\[(?P<ceq>=*)\[.*?\](?P=ceq)\])
  | (?P<comment>\#[^\n]*)
  | (?P<bracket>\[(?P<eq>=*)\[(?P<body>.*?)\](?P=eq)\])
  | "(?P<quoted>(?:[^"\\]|\\.)*)"
  | (?P<open>\()
  | (?P<close>\))
  | (?P<word>(?:[^\s()"\#\\]|\\.|(?<=[^\s(])"(?:[^"\\]|\\.)*")+)
    """,
    re.VERBOSE | re.DOTALL,
)

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "\n": ""}


class CMakeSyntaxError(ValueError):
    """The text is no CMake."""


@dataclass(frozen=True)
class Argument:
    """One argument of a command."""

    text: str
    quoted: bool = False
    """In quotes or brackets: never split at semicolons, never a keyword."""
    literal: bool = False
    """In brackets: no variable is expanded."""


@dataclass(frozen=True)
class Command:
    """One command call."""

    name: str
    """Lower case: CMake does not care."""
    arguments: tuple[Argument, ...]
    """Parentheses of conditions are arguments of their own."""
    line: int

    def words(self) -> list[str]:
        """The arguments' texts."""
        return [argument.text for argument in self.arguments]


@dataclass(frozen=True)
class Call:
    """A command as it is run."""

    command: Command
    """As it is written."""
    values: tuple[str | None, ...]
    """Its arguments with their references resolved; None where one is unknown."""
    path: str
    """The file, relative to its tree."""
    tree: str
    """The tree the file belongs to; empty for vLLM itself."""
    within: Call | None
    """The outermost call of a function of the project's own that runs it."""


def unescape(text: str) -> str:
    """Resolve backslash escapes. ``\\;`` stays, as CMake's lists need it; ``\\${`` hides a reference."""

    def plain(match: re.Match[str]) -> str:
        letter = match.group(1)
        return match.group(0) if letter in ";$" else _ESCAPED.get(letter, letter)

    return _ESCAPE.sub(plain, text)


def parse(text: str) -> list[Command]:
    """All commands of a CMake file.

    :raises CMakeSyntaxError: with the line.
    """
    commands: list[Command] = []
    name, name_line = "", 0
    arguments: list[Argument] = []
    depth, line, position = 0, 1, 0
    text = text.removeprefix("\ufeff")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CMakeSyntaxError(f"line {line}: {text[position : position + 20]!r} is not CMake")
        position = match.end()
        kind = match.lastgroup
        if match.group("open"):
            if depth:
                arguments.append(Argument("("))
            elif not name:
                raise CMakeSyntaxError(f"line {line}: '(' without a command")
            depth += 1
        elif match.group("close"):
            depth -= 1
            if depth < 0:
                raise CMakeSyntaxError(f"line {line}: ')' without '('")
            if depth:
                arguments.append(Argument(")"))
            else:
                commands.append(Command(name.lower(), tuple(arguments), name_line))
                name, arguments = "", []
        elif match.group("bracket") is not None:
            arguments.append(Argument(match.group("body").removeprefix("\n"), quoted=True, literal=True))
        elif match.group("quoted") is not None:
            arguments.append(Argument(unescape(match.group("quoted")), quoted=True))
        elif match.group("word") is not None:
            if depth:
                arguments.append(Argument(unescape(match.group("word"))))
            elif name:
                raise CMakeSyntaxError(f"line {line}: '{name}' is not called")
            else:
                name, name_line = match.group("word"), line
        elif kind is None:  # pragma: no cover  (every alternative has a name)
            raise CMakeSyntaxError(f"line {line}")
        line += match.group(0).count("\n")
    if depth or name:
        raise CMakeSyntaxError(f"line {name_line}: '{name}' is not closed")
    return commands


def block_end(commands: list[Command], start: int) -> int:
    """Index of the command that closes the block opened at ``start``; ``start`` itself for a plain one."""
    opener = commands[start].name
    if opener not in ("if", "foreach", "while", "function", "macro", "block"):
        return start
    depth = 0
    for position in range(start, len(commands)):
        if commands[position].name == opener:
            depth += 1
        elif commands[position].name == f"end{opener}":
            depth -= 1
            if depth == 0:
                return position
    return len(commands)


def reader(root: Path) -> Read:
    """Reads the files of a folder; what leads out of it, or has no name of a file, is not there."""

    def read(path: str) -> str | None:
        try:
            name = os.path.normpath(path)  # pure text: links of the tree itself are the tree's affair
            if name.startswith(("/", "..")) or not (root / name).is_file():
                return None
            return (root / name).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):  # too long, or a NUL
            return None

    return read
