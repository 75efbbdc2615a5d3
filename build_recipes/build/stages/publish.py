"""Publish: the wheel, its manifest and its provenance move into wheels/ in one step each, the wheel last.

A wheel that is in wheels/ is whole and has its manifest and provenance: they are renamed into place first.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_recipes.build.plan import Plan
from build_recipes.build.request import request_as_dict
from build_recipes.build.stages import record
from build_recipes.build.stages.compile import Compiled
from build_recipes.build.stages.gate import Audited
from build_recipes.build.stages.package import Packaged
from build_recipes.build.stages.patch import Patched
from build_recipes.build.stages.provision import Provisioned
from build_recipes.build.stages.published import MANIFEST, Published, manifests, sealed, statement_of, whole
from build_recipes.build.units import estimate
from build_recipes.build.units.costs import read_journal
from build_recipes.build.whole import Official
from build_recipes.kit import ourselves
from build_recipes.kit.console import warn
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import NotAWheel, NotWritable
from build_recipes.kit.hashing import file_sha256
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.lockfile import lock_text
from build_recipes.wheelhouse import provenance
from build_recipes.wheelhouse.index import write_index

LOCK = ".lock.toml"
"""What the file name of the lock of a source of one's own adds to the wheel's, less ``.whl``."""
MANIFEST_SCHEMA = 2
"""2: sealed, and holds the text of its provenance."""


@dataclass(frozen=True)
class Built:
    """Everything that is known about a finished build."""

    plan: Plan
    fetched: Fetched
    patched: Patched
    made: Provisioned
    compiled: Compiled
    packaged: Packaged
    audited: Audited
    theirs: Official | None
    """The official wheel it was compared with."""
    sample: dict[str, object] | None
    """What a smoke build saw in its one CUDA unit."""


def check_writable(wheels: Path) -> None:
    """Refuse before an hour is spent.

    :raises NotWritable: wheels/ cannot be written.
    """
    try:
        wheels.mkdir(parents=True, exist_ok=True)
        probe = wheels / f".probe.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise NotWritable(
            f"{wheels} cannot be written: {error.strerror}",
            "correct its permissions, or VLLM_ARMORY_WHEELS=/elsewhere",
        ) from None


def publish(built: Built) -> Published:
    """Put the wheel and its manifest into wheels/ and rewrite the index."""
    wheels = built.plan.places.wheels
    source = built.packaged.wheel
    target = wheels / source.name
    manifest = wheels / (source.name.removesuffix(".whl") + MANIFEST)
    statement = provenance.statement(built.packaged.provenance, source).decode()
    facts = sealed({**manifest_of(built), "provenance": statement})
    write_atomic(statement_of(target), statement)
    write_atomic(manifest, json.dumps(facts, indent=1))
    if built.plan.request.source not in ("sdist", "git"):  # no file of the project has its lock
        write_atomic(manifest.with_name(source.name.removesuffix(".whl") + LOCK), lock_text(built.plan.lock))
    beside = wheels / f".{source.name}.{os.getpid()}"
    try:
        shutil.copyfile(source, beside)
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    renew_index(wheels)
    return Published(target, manifest)


def renew_index(wheels: Path) -> None:
    """Write the index of wheels/ anew; a wheel that is no more what its manifest says is taken away first."""
    for _, wheel, facts in manifests(wheels):
        if wheel.exists() and not whole(wheel, facts):
            warn(f"{wheel.name} is not as it was published; it was removed, its build makes it again")
            wheel.unlink()
    try:
        write_index(wheels)
    except NotAWheel as error:  # somebody else's file: this wheel is published all the same
        warn(f"the index is not written anew: {error.args[0]}; next: {error.advice}")


def manifest_of(built: Built) -> dict[str, Any]:
    """Plan, lock, patches, toolchain, durations and units of a build, as one JSON document."""
    plan, made, inputs = built.plan, built.made, built.packaged.provenance
    wheel = built.packaged.wheel
    units: dict[str, dict[str, Any]] = {}
    for entry in read_journal(plan.tree / "units.jsonl"):
        if entry["code"] == 0 and not (entry["cached"] and entry["unit"] in units):
            units[entry["unit"]] = {
                key: entry[key] for key in ("wall_s", "cpu_s", "rss_kib", "cached", "ended")
            }
    stages = {name: record.read(plan.tree, name) for name in ("provision", "configure")}
    return {
        "schema": MANIFEST_SCHEMA,
        "wheel": {"name": wheel.name, "size": wheel.stat().st_size, "sha256": file_sha256(wheel)},
        "plan": plan.as_dict(),
        "request": request_as_dict(plan.request),
        "sources": {
            "vllm": {
                "commit": built.fetched.commit or plan.lock.vllm.commit,
                "source": plan.request.source,
            },
            "trees": {
                tree.name: {
                    "repository": tree.repository,
                    "commit": tree.commit,
                    "left_out": built.fetched.missing.get(tree.name),
                    "used": tree.name in (*inputs.trees, *inputs.tree_wheels),
                }
                for tree in plan.lock.trees
            },
        },
        "files": [
            {"name": pin.filename, "sha256": pin.sha256, "group": pin.group} for pin in inputs.downloads()
        ],
        "program": {"version": ourselves.version(), "commit": ourselves.commit()},
        "patches": [entry.__dict__ for entry in built.patched.applied],
        "toolchain": {
            "cuda": made.cuda_version,
            "cuda_origin": made.cuda_origin,
            "torch": made.torch_version,
            "torch_cuda": made.torch_cuda,
            "cross": plan.cross,
        },
        "modules": [name for name in built.compiled.modules if name not in built.compiled.left_out],
        "left_out": built.compiled.left_out,
        "unresolved_imports": built.packaged.unresolved,
        "ops": built.compiled.ops,
        "completeness": built.packaged.completeness.as_dict(built.theirs.rows if built.theirs else None),
        "estimate": estimate.read(plan.tree),
        "smoke": built.sample,
        "audit": built.audited.as_dict(),
        "seconds": {
            **{name: entry.seconds for name, entry in stages.items() if entry},
            "compile_last_run": built.compiled.seconds,
            "package": built.packaged.seconds,
        },
        "units": units,
    }
