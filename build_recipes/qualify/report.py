"""What a tier found, and the document of all tiers, kept beside the wheel's manifest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
SCHEMA = 1


@dataclass(frozen=True)
class Tier:
    """One tier's result."""

    number: int
    name: str
    result: str
    """``passed``, ``failed`` or ``not run``; what could not be tried never passed."""
    reason: str
    seconds: float = 0.0
    """Wall time."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Checks, figures and versions, as plain data."""


@dataclass(frozen=True)
class Qualification:
    """All tiers of a wheel on a machine."""

    wheel: str
    sha256: str
    machine: dict[str, Any]
    tiers: tuple[Tier, ...]

    @property
    def failed(self) -> tuple[Tier, ...]:
        """Tiers that failed."""
        return tuple(tier for tier in self.tiers if tier.result == FAILED)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json`` and the file."""
        return {"schema": SCHEMA, **asdict(self)}


class _Kept(msgspec.Struct):
    """An earlier qualification."""

    schema: int
    sha256: str
    tiers: list[Tier]


def path_of(wheel: Path) -> Path:
    """Where a wheel's qualification is kept: beside its manifest."""
    return wheel.with_name(wheel.name.removesuffix(".whl") + ".qualify.json")


def keep(wheel: Path, done: Qualification) -> Path:
    """Write a qualification beside the wheel; tiers that were not asked for now keep what an earlier run of the
    same wheel found."""
    path = path_of(wheel)
    fresh = {tier.number for tier in done.tiers}
    older: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError):
        before = msgspec.json.decode(path.read_bytes(), type=_Kept)
        if before.sha256 == done.sha256 and before.schema == SCHEMA:
            older = [asdict(tier) for tier in before.tiers if tier.number not in fresh]
    document = done.as_dict()
    document["tiers"] = sorted([*older, *document["tiers"]], key=lambda tier: int(tier["number"]))
    write_atomic(path, json.dumps(document, indent=1, default=str))
    return path


def judge(checks: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Result and reason of a tier from its script's checks (``ok``: True, False, or None for not applicable)."""
    bad = [check for check in checks if check["ok"] is False]
    good = [check for check in checks if check["ok"] is True]
    skipped = [check for check in checks if check["ok"] is None]
    if bad:
        first = bad[0]
        why = first.get("reason") or ", ".join(
            f"{key} {value}" for key, value in first.items() if key not in ("name", "ok", "seconds", "trace")
        )
        return FAILED, f"{len(bad)} of {len(bad) + len(good)} checks failed; {first['name']}: {why}"[:700]
    if not good:
        return NOT_RUN, "; ".join(check.get("reason", "") for check in skipped) or "nothing was checked"
    also = f", {counted(len(skipped), 'does', 'do')} not apply here" if skipped else ""
    return PASSED, f"{counted(len(good), 'check')}{also}"
