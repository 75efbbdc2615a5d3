"""Sources: locks, mirrors, patches, a tree at a commit."""

from __future__ import annotations

from typing import Any

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.frame import door


@task(
    auto_shortflags=False,
    iterable=["mirror"],
    help={
        "tag": "vLLM release tag, such as v0.12.0",
        "mirror": "URL=DIR: a local repository that stands in for an address (repeatable)",
        "source": "where CMake files are read from: sdist, git, or a folder",
        "diff": "show what moved from the lock of this tag to the one of --against; nothing is made",
        "against": "the newer tag of --diff",
        "offline": "use no network",
        "json": "print one JSON document on stdout",
    },
)
def lock(
    c: Context,
    *,
    tag: str = "",
    mirror: Any = None,
    source: str = "sdist",
    diff: str = "",
    against: str = "",
    offline: bool = False,
    json: bool = False,
) -> None:
    """Pin every source a build of a tag reads, or show what moved between two locks."""
    with door(json):
        from build_recipes.kit import console
        from build_recipes.sources import lock as stage

        if diff:
            shown = stage.show_diff(diff, against or tag)
        else:
            shown = stage.write_lock(tag, mirrors=mirror or [], offline=offline, source=source)
        if json:
            console.emit_json(shown)


@task(
    auto_shortflags=False,
    iterable=["mirror"],
    help={
        "tag": "vLLM release tag that has a lock",
        "to": "bundle to write, such as bundle.tar.zst; without it only the cache is filled",
        "from_": "bundle to unpack into the cache; nothing else is done",
        "wheels": "also the wheels a build on this machine for aarch64 needs (some GB)",
        "requirements": "also the build requirements (some MB): enough for --torch existing with a toolkit at hand",
        "wheelhouse": "folder to fill with the wheels this program needs (VLLM_ARMORY_WHEELHOUSE)",
        "leave_out": "projects the other machine has: cmake,ninja",
        "mirror": "URL=DIR: a local repository that stands in for an address (repeatable)",
        "offline": "use no network",
        "json": "print one JSON document on stdout",
    },
)
def mirror(
    c: Context,
    *,
    tag: str = "",
    to: str = "",
    from_: str = "",
    wheels: bool = False,
    requirements: bool = False,
    wheelhouse: str = "",
    leave_out: str = "",
    mirror: Any = None,
    offline: bool = False,
    json: bool = False,
) -> None:
    """Bring all sources of a tag into the cache, pack them into one file, or unpack such a file."""
    with door(json):
        from build_recipes.kit import console
        from build_recipes.sources import mirror as stage

        left = tuple(filter(None, leave_out.split(",")))
        if from_:
            shown = stage.unpack(from_)
        elif wheelhouse:
            shown = stage.wheelhouse(wheelhouse, leave_out=left, offline=offline)
        else:
            shown = stage.mirror(
                tag, to=to, wheels=wheels, requirements=requirements, leave_out=left, mirrors=mirror or [],
                offline=offline,
            )  # fmt: skip
        if json:
            console.emit_json(shown)


@task(
    auto_shortflags=False,
    iterable=["mirror"],
    help={
        "tag": "vLLM release tag, such as v0.12.0",
        "all": "every version that PyPI has a source distribution of",
        "device": "only what is for this device (default: all)",
        "mirror": "URL=DIR: a local repository that stands in for an address (repeatable)",
        "fetch": "bring external trees that are not here",
        "offline": "use no network",
        "json": "print one JSON document on stdout",
    },
)
def patches(
    c: Context,
    *,
    tag: str = "",
    all: bool = False,
    device: str = "",
    mirror: Any = None,
    fetch: bool = False,
    offline: bool = False,
    json: bool = False,
) -> None:
    """Say for each patch of the series whether it applies, is upstream already, conflicts or lost its intent."""
    with door(json):
        from build_recipes.kit import console
        from build_recipes.patching import grid

        document = grid.run(tag, all, device=device, mirrors=mirror or [], offline=offline, fetching=fetch)
        if json:
            console.emit_json(document)
        else:
            grid.show(document)
        grid.judge(document)


@task(
    auto_shortflags=False,
    positional=[],
    help={
        "ref": "a branch, tag or commit of vLLM",
        "to": "folder to bring it to",
        "offline": "use no network",
        "json": "print one JSON document on stdout",
    },
)
def tree(c: Context, ref: str = "main", to: str = "", offline: bool = False, json: bool = False) -> None:
    """Bring vLLM at a branch or commit into a folder, for build --source and verify-omni --vllm."""
    with door(json):
        from build_recipes.kit.console import emit_json, say
        from build_recipes.kit.paths import Places
        from build_recipes.sources.checkout import checkout

        done = checkout(ref, to, Places.from_environment(), offline=offline)
        if json:
            emit_json(done)
        else:
            say(f"{done['folder']} is {ref} at {done['commit']}")
