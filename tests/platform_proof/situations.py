"""The situations, and what must come of each: today's failures without P1, the right platform with it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

NVML = ("absent", "init-fails", "no-device", "no-memory", "well")
MARKS = ("none", "l4t", "device-tree", "kernel")
METADATA = ("+cpu", "+cu130", "none")
EMPTY = "RuntimeError: Device string must not be empty"


@dataclass(frozen=True)
class Situation:
    """A machine and a build, as the detection sees them."""

    nvml: str
    marks: str
    metadata: str

    @property
    def name(self) -> str:
        """A name for reports."""
        return f"nvml {self.nvml}, marks {self.marks}, metadata {self.metadata}"

    @property
    def starts(self) -> bool:
        """Whether nvmlInit succeeds."""
        return self.nvml in ("no-device", "no-memory", "well")

    @property
    def counts(self) -> bool:
        """Whether NVML knows a device."""
        return self.nvml in ("no-memory", "well")


SITUATIONS = tuple(Situation(*words) for words in itertools.product(NVML, MARKS, METADATA))


@dataclass(frozen=True)
class Outcome:
    """What the detection decides."""

    kind: str
    """Class of the platform; ``two`` where two claim the machine."""
    engine: str = "starts"
    """``starts``, ``empty`` (today's error) or ``explained`` (the new one)."""


def without(s: Situation) -> Outcome:
    """What vLLM decides without P1, in every version from 0.10.2 to 0.33.0."""
    if s.starts:
        cuda = s.counts and s.metadata == "+cu130"  # without metadata PackageNotFoundError is swallowed
    else:
        cuda = s.marks == "l4t"  # also for a +cpu build
    cpu = s.metadata == "+cpu"
    if cuda and cpu:
        return Outcome("two")
    if cuda:
        return Outcome("NvmlCudaPlatform" if s.starts else "NonNvmlCudaPlatform")
    return Outcome("CpuPlatform") if cpu else Outcome("UnspecifiedPlatform", "empty")


def patched(s: Situation) -> Outcome:
    """What is right."""
    if s.metadata == "+cpu":
        return Outcome("CpuPlatform")
    if s.counts:
        return Outcome("NvmlCudaPlatform")
    if s.marks != "none":
        return Outcome("NonNvmlCudaPlatform")
    return Outcome("UnspecifiedPlatform", "explained")


DEVICE_TYPE = {
    "NvmlCudaPlatform": "cuda",
    "NonNvmlCudaPlatform": "cuda",
    "CpuPlatform": "cpu",
    "UnspecifiedPlatform": "",
}
