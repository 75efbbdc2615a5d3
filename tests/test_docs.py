"""What the documentation says exists: commands and their options, files, exit codes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import tasks
from build_recipes.dev import exit_codes
from build_recipes.kit.data import parse_toml
from build_recipes.kit.paths import PACKAGE, PROJECT

PAGES = sorted([*PROJECT.glob("docs/*.md"), PROJECT / "README.md"])
TASKS = {name: tasks.namespace[name] for name in tasks.namespace.task_names}
OPTIONS = {
    name: {flag for argument in task.get_arguments() for flag in _flags}
    for name, task in TASKS.items()
    for _flags in [
        [("--" if len(word) > 1 else "-") + word for argument in task.get_arguments() for word in argument.names]
    ]
}  # fmt: skip


def commands(text: str) -> Iterator[list[str]]:
    """Each `./inv ...` of a text, as words."""
    for line in re.findall(r"\./inv ([^`\n;|\"{}]+)", text.replace("\\\n", " ")):
        words = shlex.split(re.sub(r"(\s+#|\s{2,}[A-Z]|[.,)](\s|$)).*", "", line).replace("'", ""))
        if words:
            yield words


def wrong(words: list[str]) -> str:
    """What of a command does not exist; empty where all does."""
    name = words[0].rstrip(":,.")
    if name.startswith("-"):
        return "" if name in ("--help", "--list", "--version") else f"no option {name}"
    if name == "...":
        return ""
    if name not in TASKS:
        return f"no task {name}"
    known = {flag.replace("_", "-") for flag in OPTIONS[name]}
    for word in words[1:]:
        flag = word.split("=")[0]
        if flag.startswith("--") and flag not in known:
            return f"{name} has no {flag}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_exists(page: Path) -> None:
    found = list(commands(page.read_text()))
    assert not [(words, why) for words in found if (why := wrong(words))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_link_in_a_page_exists(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    named = re.findall(r"`((?:build_recipes|patches|tests|docs|benchmarks)/[\w./-]+\w)`", text)
    lost = [link for link in links if not (page.parent / link).exists()]
    assert not lost + [name for name in named if not (PROJECT / name).exists()]


def texts(path: Path) -> Iterator[str]:
    """The texts of a program, its docstrings among them, or of a data file."""
    content = path.read_text()
    if path.suffix != ".py":
        yield content
        return
    inside: set[ast.AST] = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.JoinedStr):
            inside |= set(ast.walk(node))
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


def prose(words: list[str]) -> bool:
    """Whether a sentence speaks of `./inv` itself: "./inv sets it up", "./inv ...", or a word put in at run time."""
    return words[0] in ("once", "WORDS", "X", "..") or (
        words[0] not in TASKS and len(words) > 1 and words[1].isalpha()
    )


def test_every_next_step_in_the_program_is_a_command_that_exists() -> None:
    """Messages of the code, and the fixes of its data files."""
    bad = []
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.glob("*/*.toml"), PROJECT / "tasks.py"]:
        for text in texts(path):
            for words in commands(text):
                if not prose(words) and (why := wrong(words)):
                    bad.append(f"{path.relative_to(PROJECT)}: ./inv {' '.join(words)}: {why}")
    assert not bad, "\n".join(bad)


def test_the_messages_that_troubleshooting_quotes_are_the_programs() -> None:
    source = " ".join(text for path in PACKAGE.rglob("*.py") for text in texts(path))
    page = exit_codes.DOCUMENT.read_text().partition("## On the device")[0]
    rows = re.findall(r"^\| `(.+?)` \((\d+)\) \|", page, re.MULTILINE)
    assert len(rows) > 10
    codes = {str(kind.exit_code) for kind in exit_codes.causes()}
    for quoted, code in rows:
        assert code in codes
        pieces = [piece.strip() for piece in re.split(r"\.\.\.|\bN\b|12\.x", quoted)]
        assert all(piece in source for piece in pieces), quoted


def test_the_table_of_exit_codes_is_the_programs() -> None:
    text = exit_codes.DOCUMENT.read_text()
    assert exit_codes.replaced(text) == text, "run .venv/bin/python -m build_recipes.dev.exit_codes"


def test_one_exit_code_means_one_cause() -> None:
    codes = [kind.exit_code for kind in exit_codes.causes()]
    assert len(codes) == len(set(codes))
    assert not {0, 1, 130} & set(codes)


def test_the_configuration_in_the_pages_is_toml() -> None:
    blocks = [
        block for page in PAGES for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert blocks
    for block in blocks:
        parse_toml(block)


def test_the_picture_is_svg_with_a_title() -> None:
    root = ElementTree.parse(PROJECT / "docs/build-flow.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert (root.findtext(f"{space}title") or "").strip()
