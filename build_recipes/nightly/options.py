"""Options of `matrix` and `nightly`, and of the commands that read the same configuration."""

from __future__ import annotations

from dataclasses import dataclass

from build_recipes.kit.options import JSON, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was typed."""

    config: str = option("", "nightly, smoke, or a file (default: $VLLM_ARMORY_NIGHT, else nightly)")
    only: str = option("", "run this job alone")
    time_box: str = option("", "stop after this long, such as 5h30m; the next night goes on from there")
    feeds: tuple[str, ...] = option(
        (), "a feed.jsonl, a folder of them, or an address, to read in first (repeatable)", name="feed"
    )
    here: bool = option(False, "as it would be run on this machine, whatever runners there are")
    all: bool = option(False, "with the jobs that are skipped")
    force: bool = option(False, "also what is green already")
    offline: bool = option(False, "use no network")
    install: bool = option(
        False, "install missing distribution packages first, where that is allowed (ccache among them)"
    )
    wait: bool = option(False, "wait for another night on this machine instead of stopping")
    github: bool = option(False, "also write the outputs 'matrix' and 'any' of a GitHub Actions step")
    workers: str = option(
        "", "spread the jobs over the workers of this Dask scheduler, such as tcp://host:8786"
    )
    cache_gain: str = option("", "copy what the compiler cache gained into this folder (for merge-cache)")
    json: bool = option(False, JSON)
