"""`./inv install`: this machine, a virtual environment, companions, and the line that starts vLLM."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_recipes.delivery.bundle import Bundle, bundle, installing, serve_line
from build_recipes.kit import console, process
from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import CouldNotCheck, UsageError
from build_recipes.kit.paths import Places
from build_recipes.sources.resolve import uv


@dataclass(frozen=True)
class Installed:
    """A finished installation."""

    environment: Path
    bundle: Bundle
    serve: str
    """The line that starts vLLM."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "environment": str(self.environment), "wheel": str(self.bundle.wheel), "version": self.bundle.version,
            "device": self.bundle.device_name, "files": len(self.bundle.files), "bytes": self.bundle.size,
            "serve": self.serve, "reasons": list(self.bundle.settings.reasons),
        }  # fmt: skip


def install(wheel: Path, environment: Path, *, device: str, python: str, bare: bool) -> Installed:
    """Install a wheel and its companions on this machine.

    :raises UsageError: the wheel is for another CPU.
    :raises CouldNotCheck: uv refused; its words are given.
    """
    places = Places.from_environment()
    made = bundle(wheel, places, device=device, python=python, bare=bare)
    if made.device.machine != platform.machine():
        raise UsageError(
            f"the wheel is for {made.device.title} ({made.device.machine}), this machine is {platform.machine()}",
            f"./inv deliver {wheel} --to user@board",
        )
    console.step(
        "install", f"{counted(len(made.files), 'file')}, {console.size(made.size)}, into {environment}"
    )
    folder = places.build / "install" / next(iter(made.files.values()))[1][:16]
    folder.mkdir(parents=True, exist_ok=True)
    for name, (path, _) in made.files.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path.resolve())
    for name, text in made.texts.items():
        write_atomic(folder / name, text)
    for words in installing(
        uv(), str(environment), str(folder), made.python, under=bare, toolkit=made.toolkit
    ):
        done = process.run(words, env=process.child_environment(UV_NO_CONFIG="1"))
        if not done.ok:
            raise CouldNotCheck(f"uv could not install it: {' '.join(done.tail)[-600:]}", "./inv doctor")
    return Installed(environment, made, serve_line(made, str(environment)))


def show(done: Installed) -> None:
    """What was installed, and how it is started."""
    console.say(f"vLLM {done.bundle.version} for {done.bundle.device.title} is in {done.environment}", "bold")
    for reason in done.bundle.settings.reasons:
        console.say(f"  {reason}")
    console.say(f"next  {done.serve}")
