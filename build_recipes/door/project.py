"""The project itself: tests and checks."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.frame import door


@task(
    auto_shortflags=False,
    help={"install": "install missing distribution packages first (as root)", "k": "pytest -k"},
)
def test(c: Context, install: bool = False, k: str = "") -> None:
    """Run the tests."""
    with door():
        from build_recipes.dev.selfcheck import tests

        raise SystemExit(tests(install=install, expression=k))


@task(auto_shortflags=False, help={"install": "install missing distribution packages first (as root)"})
def check(c: Context, install: bool = False) -> None:
    """Formatting, lint, types and tests: what CI runs."""
    with door():
        from build_recipes.dev.selfcheck import everything

        raise SystemExit(everything(install=install))
