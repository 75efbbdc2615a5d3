"""The wheel of a plan in wheels/, if it is there. Light: a plan that has nothing to do asks only this.

A wheel counts when its manifest is whole and its bytes have the SHA-256 that the manifest holds. What belongs beside
it (provenance, the index) and is not there or not whole is written again; that needs no build.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_recipes.build.plan import Plan, suffix
from build_recipes.formats.wheel import incomplete
from build_recipes.kit.console import warn
from build_recipes.kit.data import parse_json, write_atomic
from build_recipes.kit.hashing import file_sha256

MANIFEST = ".manifest.json"


@dataclass(frozen=True)
class Published:
    """A wheel in wheels/."""

    wheel: Path
    manifest: Path


def sealed(facts: dict[str, Any]) -> dict[str, Any]:
    """A manifest that can tell whether it is whole: with the SHA-256 of all the rest as ``seal``."""
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return {**plain, "seal": _seal(plain)}


def _seal(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A manifest; None where it cannot be read or is not whole. (Schema 1 had no seal.)"""
    try:
        facts = parse_json(path.read_bytes())
        seal = facts.pop("seal", None)
        whole = seal == _seal(facts) if seal or facts["schema"] != 1 else True
        return {**facts, "wheel": dict(facts["wheel"]), "plan": dict(facts["plan"])} if whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def manifests(wheels: Path) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
    """Every whole manifest of a folder: itself, its wheel (which may be gone), its content."""
    for path in sorted(wheels.glob(f"*{MANIFEST}")):
        if (facts := read_manifest(path)) is not None:
            yield path, path.with_name(path.name.removesuffix(MANIFEST) + ".whl"), facts


def whole(wheel: Path, facts: dict[str, Any]) -> bool:
    """Whether a wheel has the size and the SHA-256 of its manifest."""
    said = facts["wheel"]
    try:
        return bool(wheel.stat().st_size == said.get("size") and file_sha256(wheel) == said.get("sha256"))
    except OSError:
        return False


def published(plan: Plan) -> Published | None:
    """The wheel of this very plan, if it is in wheels/ and whole. Nothing is written.

    One that became partial because something could not be fetched is none: what was lacking may be here by now.
    """
    for path, wheel, facts in manifests(plan.places.wheels):
        if facts["plan"].get("fingerprint") != plan.fingerprint:
            continue
        if incomplete(wheel.name.split("-")[1]) and not suffix(plan.request):
            continue
        if whole(wheel, facts):
            return Published(wheel, path)
    return None


def statement_of(wheel: Path) -> Path:
    """Where the provenance of a wheel is kept: beside it."""
    return wheel.with_name(wheel.name.removesuffix(".whl") + ".intoto.json")


def complete(plan: Plan, done: Published) -> None:
    """Write again what belongs beside a published wheel and is missing or not whole."""
    facts = read_manifest(done.manifest) or {}
    text = facts.get("provenance")
    if text and not _is(statement_of(done.wheel), hashlib.sha256(text.encode()).hexdigest()):
        warn(f"{statement_of(done.wheel).name} is missing or not whole; written again")
        write_atomic(statement_of(done.wheel), text)
    if not indexed(done.wheel, facts["wheel"]["sha256"]):
        from build_recipes.build.stages.publish import renew_index

        warn(f"the index does not list {done.wheel.name}; written again")
        renew_index(plan.places.wheels)


def _is(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def indexed(wheel: Path, sha256: str) -> bool:
    """Whether both pages of the index list a wheel with this hash, and its metadata is there as they say."""
    folder = wheel.parent / "simple/vllm"
    if incomplete(wheel.name.split("-")[1]):  # none is listed, but there is an index
        return (folder.parent / "index.html").is_file() and (folder.parent / "index.json").is_file()
    try:
        page = (folder / "index.html").read_text(encoding="utf-8")
        rows = parse_json((folder / "index.json").read_bytes())["files"]
        row = next(row for row in rows if row["filename"] == wheel.name)
        metadata = row["core-metadata"]["sha256"]
        hashes = row["hashes"]["sha256"]
        both = page.count(sha256) == 1 and f"sha256={metadata}" in page and page.rstrip().endswith("</html>")
        return (
            both
            and hashes == sha256
            and _is(wheel.with_name(f"{wheel.name}.metadata"), metadata)
            and (folder.parent / "index.html").is_file()
            and (folder.parent / "index.json").is_file()
        )
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return False
