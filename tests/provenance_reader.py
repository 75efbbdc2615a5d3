"""A wheel's SBOM and provenance held against its manifest and itself, by a reader that shares no code with them."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

COMMIT = re.compile(r"[0-9a-f]{40}")


def documents(wheel: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Manifest, statement and SBOM of a published wheel."""
    stem = wheel.name.removesuffix(".whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("sboms/vllm-armory.cdx.json")]
        bom = json.loads(archive.read(name))
    manifest = json.loads(wheel.with_name(f"{stem}.manifest.json").read_bytes())
    return manifest, json.loads(wheel.with_name(f"{stem}.intoto.json").read_bytes()), bom


def faults(wheel: Path, since: datetime) -> list[str]:
    """Everything that one says and another does not; empty where all three are true to each other.

    :param since: no earlier can the build have begun.
    """
    manifest, said, bom = documents(wheel)
    found: list[str] = []

    def same(what: str, one: object, other: object) -> None:
        if one != other:
            found.append(f"{what}: {one} and {other}")

    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    same("subject", said["subject"], [{"name": wheel.name, "digest": {"sha256": digest}}])
    definition, run = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    parts = {part["bom-ref"]: part for part in bom["components"]}
    rows = definition["resolvedDependencies"]
    trees = {name for name, tree in manifest["sources"]["trees"].items() if tree["used"]}
    for name in trees:
        if manifest["sources"]["trees"][name]["left_out"]:
            found.append(f"{name} is left out and used")
    same("trees in the SBOM", {ref[5:] for ref in parts if ref.startswith("tree:")}, trees | {"vllm"})
    commits = {
        row["name"]: row["digest"]["gitCommit"] for row in rows if "gitCommit" in row.get("digest", {})
    }
    for name, commit in commits.items():
        if not COMMIT.fullmatch(commit):
            found.append(f"{name}: {commit} is not a whole commit")
        if name in trees:
            same(f"commit of {name}", commit, manifest["sources"]["trees"][name]["commit"])
            same(f"SBOM of {name}", parts[f"tree:{name}"]["version"], commit)
    from_git = {name for name in trees if "vllm-armory:from" not in json.dumps(parts[f"tree:{name}"])}
    same("trees by commit", {name for name in commits if name in trees}, from_git)
    files = {row["name"]: row["sha256"] for row in manifest["files"]}
    patches = {row["variant"]: row["sha256"] for row in manifest["patches"]}
    by_hash = {row["name"]: row["digest"]["sha256"] for row in rows if "sha256" in row.get("digest", {})}
    same("files and patches of the provenance", by_hash, {**files, **patches})
    hashes = {ref: part["hashes"][0]["content"] for ref, part in parts.items() if part.get("hashes")}
    same(
        "files of the SBOM",
        {ref[5:]: value for ref, value in hashes.items() if ref.startswith("file:")},
        files,
    )
    same("patches of the SBOM", sorted(value for ref, value in hashes.items() if ref.startswith("patch:")),
         sorted(patches.values()))  # fmt: skip
    torch = [row["name"] for row in manifest["files"] if row["group"] == "torch"]
    if manifest["plan"]["torch"]["index"] != "this machine" and len(torch) != 1:
        found.append(f"one torch file is used, not {torch}")
    if manifest["toolchain"]["cuda_origin"] == "wheels" and not [
        r for r in manifest["files"] if r["group"] == "cuda"
    ]:
        found.append("the toolkit's wheels are not named")
    if (
        not [part for part in bom["components"] if part.get("licenses")]
        or not bom["metadata"]["component"]["licenses"]
    ):
        found.append("no licences")
    (tool,) = bom["metadata"]["tools"]["components"]
    same(
        "our version",
        {tool["version"], *run["builder"]["version"].values()},
        {manifest["program"]["version"]},
    )
    metadata = run["metadata"]
    begun, ended = (
        datetime.fromisoformat(metadata[key].replace("Z", "+00:00")) for key in ("startedOn", "finishedOn")
    )
    if not since <= begun <= ended <= datetime.now(timezone.utc):
        found.append(f"times: {since} {begun} {ended}")
    for what, document in (("SBOM", bom), ("provenance", said)):
        if places := re.findall(r'[":=](/(?:home|tmp|root|work|usr|var|opt)/[^"\\]*)', json.dumps(document)):
            found.append(f"{what} names folders of a machine: {places[:3]}")
    return found
