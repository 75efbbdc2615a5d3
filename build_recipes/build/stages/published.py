"""The wheel of a plan in wheels/, if it is there. Light: a plan that has nothing to do asks only this."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build.plan import Plan


@dataclass(frozen=True)
class Published:
    """A wheel in wheels/."""

    wheel: Path
    manifest: Path


def published(plan: Plan) -> Published | None:
    """The wheel of this very plan, if it is in wheels/ and whole."""
    for manifest in plan.places.wheels.glob("*.manifest.json"):
        try:
            facts = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if facts.get("plan", {}).get("fingerprint") != plan.fingerprint:
            continue
        wheel = manifest.with_name(manifest.name.removesuffix(".manifest.json") + ".whl")
        if wheel.exists() and wheel.stat().st_size == facts["wheel"]["size"]:
            return Published(wheel, manifest)
    return None
