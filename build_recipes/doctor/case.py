"""One consultation: a machine, the device and tag it is for, and what a check may answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from build_recipes.doctor.machine import Machine, Toolkit
from build_recipes.doctor.tables import numbers
from build_recipes.facts import versions
from build_recipes.facts.device import Device
from build_recipes.facts.versions import VersionFacts
from build_recipes.kit.paths import Places

Status = Literal["ok", "warning", "blocker", "unknown"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    status: Status
    seen: str
    """What the machine shows."""
    follows: str = ""
    """What comes of it."""
    fix: str = ""
    """The command or step that fixes it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """What the checks are given."""

    machine: Machine
    name: str | None
    """Name of the device; None where none was asked for and the machine is none."""
    device: Device | None
    tag: str
    """vLLM tag; empty where none was given."""
    version: VersionFacts | None
    """Facts on the tag's version."""
    places: Places | None = None
    """Where this machine builds; None where only files of a machine were read."""

    @property
    def here(self) -> bool:
        """Whether wheels for the device are to run on this very machine."""
        return self.name is not None and self.machine.device == self.name

    @property
    def asked(self) -> bool:
        """Whether the machine itself could be asked; else only files of it were read (``--root``)."""
        return self.machine.root == "/"

    @property
    def some_tag(self) -> str:
        """The tag that was given, else the newest."""
        return self.tag or newest_tag()

    def build(self, *more: str) -> str:
        """The command that builds for this case."""
        words = ["./inv build", f"--tag {self.some_tag}"]
        words += [f"--device {self.name}"] if self.name else []
        return " ".join([*words, *more])

    @property
    def toolkit(self) -> Toolkit | None:
        """The toolkit a build would use: CUDA_HOME's, else the newest of the system that fits the device."""
        given = self.machine.environment.get("CUDA_HOME")
        told = [toolkit for toolkit in self.machine.toolkits if toolkit.nvcc]
        if given:
            return next((toolkit for toolkit in self.machine.toolkits if toolkit.path == given), None)
        return max(told, key=lambda toolkit: numbers(toolkit.nvcc or "0"), default=None)


def newest_tag() -> str:
    """The newest release that is known, for a command that needs a tag."""
    return f"v{versions.facts().releases[-1]}"
