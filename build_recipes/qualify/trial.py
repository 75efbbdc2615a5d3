"""What all tiers work on, and the way their scripts are run."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from build_recipes.facts.device import Device
from build_recipes.kit import process
from build_recipes.kit.console import warn
from build_recipes.kit.data import parse_json
from build_recipes.qualify.environment import Base
from build_recipes.qualify.report import FAILED, Tier, judge

SCRIPTS = Path(__file__).resolve().parent / "scripts"


class _Audit(msgspec.Struct, frozen=True):
    allowed: list[str] = []


class Manifest(msgspec.Struct, frozen=True):
    """What a trial asks of the manifest beside a wheel."""

    left_out: dict[str, str] = {}
    ops: dict[str, list[str]] | None = None
    """Ops by namespace that the build registers; None where it did not say."""
    audit: _Audit = _Audit()


@dataclass(frozen=True)
class Trial:
    """A wheel on this machine."""

    wheel: Path
    version: str
    """vLLM's version with its local part."""
    device_name: str
    device: Device
    manifest: Manifest
    """Of the wheel; it says nothing where there is none."""
    base: Base | None
    """None where only tier 0 and the static part of tier 1 can be done."""
    python: Path | None
    """Interpreter of the environment that holds the wheel."""
    folder: Path
    """Scratch of this trial; logs stay there."""
    extra: tuple[Path, ...] = ()
    """Wheels of ``--with``."""

    @property
    def left_out(self) -> dict[str, str]:
        """Extension modules (``vllm._C``) that the build left out, and why."""
        return self.manifest.left_out


def run_script(
    trial: Trial, name: str, options: dict[str, Any], limit: float, *, variables: dict[str, str] | None = None,
    label: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Run a script in the wheel's environment and read what it found.

    A script that crashes, or is ended at its limit, leaves what it had found; the end is added as a failed check.

    :param limit: seconds.
    """
    assert trial.python is not None
    stem = label or name
    findings, log = trial.folder / f"{stem}.json", trial.folder / f"{stem}.log"
    findings.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    environment = process.child_environment() | {
        "PATH": f"{trial.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONUNBUFFERED": "1",
        **(variables or {}),
    }
    command: list[str | Path] = [trial.python, "-s", SCRIPTS / f"{name}.py", findings, json.dumps(options)]
    ended = ""
    try:
        done = process.run(
            command, env=environment, cwd=trial.folder, log=log, deadline=time.monotonic() + limit
        )
        if not done.ok:
            ended = f"the script ended with {done.returncode}: {' | '.join(done.tail[-4:])}"
    except TimeoutError:
        ended = f"ended at its limit of {limit:.0f} s"
    try:
        facts = findings_of(findings.read_bytes())
    except (OSError, ValueError):
        facts = {"checks": []}
    if ended:
        warn(f"{stem}: {ended} (log: {log})")
        facts["checks"].append({"name": stem, "ok": False, "reason": ended[:600]})
    return facts


class _Check(TypedDict):
    name: str
    ok: bool | None


class _Told(_Check, total=False):
    reason: str


class _Findings(TypedDict):
    checks: list[_Told]


def findings_of(text: bytes) -> dict[str, Any]:
    """What a script found, with all that is in it. Raises `ValueError` where it is cut, or of another shape."""
    found = parse_json(text)
    msgspec.convert(found, _Findings)
    return dict(found)


def of_script(number: int, name: str, facts: dict[str, Any], started: float) -> Tier:
    """The tier that a script's findings make."""
    result, reason = judge(facts["checks"])
    return Tier(number, name, result, reason, round(time.monotonic() - started, 2), facts)


def gpu() -> str:
    """Why no GPU can be used here, or an empty text where one can be."""
    if not Path("/proc/driver/nvidia/version").exists() and not any(
        Path(name).exists() for name in ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0")
    ):
        return "no NVIDIA driver"
    return ""


def failed(number: int, name: str, reason: str, started: float) -> Tier:
    """A tier that failed before it could check anything."""
    return Tier(number, name, FAILED, reason[:700], round(time.monotonic() - started, 2))
