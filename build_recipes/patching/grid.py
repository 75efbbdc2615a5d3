"""The grid patch x version, and what ``./inv patches`` prints."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_recipes.facts.device import device as named
from build_recipes.kit import console, paths
from build_recipes.kit.console import counted
from build_recipes.kit.errors import IntentLost, PatchConflict, UsageError
from build_recipes.kit.paths import Places
from build_recipes.patching import series, states, trees
from build_recipes.patching.states import Cell
from build_recipes.sources.library import Library
from build_recipes.sources.mirrors import configured_mirrors

EXTERNAL = ("vllm-flash-attn",)
"""External trees that patches change."""


@dataclass(frozen=True)
class Source:
    """Where trees come from."""

    places: Places
    library: Library
    offline: bool = False
    fetching: bool = False
    """Whether external trees that are not here are fetched."""

    def have(self, version: str) -> dict[str, Path]:
        """The trees of a version that are here."""
        found = {"vllm": trees.vllm_tree(version, self.places, offline=self.offline)}
        declared = trees.declarations(found["vllm"])
        for name in EXTERNAL:
            if name in declared:
                tree = trees.external_tree(
                    declared[name], self.library, self.places, fetching=self.fetching and not self.offline
                )
                if tree is not None:
                    found[name] = tree
        return found


def source(mirrors: Sequence[str] = (), *, offline: bool = False, fetching: bool = False) -> Source:
    """The places of this process and the mirrors given and configured."""
    places = Places.from_environment()
    library = Library(places.git, configured_mirrors(mirrors), offline)
    return Source(places, library, offline, fetching)


def grid(
    versions: Sequence[str],
    origin: Source,
    *,
    device: str | None = None,
    home: Path = paths.PATCHES,
    workers: int = 0,
) -> list[Cell]:
    """Every patch on every version. The work is in child processes, so threads are enough.

    :param workers: versions at a time; 0 is one per core.
    """
    series.load(home)
    trees.fetch(list(versions), origin.places, offline=origin.offline)

    def one(version: str) -> list[Cell]:
        return states.examine(version, origin.have(version), origin.places, device=device, home=home)

    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return [cell for cells in pool.map(one, versions) for cell in cells]


def run(
    tag: str,
    everything: bool,
    *,
    device: str = "",
    mirrors: Sequence[str] = (),
    offline: bool = False,
    fetching: bool = False,
) -> dict[str, Any]:
    """What ``./inv patches`` does: examine, and return the one JSON document.

    :raises UsageError: neither or both of a tag and everything.
    """
    if bool(tag) == everything:
        raise UsageError(
            "say which versions: one tag, or all", "./inv patches --tag v0.12.0, or ./inv patches --all"
        )
    if device:
        named(device)
    started = time.monotonic()
    chosen = list(trees.sdists()) if everything else [trees.pin(tag).version]
    cells = grid(
        chosen, source(mirrors, offline=offline, fetching=fetching), device=device or None, home=paths.PATCHES
    )
    return {
        "versions": chosen,
        "device": device or None,
        "patches": [
            {"id": entry.id, "summary": entry.summary, "devices": entry.devices, "upstream": entry.upstream}
            for entry in series.load().patch
        ],
        "states": dict(states.MEANING),
        "cells": [asdict(cell) for cell in cells],
        "seconds": round(time.monotonic() - started, 1),
    }


SHORT = {
    "applies": "ok",
    "3-way": "3-way",
    "upstream": "up",
    "conflict": "CONFLICT",
    "intent lost": "LOST",
    "refused": "refused",
    "gap": "GAP",
    "not here": "?",
}


def show(document: dict[str, Any]) -> None:
    """Print the grid, or one version in full."""
    cells = document["cells"]
    if len(document["versions"]) == 1:
        console.table(
            f"Patches of vLLM {document['versions'][0]}",
            ["patch", "state", "file", "detail"],
            [[c["patch"], c["state"], "\n".join(c["files"]), c["detail"]] for c in cells],
        )
    else:
        ids = sorted({c["patch"] for c in cells}, key=lambda name: (len(name), name))
        by = {(c["version"], c["patch"]): SHORT[c["state"]] for c in cells}
        console.table(
            "Patches x versions",
            ["vLLM", *ids],
            [[v, *(by.get((v, name), "") for name in ids)] for v in document["versions"]],
        )
        for short, meaning in ((SHORT[s], text) for s, text in document["states"].items()):
            console.say(f"{short:>9}  {meaning}")
    for cell in (c for c in cells if c["state"] in states.BAD):
        console.warn(f"{cell['version']} {cell['patch']}: {cell['state']}: {cell['detail']}")
    console.say(f"{document['seconds']} s")


def judge(document: dict[str, Any]) -> None:
    """Raise for cells that need someone to act: PatchConflict, or IntentLost."""
    bad = [cell for cell in document["cells"] if cell["state"] in states.BAD]
    if bad:
        kind = PatchConflict if any(cell["state"] == "conflict" for cell in bad) else IntentLost
        names = ", ".join(f"{cell['patch']} on {cell['version']}" for cell in bad[:8])
        raise kind(
            f"{len(bad)} of {counted(len(document['cells']), 'cell')} of the grid need a new variant: {names}",
            "write it against that version and add it to patches/series.toml (docs: add a patch)",
        )
