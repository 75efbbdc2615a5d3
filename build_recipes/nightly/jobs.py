"""A job of the matrix, and the commands it comes to."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from build_recipes.kit.console import duration
from build_recipes.nightly.config import Config, Step
from build_recipes.nightly.fit import Fit


@dataclass(frozen=True)
class Job:
    """One cell of the matrix: a tag (or main) for a device."""

    id: str
    tag: str
    """The release; for main the newest that has a lock, which its estimate is made from."""
    ref: str
    """What is built: the tag, or main's commit."""
    device: str
    runner: str
    runs_on: tuple[str, ...]
    omni: tuple[str, ...]
    """Releases of vllm-omni it is checked with."""
    fingerprint: str
    """Sixteen hex digits of everything the result depends on; empty where it is not run."""
    unlocked: bool
    """The tag has no lock yet."""
    estimate_s: float
    """Wall seconds it should take on its runner."""
    estimate_from: str
    time_box: float
    """Seconds it may take in one night."""
    fit: Fit
    """How it would go on its runner."""
    cache_gb: float = 0
    """What its compiler cache may take there; 0 where the machine keeps one of its own."""
    python: str = ""
    """Python to set up there; empty for its own."""
    state: str = "new"
    """``new``, ``resume`` (an earlier night was stopped in it) or ``again`` (it was red)."""
    skip: str = ""
    """Why it is not run."""
    problem: str = ""
    """Why it cannot be run, which is red: a tag that disappeared."""

    @property
    def main(self) -> bool:
        """Whether it builds the main branch."""
        return self.ref != self.tag

    @property
    def label(self) -> str:
        """What is built, for people: ``v0.12.0`` or ``main``."""
        return "main" if self.main else self.tag

    @property
    def nights(self) -> int:
        """Nights it should take."""
        return max(1, len(self.fit.boxes), -int(-self.estimate_s // self.time_box) if self.time_box else 1)


@dataclass(frozen=True)
class Command:
    """A step made ready for one job."""

    step: Step
    name: str
    """The step's name, and what it is repeated for: ``omni 0.12.0``."""
    values: Mapping[str, str]

    def words(self, **more: str) -> list[str]:
        """Words after ``./inv``.

        :param more: placeholders that only the run knows.
        """
        return [word.format_map({**self.values, **more}) for word in self.step.command]

    def needs_wheel(self) -> bool:
        """Whether it can only be run once there is a wheel."""
        return any("{wheel}" in word for word in self.step.command)


def commands(
    config: Config, job: Job, *, tree: str, cache: str = "auto", device_here: bool = False
) -> list[Command]:
    """The steps of a job, in order.

    :param tree: folder of main's sources.
    :param device_here: the machine that runs it is the device.
    """
    wanted = {
        "always": True,
        "unlocked": job.unlocked,
        "main": job.main,
        "release": not job.main,
        "device": device_here,
    }
    ready = []
    for step in config.step:
        if not wanted[step.when]:
            continue
        for omni in job.omni if step.each == "omni" else ("",):
            values = {
                "tag": job.tag,
                "ref": job.ref,
                "device": job.device,
                "omni": omni,
                "cache": cache,
                "tree": tree,
                "time_box": f"{int(job.time_box)}s",
                "wheel": "WHEEL",
            }
            ready.append(Command(step, f"{step.name} {omni}".strip(), values))
    return ready


def shown(command: Command) -> str:
    """A command as people type it."""
    return shlex.join(["./inv", *command.words()])


def as_dict(job: Job, lines: list[str]) -> dict[str, Any]:
    """A job as one entry of GitHub Actions' ``strategy.matrix.include``."""
    return {
        **{key: getattr(job, key) for key in ("id", "tag", "ref", "device", "runner")},
        "runs_on": list(job.runs_on),
        "time_box": f"{int(job.time_box)}s",
        "timeout_minutes": int(job.time_box // 60) + 30,
        "estimate": duration(job.estimate_s),
        "estimate_s": round(job.estimate_s),
        "estimate_from": job.estimate_from,
        "nights": job.nights,
        "memory_gib": job.fit.gib,
        "disk_gb": job.fit.disk_gb,
        "drops_downloads": job.fit.drops,
        "python": job.python,
        "cache_size": f"{job.cache_gb:g}G" if job.cache_gb else "",
        "lacks": list(job.fit.lacks),
        "fingerprint": job.fingerprint,
        "state": job.state,
        "omni": list(job.omni),
        "commands": lines,
        **({"skip": job.skip} if job.skip else {}),
        **({"problem": job.problem} if job.problem else {}),
    }
