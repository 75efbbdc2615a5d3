"""Which external trees a CMake project would fetch: its files are read the way CMake reads them.

Variables hold a literal or are unknown; a condition that is known takes one branch, any other takes both
and what they disagree on becomes unknown. So ``if(X_SRC_DIR) Declare(SOURCE_DIR ${X_SRC_DIR}) else()
Declare(GIT_REPOSITORY ...)`` gives both halves, and ROCm-only parts are left out when `CUDA_BUILD` says
that CUDA is there. FetchContent: https://cmake.org/cmake/help/latest/module/FetchContent.html.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from build_recipes.kit.errors import BadData
from build_recipes.sources.cmake.condition import truth
from build_recipes.sources.cmake.declare import Declaration, Found, options_of
from build_recipes.sources.cmake.scan import (
    Argument,
    Call,
    CMakeSyntaxError,
    Command,
    Read,
    block_end,
    parse,
    reader,
)

Variables = dict[str, "str | None"]
"""Known variables; None is 'assigned, but to what is not known'."""

CUDA_BUILD: Mapping[str, str] = {"VLLM_TARGET_DEVICE": "cuda", "CUDA_FOUND": "TRUE", "HIP_FOUND": "FALSE"}
"""What is known before the first line is read: vLLM is built for CUDA, and CUDA is found."""

_REFERENCE = re.compile(r"\$(ENV)?\{([A-Za-z0-9_.+/-]+)\}")
__all__ = ["CUDA_BUILD", "Call", "Declaration", "Read", "Scan", "reader"]

_QUIET = {"project", "cmake_minimum_required", "find_package", "install", "add_custom_target"}
_DEEPEST = 40
_FILE_STEPS = 100
_MOST_STEPS = 200_000  # v0.33.0 takes some 6,600


class _Left(Exception):
    """The file was left: return(), or a fatal error."""


@dataclass
class Scan:
    """The external trees of a project, in the order of their declaration.

    :param open_tree: gives the reader of a declared tree, or None where it is not at hand; only trees that
        FetchContent_MakeAvailable would configure are asked for.
    """

    open_tree: Callable[[Declaration], Read | None] = lambda _: None
    texts: dict[str, set[str]] = field(default_factory=dict)
    """Every argument that was read, by tree."""
    files: list[str] = field(default_factory=list)
    """Every file that was read, ``tree:path``."""
    unreadable: list[str] = field(default_factory=list)
    """Declarations whose repository or revision is not a literal."""
    calls: list[Call] = field(default_factory=list)
    """Every command that is run in some branch, in order."""
    _found: dict[str, Found] = field(default_factory=dict)
    _functions: dict[str, tuple[bool, list[str], list[Command]]] = field(default_factory=dict)
    _cache: set[str] = field(default_factory=set)
    _opened: set[str] = field(default_factory=set)
    _steps: int = 0

    def project(self, read: Read) -> list[Declaration]:
        """Read a project from its CMakeLists.txt on."""
        _File(self, read, "", "", dict(CUDA_BUILD), "CMakeLists.txt", 0).run()
        return self.declarations()

    def declarations(self) -> list[Declaration]:
        """What was found, both halves of each declaration joined."""
        joined = []
        for found in self._found.values():
            if found.git is not None:
                subdir = found.source_subdir if found.source_subdir != found.local_subdir else ""
                joined.append(replace(found.git, variable=found.variable, subdir=subdir))
        return joined

    def names(self, tree: str, path: str) -> bool:
        """Whether any CMake file that was read names ``path`` of the tree called ``tree``."""
        inside = re.compile(rf"(^|/){re.escape(path)}(/|$)")
        outside = re.compile(rf"\{{{re.escape(tree)}_SOURCE_DIR\}}/{re.escape(path)}(/|$)", re.IGNORECASE)
        return any(inside.search(text) for text in self.texts.get(tree, ())) or any(
            outside.search(text) for texts in self.texts.values() for text in texts
        )


@dataclass
class _File:
    """One file while it is read."""

    scan: Scan
    read: Read
    tree: str
    folder: str
    variables: Variables
    path: str
    depth: int
    within: Call | None = None

    def run(self) -> None:
        text = self.read(self.path)
        if text is None or self.depth > _DEEPEST:
            return
        self.scan.files.append(f"{self.tree}:{self.path}" if self.tree else self.path)
        self.spend(_FILE_STEPS)
        try:
            commands = parse(text)
        except CMakeSyntaxError as error:
            raise BadData(f"{self.scan.files[-1]} cannot be read: {error}", "report this tag") from error
        texts = self.scan.texts.setdefault(self.tree, set())
        texts.update(argument.text for command in commands for argument in command.arguments)
        try:
            self.block(commands)
        except _Left:
            return

    # -- control flow

    def block(self, commands: list[Command]) -> None:
        position = 0
        while position < len(commands):
            command = commands[position]
            end = block_end(commands, position)
            if command.name == "if":
                self.branches(commands[position:end])
            elif command.name in ("foreach", "while"):
                self.loop(command, commands[position + 1 : end])
            elif command.name in ("function", "macro"):
                words = command.words()
                if words:
                    body = commands[position + 1 : end]
                    self.scan._functions[words[0].lower()] = (command.name == "macro", words[1:], body)
            elif command.name == "block":
                self.block(commands[position + 1 : end])
            elif command.name == "return":
                raise _Left
            else:
                self.command(command)
            position = end + 1

    def loop(self, command: Command, body: list[Command]) -> None:
        """Run the body for each of a foreach's literals; else as often as is not known."""
        words = command.words()
        literal = command.name == "foreach" and not any("$" in word for word in words)
        if literal and words[1:] and words[1] not in ("IN", "RANGE"):
            for word in words[1:]:
                self.variables[words[0]] = word
                self.block(body)
            return
        if command.name == "foreach" and words:
            self.variables[words[0]] = None
        self.either([body, []])

    def branches(self, block: list[Command]) -> None:
        """An if block: take the branch that is known, or all that may be."""
        possible: list[list[Command]] = []
        start, depth, settled = 0, 0, False
        verdict = self.truth(block[0])
        for position, command in enumerate([*block[1:], Command("endif", (), 0)], start=1):
            if command.name == "if":
                depth += 1
            elif command.name == "endif" and depth:
                depth -= 1
            elif depth == 0 and command.name in ("elseif", "else", "endif"):
                if verdict is not False:
                    possible.append(block[start + 1 : position])
                settled = settled or verdict is True
                if settled:
                    break
                start = position
                if command.name == "endif":
                    possible.append([])  # no branch at all
                else:
                    verdict = True if command.name == "else" else self.truth(command)
        self.either(possible)

    def either(self, blocks: list[list[Command]]) -> None:
        """Run each block on the same variables; what they disagree on becomes unknown."""
        if len(blocks) == 1:
            self.block(blocks[0])
            return
        before = self.variables
        after: list[Variables] = []
        for commands in blocks:
            self.variables = dict(before)
            try:
                self.block(commands)
            except _Left:
                continue
            after.append(self.variables)
        if not after:
            raise _Left
        joined: Variables = {}
        for name in dict.fromkeys(name for variables in after for name in variables):
            values = {variables.get(name) for variables in after}
            joined[name] = values.pop() if len(values) == 1 else None
        self.variables = joined

    def truth(self, command: Command) -> bool | None:
        return truth(command.arguments, self.variables, self.expand)

    # -- variables

    def expand(self, text: str) -> str | None:
        """``text`` with its references resolved; None where one is unknown."""
        places = {
            "CMAKE_CURRENT_LIST_DIR": "/" + posixpath.dirname(self.path),
            "CMAKE_CURRENT_SOURCE_DIR": "/" + self.folder,
            "PROJECT_SOURCE_DIR": "/",
            "CMAKE_SOURCE_DIR": "/" if not self.tree else None,
        }
        for _ in range(8):
            known = True

            def value(match: re.Match[str]) -> str:
                nonlocal known
                found = (
                    None if match.group(1) else places.get(match.group(2), self.variables.get(match.group(2)))
                )
                if found is None:
                    known = False
                    return ""
                return found

            replaced = _REFERENCE.sub(value, text)
            if not known:
                return None
            if replaced == text:
                return None if "$<" in text or "${" in text else text
            text = replaced
        return None

    def argument(self, argument: Argument) -> str | None:
        return argument.text if argument.literal else self.expand(argument.text)

    # -- commands

    def spend(self, steps: int) -> None:
        """Count what was done: files and functions may call each other without end."""
        self.scan._steps += steps
        if self.scan._steps > _MOST_STEPS:
            raise BadData(
                f"{self.path}: CMake files or functions call each other without end", "report this tag"
            )

    def command(self, command: Command) -> None:
        self.spend(1)
        values = tuple(self.argument(argument) for argument in command.arguments)
        self.scan.calls.append(Call(command, values, self.path, self.tree, self.within))
        handler = getattr(self, f"do_{command.name}", None)
        if handler is not None:
            handler(command)
        elif command.name in self.scan._functions:
            self.call(command)
        elif command.name not in _QUIET:
            for word in command.words():  # a command may assign any variable whose bare name it is given
                if word in self.variables:
                    self.variables[word] = None

    def call(self, command: Command) -> None:
        is_macro, parameters, body = self.scan._functions[command.name]
        if self.depth > _DEEPEST:
            return
        for word in command.words():
            if word in self.variables:
                self.variables[word] = None
        inner = dict(self.variables)
        for name, argument in zip(parameters, command.arguments, strict=False):
            inner[name] = self.argument(argument)
        within = self.within or self.scan.calls[-1]
        scope = _File(self.scan, self.read, self.tree, self.folder, inner, self.path, self.depth + 1, within)
        with contextlib.suppress(_Left):
            scope.block(body)
        if is_macro:
            self.variables.update({k: v for k, v in scope.variables.items() if k not in parameters})

    def do_message(self, command: Command) -> None:
        if command.arguments and command.arguments[0].text == "FATAL_ERROR":
            raise _Left

    def do_set(self, command: Command) -> None:
        words = command.words()
        if not words or words[0].startswith("ENV{"):
            return
        name = self.expand(words[0])
        if name is None:
            return
        if "CACHE" in words:
            end = words.index("CACHE")
            if "FORCE" not in words and (name in self.variables or name in self.scan._cache):
                return
            self.scan._cache.add(name)
            values = command.arguments[1:end]
        else:
            values = tuple(a for a in command.arguments[1:] if a.text != "PARENT_SCOPE" or a.quoted)
        parts = [self.argument(value) for value in values]
        known = [part for part in parts if part is not None]
        self.variables[name] = ";".join(known) if len(known) == len(parts) else None
        if name.endswith("_SOURCE_DIR") and values:  # a local tree without FetchContent
            self.override(name[: -len("_SOURCE_DIR")], values[0].text)

    def do_option(self, command: Command) -> None:
        words = command.words()
        if words and words[0] not in self.variables:
            self.variables[words[0]] = words[2] if len(words) > 2 else "OFF"

    def do_unset(self, command: Command) -> None:
        if command.arguments:
            self.variables[command.arguments[0].text] = ""

    def do_include(self, command: Command) -> None:
        target = self.argument(command.arguments[0]) if command.arguments else None
        if target is None:
            return
        path = posixpath.normpath(target.lstrip("/") if target.startswith("/") else f"{self.folder}/{target}")
        inner = _File(
            self.scan, self.read, self.tree, self.folder, self.variables, path.lstrip("/"), self.depth + 1,
            self.within,
        )  # fmt: skip
        inner.run()
        self.variables = inner.variables

    def do_add_subdirectory(self, command: Command) -> None:
        target = self.argument(command.arguments[0]) if command.arguments else None
        if target is not None:
            folder = posixpath.normpath(
                target if target.startswith("/") else f"/{self.folder}/{target}"
            ).lstrip("/")
            self.descend(self.read, self.tree, folder)

    def descend(self, read: Read, tree: str, folder: str) -> None:
        path = posixpath.join(folder, "CMakeLists.txt")
        _File(self.scan, read, tree, folder, dict(self.variables), path, self.depth + 1).run()

    # -- FetchContent

    def do_fetchcontent_declare(self, command: Command) -> None:
        self.declare(command)

    def do_fetchcontent_populate(self, command: Command) -> None:
        if len(command.arguments) > 1:
            self.declare(command)

    def declare(self, command: Command) -> None:
        name = self.argument(command.arguments[0]) if command.arguments else None
        if name is None:
            self.scan.unreadable.append(f"{self.path}:{command.line}: name")
            return
        options, submodules = options_of(command)
        found = self.scan._found.setdefault(name.lower(), Found())
        subdir = self.argument(options["SOURCE_SUBDIR"]) if "SOURCE_SUBDIR" in options else ""
        if "GIT_REPOSITORY" not in options:
            if "SOURCE_DIR" in options:
                self.override(name, options["SOURCE_DIR"].text)
                found.local_subdir = subdir or ""
            return
        repository = self.argument(options["GIT_REPOSITORY"])
        revision = self.argument(options["GIT_TAG"]) if "GIT_TAG" in options else "master"
        where = f"{self.path}:{command.line}"
        if not repository or not revision:
            self.scan.unreadable.append(f"{where}: {name}")
            return
        if found.git is None:  # as in CMake, the first declaration counts
            listed = tuple(submodules) if submodules is not None else None
            found.git = Declaration(name, repository, revision, where, self.tree, submodules=listed)
            found.source_subdir = subdir or ""

    def override(self, name: str, text: str) -> None:
        """Note the variable that names a local tree: ``${VLLM_CUTLASS_SRC_DIR}`` or ``$ENV{...}``."""
        match = _REFERENCE.fullmatch(text)
        found = self.scan._found.setdefault(name.lower(), Found())
        if match and match.group(2).isupper() and not found.variable:
            found.variable = match.group(2)

    def do_fetchcontent_makeavailable(self, command: Command) -> None:
        for argument in command.arguments:
            name = (self.argument(argument) or "").lower()
            found = self.scan._found.get(name)
            if found is None or found.git is None or name in self.scan._opened:
                continue
            self.scan._opened.add(name)
            read = self.scan.open_tree(found.git)
            if read is not None:
                self.descend(read, found.git.name, found.source_subdir)
