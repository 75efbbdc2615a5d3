"""What CI runs on this project itself: formatting, lint, types, tests."""

from __future__ import annotations

import sys
from pathlib import Path

from build_recipes.kit import paths, process
from build_recipes.kit.console import say
from build_recipes.kit.host import Host
from build_recipes.toolchain import distro


def tests(*, install: bool, expression: str = "") -> int:
    """Run pytest. Returns its exit code.

    :raises MissingPackages: the tests need a cross compiler, which is missing and was not to be installed.
    """
    distro.ensure(Host.this(), cross=Host.this().machine == "x86_64", install=install, tests=True)
    return _run("pytest", *(["-k", expression] if expression else []))


def everything(*, install: bool) -> int:
    """Formatting, lint and types, then the tests; the first that fails ends it. Returns its exit code."""
    for words in (("ruff", "format", "--check", "."), ("ruff", "check", "."), ("mypy",)):
        say(" ".join(words), style="bold")
        code = _run(*words)
        if code:
            return code
    return tests(install=install)


def _run(program: str, *words: str) -> int:
    """Run a tool of this environment, its output going straight to the terminal."""
    command = [str(Path(sys.executable).with_name(program)), *words]
    return process.passed_through(command, cwd=paths.PROJECT)
