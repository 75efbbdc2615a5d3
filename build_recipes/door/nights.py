"""Nights: the matrix, its jobs, the status page, what is published."""

from __future__ import annotations

from typing import Any

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.frame import door

NIGHT_HELP = {
    "config": "nightly, smoke, or a file (default: $VLLM_ARMORY_NIGHT, else nightly)",
    "feed": "a feed.jsonl, a folder of them, or an address, to read in first (repeatable)",
    "force": "also what is green already",
    "offline": "use no network",
    "json": "print one JSON document on stdout",
}


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["feed"],
    help={
        **NIGHT_HELP,
        "here": "as it would be run on this machine, whatever runners there are",
        "all": "with the jobs that are skipped",
        "github": "also write the outputs 'matrix' and 'any' of a GitHub Actions step",
    },
)
def matrix(
    c: Context,
    config: str = "",
    feed: Any = None,
    here: bool = False,
    all: bool = False,
    force: bool = False,
    offline: bool = False,
    github: bool = False,
    json: bool = False,
) -> None:
    """Show the jobs of the nightly matrix; --json prints what GitHub Actions' strategy.matrix takes."""
    with door(json):
        from build_recipes.nightly import night as command

        command.show_matrix(
            command.Options(
                config=config, feeds=tuple(feed or ()), here=here, all=all, force=force, offline=offline,
                github=github, json=json,
            )
        )  # fmt: skip


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["feed"],
    help={
        **NIGHT_HELP,
        "only": "run this job alone",
        "time_box": "stop after this long, such as 5h30m; the next night goes on from there",
        "install": "install missing distribution packages first, where that is allowed (ccache among them)",
        "wait": "wait for another night on this machine instead of stopping",
        "cache_gain": "copy what the compiler cache gained into this folder (for merge-cache)",
        "workers": "spread the jobs over the workers of this Dask scheduler, such as tcp://host:8786",
    },
)
def nightly(
    c: Context,
    config: str = "",
    only: str = "",
    time_box: str = "",
    feed: Any = None,
    force: bool = False,
    offline: bool = False,
    install: bool = False,
    wait: bool = False,
    workers: str = "",
    cache_gain: str = "",
    json: bool = False,
) -> None:
    """Run the jobs of the matrix here, one after another: lock, patches, omni, build, audit, qualify."""
    with door(json):
        from build_recipes.nightly import night as command

        command.run(
            command.Options(
                config=config, only=only, time_box=time_box, feeds=tuple(feed or ()), force=force,
                offline=offline, install=install, wait=wait, workers=workers, cache_gain=cache_gain, json=json,
            )
        )  # fmt: skip


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["feed"],
    help={
        **{key: NIGHT_HELP[key] for key in ("config", "feed", "json")},
        "to": "folder to write to (default: wheels/nightly/page)",
        "wheels_url": "where releases are downloaded from; without it names of wheels are no links",
        "index_url": "a package index that has them, for the line to install one",
        "site_url": "where the page will be, for the feeds",
    },
)
def page(
    c: Context,
    config: str = "",
    feed: Any = None,
    to: str = "",
    wheels_url: str = "",
    index_url: str = "",
    site_url: str = "",
    json: bool = False,
) -> None:
    """Write the static site of the nights: what there is now, history, failures, all nights, feeds and badges."""
    with door(json):
        from build_recipes.kit.console import emit_json, say
        from build_recipes.nightly import night as command

        written = command.page(
            command.Options(config=config, feeds=tuple(feed or ())), to,
            wheels_url=wheels_url, index_url=index_url, site_url=site_url,
        )  # fmt: skip
        if json:
            emit_json({"page": str(written), "feed": str(written.with_name("feed.jsonl"))})
        else:
            say(str(written))


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["gain"],
    help={
        "gain": "a folder that nightly --cache-gain wrote, or one of several of them (repeatable)",
        "size": "what the cache may have, as ccache writes it; what was not used for the longest time goes",
        "github": "also write the output 'changed' of a GitHub Actions step",
        "json": NIGHT_HELP["json"],
    },
)
def merge_cache(
    c: Context, gain: Any = None, size: str = "20G", github: bool = False, json: bool = False
) -> None:
    """Merge what the jobs of a night gained into this machine's compiler cache, and cut it to its size."""
    with door(json):
        import dataclasses

        from build_recipes.kit.console import emit_json, say
        from build_recipes.kit.console import size as shown
        from build_recipes.nightly import night as command

        done = command.merge_cache(tuple(gain or ()), size, github=github)
        if json:
            emit_json(dataclasses.asdict(done))
        else:
            say(
                f"{done.gained} entries came in, {done.removed} went: {done.entries} entries, {shown(done.bytes)}"
            )


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["feed", "wheels"],
    help={
        **{key: NIGHT_HELP[key] for key in ("config", "feed", "json")},
        "wheels": "a folder that holds wheels, however deep (repeatable)",
        "to": "folder to copy to, with a folder for each release (default: out)",
    },
)
def gather(
    c: Context, config: str = "", feed: Any = None, wheels: Any = None, to: str = "out", json: bool = False
) -> None:
    """Copy the wheels of green runs into a folder, each checked against the feed: what may be published."""
    with door(json):
        from build_recipes.kit.console import emit_json, say
        from build_recipes.nightly import night as command

        options = command.Options(config=config, feeds=tuple(feed or ()))
        done = command.gather_wheels(options, tuple(wheels or ()), to)
        if json:
            emit_json({"wheels": [str(path) for path in done.wheels], "refused": done.refused})
        else:
            say(f"{len(done.wheels)} wheels in {to}")
        done.check()


@task(
    auto_shortflags=False,
    positional=[],
    help={
        **{key: NIGHT_HELP[key] for key in ("config", "json")},
        "from_": "folder that gather made",
        "index": "also write the package index of all that is published below this folder",
        "repository": "owner/name (default: GitHub Actions' own; without one nothing is uploaded)",
    },
)
def release(
    c: Context,
    config: str = "",
    from_: str = "out",
    index: str = "",
    repository: str = "",
    json: bool = False,
) -> None:
    """Bring gathered wheels to GitHub: a release for each version of vLLM, and the rolling one of main."""
    with door(json):
        from build_recipes.kit.console import emit_json
        from build_recipes.nightly import night as command

        done = command.publish(command.Options(config=config), from_, repository, index)
        if json:
            emit_json(done)


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["mirror"],
    help={
        "tag": "vLLM release tag that is to be followed, such as v0.33.0; of main or a commit it says what moves",
        "newest": "every final release on the index that is newer than the newest lock here",
        "device": "devices to survey, comma separated (default: all with an Arm CPU)",
        "mirror": "URL=DIR: a local repository that stands in for an address (repeatable)",
        "json": "print one JSON document on stdout",
    },
)
def adopt(
    c: Context, tag: str = "", newest: bool = False, device: str = "", mirror: Any = None, json: bool = False
) -> None:
    """Bring a new release of vLLM into the project: lock, facts, patches, omni, survey, companions, and a report."""
    with door(json):
        from build_recipes.nightly.adopt import command

        command.adopt(tag, newest=newest, device=device, mirrors=tuple(mirror or ()), json=json)


@task(
    auto_shortflags=False,
    positional=[],
    help={
        "changes": "folder with changes.json and files, as adopt --newest leaves it in wheels/adopted",
        "repository": "owner/name (default: GitHub Actions' own)",
        "json": "print one JSON document on stdout",
    },
)
def propose(c: Context, changes: str = "", repository: str = "", json: bool = False) -> None:
    """Open a pull request on GitHub with what adopt changed; one that is open is brought up to date."""
    with door(json):
        from build_recipes.kit.console import emit_json, say
        from build_recipes.nightly.adopt import propose as proposing

        opened = proposing.propose(changes, repository)
        if json:
            emit_json({"pull_requests": opened})
        else:
            say("\n".join(opened) or "nothing to propose")
