"""Nights: the matrix, its jobs, the status page, what is published."""

from __future__ import annotations

from typing import Any

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.command import command
from build_recipes.door.frame import door
from build_recipes.kit.console import counted
from build_recipes.kit.options import JSON
from build_recipes.nightly.options import Options


@command(Options, take=("config", "feed", "here", "all", "force", "offline", "github", "json"))
def matrix(options: Options) -> None:
    """Show the jobs of the nightly matrix; --json prints what GitHub Actions' strategy.matrix takes."""
    from build_recipes.nightly import night

    night.show_matrix(options)


@command(Options, without=("here", "all", "github"))
def nightly(options: Options) -> None:
    """Run the jobs of the matrix here, one after another: lock, patches, omni, build, audit, qualify."""
    from build_recipes.nightly import night

    night.run(options)


@command(
    Options,
    take=("config", "feed", "json"),
    help={
        "to": "folder to write to (default: wheels/nightly/page)",
        "wheels_url": "where releases are downloaded from; without it names of wheels are not links",
        "index_url": "a package index that has them, for the line to install one",
        "site_url": "where the page will be, for the feeds",
    },
)
def page(
    options: Options, *, to: str = "", wheels_url: str = "", index_url: str = "", site_url: str = ""
) -> None:
    """Write the static site of the nights: what there is now, history, failures, all nights, feeds and badges."""
    from build_recipes.kit.console import emit_json, say
    from build_recipes.nightly import night

    written = night.page(options, to, wheels_url=wheels_url, index_url=index_url, site_url=site_url)
    if options.json:
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
        "json": JSON,
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
        from build_recipes.nightly import night

        done = night.merge_cache(tuple(gain or ()), size, github=github)
        if json:
            emit_json(dataclasses.asdict(done))
        else:
            say(
                f"{counted(done.gained, 'entry', 'entries')} came in, {done.removed} went: "
                f"{counted(done.entries, 'entry', 'entries')}, {shown(done.bytes)}"
            )


@command(
    Options,
    take=("config", "feed", "json"),
    repeated=("wheels",),
    help={
        "wheels": "a folder that holds wheels, however deep (repeatable)",
        "to": "folder to copy to, with a folder for each release",
    },
)
def gather(options: Options, *, wheels: Any = None, to: str = "out") -> None:
    """Copy the wheels of green runs into a folder, each checked against the feed: what may be published."""
    from build_recipes.kit.console import counted, emit_json, say
    from build_recipes.nightly import night

    done = night.gather_wheels(options, tuple(wheels or ()), to)
    if options.json:
        emit_json({"wheels": [str(path) for path in done.wheels], "refused": done.refused})
    else:
        say(f"{counted(len(done.wheels), 'wheel')} in {to}")
    done.check()


@command(
    Options,
    take=("config", "json"),
    help={
        "from_": "folder that gather made",
        "index": "also write the package index of all that is published below this folder",
        "repository": "owner/name (default: GitHub Actions' own; without one nothing is uploaded)",
    },
)
def release(options: Options, *, from_: str = "out", index: str = "", repository: str = "") -> None:
    """Bring gathered wheels to GitHub: a release for each version of vLLM, and the rolling one of main."""
    from build_recipes.kit.console import emit_json
    from build_recipes.nightly import night

    done = night.publish(options, from_, repository, index)
    if options.json:
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
