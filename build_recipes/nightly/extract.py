"""From what a command printed as JSON to the few facts that the feed keeps of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.kit.data import parse_json


def extract(step: str, document: Any) -> dict[str, Any]:
    """The facts of a step's document, by the step's first word; empty where it is not understood."""
    readers = {"build": _build, "audit": _audit, "omni": _omni, "patches": _patches, "qualify": _qualify}
    reader = readers.get(step.split(" ", maxsplit=1)[0])
    if reader is None or not isinstance(document, dict):
        return {}
    try:
        return reader(document)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, msgspec.ValidationError):
        return {}


def _build(document: dict[str, Any]) -> dict[str, Any]:
    manifest = parse_json(Path(document["manifest"]).read_text(encoding="utf-8"))
    units = manifest["units"].values()
    return {
        "path": document["wheel"],
        "wheel": manifest["wheel"],
        "fingerprint": manifest["plan"]["fingerprint"],
        "up_to_date": document["up_to_date"],
        "units": len(units),
        "cached": sum(bool(unit["cached"]) for unit in units),
        "cpu_s": round(sum(unit["cpu_s"] for unit in units), 1),
    }


def _audit(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "devices": {
            name: {"verdict": entry["verdict"], "reasons": list(entry.get("reasons") or [])[:3]}
            for name, entry in document["devices"].items()
        }
    }


def _omni(document: dict[str, Any]) -> dict[str, Any]:
    from build_recipes.verify.check import counted, decisive
    from build_recipes.verify.judge.verdict import Break

    breaks = decisive(msgspec.convert(document.get("breaks") or [], list[Break]))
    names = [f"{entry.module}.{entry.name or ''}".strip(".") for entry in breaks[:5]]
    return {
        "omni": document.get("omni"),
        "verdict": document["verdict"],
        "breaks": len(breaks),
        "counted": counted(breaks) if breaks else "",
        "names": names,
    }


def _patches(document: dict[str, Any]) -> dict[str, Any]:
    cells = document["cells"]
    bad = [cell["patch"] for cell in cells if cell["state"] in ("conflict", "intent lost", "gap")]
    return {"states": dict(Counter(cell["state"] for cell in cells)), "bad": bad}


def _qualify(document: dict[str, Any]) -> dict[str, Any]:
    return {"tiers": {str(tier["name"]): str(tier["result"]) for tier in document["tiers"]}}
