"""What is wrong with the words of a command line, and the command that was probably meant."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence

from invoke.parser.context import ParserContext

from build_recipes.kit import console
from build_recipes.kit.errors import UsageError

MOST = {"port": 65535}
"""The greatest number that an option takes."""
LEAST = {"keep": -1}
"""The smallest one; 0 for the others."""
CORE = ("--help", "--list", "--version", "--dry")
"""Options that may stand before a command."""
TAG = re.compile(r"v?\d+\.\d+(\.\d+)?\w*")


def number(name: str) -> Callable[[str], int]:
    """A reader of the whole number that an option takes. It raises UsageError."""
    least, most = LEAST.get(name, 0), MOST.get(name, 10**9)

    def read(text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,10}", text, re.ASCII) and least <= int(text) <= most:
            return int(text)
        limits = f"{least} to {most}" if name in MOST else f"{least} or more"
        raise UsageError(
            f"--{name} {console.one_line(text, 40)}: a whole number is needed", f"--{name} N, {limits}"
        )

    return read


def explained(said: str, words: Sequence[str], commands: Mapping[str, ParserContext]) -> UsageError:
    """The error for what Invoke's parser could not read.

    :param said: the parser's own words.
    :param words: the command line, without the program.
    """
    named = next((word for word in words if word in commands), "")
    if match := re.fullmatch(r"No idea what '?(.*?)'? is!", said, re.DOTALL):
        return _unknown(match.group(1), words, named, commands)
    if match := re.search(r"<Argument: (\w+)[^>]*> needed value", said):
        return UsageError(f"--{match.group(1).replace('_', '-')} needs a value", f"./inv {named} --help")
    if match := re.search(r"required positional arguments: (.*)", said):
        names = re.findall(r"'(\w+)'", match.group(1))
        return UsageError(
            f"{named} needs {' and '.join(f'a {name}' for name in names)}", f"./inv {named} --help"
        )
    return UsageError(said, f"./inv {named} --help" if named else "./inv --help")


def _unknown(
    word: str, words: Sequence[str], named: str, commands: Mapping[str, ParserContext]
) -> UsageError:
    shown = console.one_line(word, 60)
    flags = commands[named].flags if named else {}
    if named and word in flags:  # it stands before the command
        rest = [one for one in words if one not in (word, named)]
        return UsageError(f"{shown} stands before the command", _typed([named, *rest, word]))
    if word.startswith("-"):
        near = _near(word, flags)
        return UsageError(
            f"{named} has no option {shown}" if named else f"there is no option {shown}",
            _typed(_swapped(words, word, near)) if near else f"./inv {named} --help".replace("  ", " "),
        )
    odd = next((one for one in words if one[:2] == "--" and one.partition("=")[0] not in flags), "")
    if named and odd and odd not in CORE:  # where a name was asked for, it was taken for one
        return _unknown(odd.partition("=")[0], words, named, commands)
    if not named:
        near = _near(word, commands)
        advice = _typed(_swapped(words, word, near)) if near else "./inv --help"
        return UsageError(f"there is no command '{shown}'", advice)
    return UsageError(
        f"{named} does not know what '{shown}' is for", _meant(word, words, named, flags) or f"./inv {named} --help"
    )  # fmt: skip


def _meant(word: str, words: Sequence[str], named: str, flags: Iterable[str]) -> str:
    """The command line in which a stray word has its option's name."""
    from build_recipes.facts import device

    names = [
        ("--tag", TAG.fullmatch(word)),
        ("--device", word in device.devices()),
        ("--wheel", word.endswith(".whl")),
        ("--package", re.fullmatch(r"[A-Za-z][\w.-]*(==[\w.]+)?", word)),
    ]
    option = next((name for name, fits in names if fits and name in flags and name not in words), "")
    if not option:
        return ""
    place = list(words).index(word)
    tag = f"v{word}" if option == "--tag" and word[0].isdigit() else word
    return _typed([*words[:place], option, tag, *words[place + 1 :]])


def _near(word: str, known: Iterable[str]) -> str:
    bare = {name.lstrip("-"): name for name in known}
    return bare[near[0]] if (near := difflib.get_close_matches(word.lstrip("-"), bare, n=1)) else ""


def _swapped(words: Sequence[str], wrong: str, right: str) -> list[str]:
    return [right if word == wrong else word for word in words]


def _typed(words: Sequence[str]) -> str:
    return f"./inv {' '.join(shlex.quote(console.one_line(word)) for word in words)}"
