"""How a build ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from build_recipes.formats.wheel import incomplete
from build_recipes.kit.console import duration, say


@dataclass(frozen=True)
class Result:
    """How a build ended."""

    wheel: Path
    manifest: Path
    up_to_date: bool
    """The same plan had been built and published before; nothing was done."""
    seconds: float


def report(result: Result) -> None:
    """Tell people how it ended."""
    if result.up_to_date:
        say(f"up to date: {result.wheel}")
        return
    say(f"{result.wheel} in {duration(result.seconds)}")
    word = incomplete(result.wheel.name.split("-")[1])
    if word == "partial":
        say(
            "a partial wheel: the index does not offer it. What it lacks and why: `completeness` in its manifest"
        )
    elif word == "smoke":
        say(
            "this machine can build; a smoke wheel holds one module and is not for use. Next: leave --smoke out"
        )
    else:
        say(f"install it on the device: pip install {result.wheel.name}")
