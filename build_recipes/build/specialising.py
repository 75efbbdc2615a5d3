"""`invoke specialise`: from what was typed to a wheel for a device."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.audit.families import family_table
from build_recipes.audit.subject import resolve
from build_recipes.build.stages.record import tree_lock
from build_recipes.build.units.assemble import assemble
from build_recipes.facts.device import canonical, detect, device
from build_recipes.kit import console
from build_recipes.kit.errors import NotAWheel, UsageError
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import FilePin
from build_recipes.sources.registry import content_length
from build_recipes.specialise.wheel import Options, Result, specialise


@dataclass(frozen=True)
class Asked:
    """What `invoke specialise` was given."""

    source: str
    devices: tuple[str, ...]
    options: Options
    jobs: int = 0
    time_box: float = 0


def run(asked: Asked, places: Places) -> list[Result]:
    """Specialise a wheel for the devices that were named, this machine where none was.

    :raises ArmoryError: see `specialise` and `source_of`.
    """
    unknown = sorted(asked.options.remake - set(family_table().family))
    if unknown or (asked.options.remake and not asked.options.native):
        raise UsageError(
            f"--remake {unknown[0]}: no kernel family is called so" if unknown else "--remake needs ptxas",
            f"one of: {', '.join(family_table().family)}" if unknown else "leave --slim out",
        )
    names = [canonical(name) for name in asked.devices] or list(filter(None, [detect()]))
    if not names:
        raise UsageError("this machine is not a supported device", "name one: --device thor (./inv devices)")
    machines = {device(name).machine for name in names}
    if len(machines) > 1:
        raise UsageError(
            f"one wheel cannot serve {' and '.join(sorted(machines))}", "name devices of one CPU"
        )
    source = source_of(asked.source, places, machines.pop())
    digest = file_sha256(source)
    work = places.build / f"specialise-{digest[:16]}"
    make = functools.partial(assemble, cores=asked.jobs, time_box=asked.time_box)
    with tree_lock(work):
        return specialise(
            source, names, asked.options, digest=digest, places=places, work=work, assemble=make
        )


def source_of(text: str, places: Places, machine: str) -> Path:
    """The wheel that was named: ``pypi:VERSION``, a file, or a URL that ends with ``#sha256=...``.

    :raises UsageError: a URL without a hash, or nothing.
    :raises NotAWheel: no such file.
    """
    if not text or text.startswith("-"):
        raise UsageError(
            f"a wheel should come first, '{text}' does",
            "./inv specialise WHEEL --device thor (pypi:0.33.0, a path, or a URL with #sha256=)",
        )
    if re.match(r"https?://", text):
        url, _, digest = text.partition("#sha256=")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise UsageError(f"{text} has no hash to check it by", "end it with #sha256= and 64 hex digits")
        name = url.split("?")[0].rstrip("/").rsplit("/", 1)[1]
        if not re.fullmatch(r"[\w.+%-]+\.whl", name):
            raise UsageError(f"{url} is not an address of a wheel", "give one that ends with .whl")
        name = name.replace("%2B", "+")
        pin = FilePin(
            project="vllm", version="", filename=name, url=url, sha256=digest,
            size=content_length(url), group="source",
        )  # fmt: skip
        return fetch_files([pin], places.downloads)[name]
    path = resolve(text, places, machine)
    if path.is_dir():
        raise NotAWheel(f"{path} is not a wheel", "give a .whl file, or pypi:VERSION")
    return path


def show(done: Sequence[Result]) -> None:
    """Print the results for people."""
    rows = []
    for one in done:
        units = ", ".join(f"{count} {what}" for what, count in sorted(one.units.items()))
        verdict = f"{one.before.verdict} -> {one.after.verdict}"
        why = "; ".join(one.after.reasons)
        rows.append([one.device, console.size(one.size), console.size(one.installed), units, verdict, why])
    console.table("wheels", ["device", "wheel", "installed", "units", "audit", "what stays"], rows)
    for one in done:
        for path, why in one.kept_whole.items():
            console.warn(f"{path} keeps all of its device code: {why}")
        if ids := sorted({patch["id"] for patch in one.patched.applied}):
            console.say(f"{', '.join(ids)} applied, and proved on the wheel's own files")
        for patch in one.patched.skipped:
            console.say(f"{patch.id} not applied ({patch.summary}): {patch.why}")
        console.say(f"{one.device}: {one.wheel}")
        console.say(f"next  pip install {one.wheel}")
