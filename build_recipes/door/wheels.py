"""Wheels: audit, advise, qualify, index, retag, rebuild, verify-omni."""

from __future__ import annotations

from typing import Any

from invoke.context import Context
from invoke.tasks import task

from build_recipes.audit.options import Options as Audit
from build_recipes.door.command import command
from build_recipes.door.frame import door
from build_recipes.verify.options import Options as Verify


@command(Audit, positional=("wheel",))
def audit(options: Audit) -> None:
    """Say what a vLLM wheel can do on each device; exits with 0 only where it is usable."""
    from build_recipes.audit import run

    run.audit(options)


@task(
    auto_shortflags=False,
    positional=["source"],
    iterable=["device", "remake"],
    help={
        "source": "pypi:VERSION, a .whl file, or a URL with its #sha256=",
        "device": "thor, orin, spark, ... (repeatable; default: this machine)",
        "slim": "only take out what the device cannot use; PTX stays for the driver, no ptxas is needed",
        "keep_ptx": "keep the newest PTX of what the device needs, for GPUs to come",
        "remake": "for a proof on a GPU: make this kernel family from PTX though SASS is there (repeatable)",
        "jobs": "images to make at once (0: one per core; memory decides below that)",
        "time_box": "stop at a checkpoint after this long, such as 9m; the same command goes on",
        "json": "print one JSON document on stdout",
    },
)
def specialise(
    c: Context,
    source: str,
    *,
    device: Any = None,
    slim: bool = False,
    keep_ptx: bool = False,
    remake: Any = None,
    jobs: int = 0,
    time_box: str = "",
    json: bool = False,
) -> None:
    """Make a small wheel for one device out of one for many: images chosen, PTX assembled, nothing else moved."""
    with door():
        from build_recipes.build import specialising as command
        from build_recipes.build.request import parse_duration
        from build_recipes.kit import heartbeat
        from build_recipes.kit.console import emit_json
        from build_recipes.kit.paths import Places
        from build_recipes.specialise.wheel import Options

        options = Options(native=not slim, keep_ptx=keep_ptx, remake=frozenset(remake or ()))
        asked = command.Asked(source, tuple(device or ()), options, jobs, parse_duration(time_box))
        with heartbeat.beating():
            done = command.run(asked, Places.from_environment())
        if json:
            emit_json([one.as_dict() for one in done])
        command.show(done)


@task(
    auto_shortflags=False,
    positional=[],
    help={
        "tag": "vLLM release tag (default: the newest that is known)",
        "device": "thor, orin, spark, ... (default: this machine)",
        "json": "print one JSON document on stdout",
    },
)
def advise(c: Context, tag: str = "", device: str = "", json: bool = False) -> None:
    """Say whether a source build is needed at all: the official wheel, the wheels at hand, a build."""
    with door(json):
        import dataclasses

        from build_recipes.build import advise as advising
        from build_recipes.kit.console import emit_json
        from build_recipes.kit.paths import Places

        advice = advising.advise(tag, device, Places.from_environment())
        if json:
            emit_json(dataclasses.asdict(advice))
        else:
            advising.show(advice)


@task(
    auto_shortflags=False,
    help={
        "wheel": "a vLLM wheel, best in wheels/ beside its manifest",
        "tiers": "0 audit, 1 import, 2 platform, 3 kernels, 4 generate, 5 omni: such as 0,1,2 (default: all)",
        "python": "a Python that has torch and what vLLM needs (default: python3 of PATH)",
        "with_": "folder of wheels that Python lacks; they are seen by the trial alone",
        "device": "the device the wheel is for, where its version does not say it",
        "json": "print one JSON document on stdout",
    },
)
def qualify(
    c: Context,
    wheel: str,
    *,
    tiers: str = "",
    python: str = "",
    with_: str = "",
    device: str = "",
    json: bool = False,
) -> None:
    """Try a wheel on this machine: audit, import, platform, kernels, tokens, omni. Kept beside its manifest."""
    with door(json):
        from pathlib import Path

        from build_recipes.audit.subject import resolve
        from build_recipes.kit import console
        from build_recipes.kit.paths import Places
        from build_recipes.qualify import runner

        path = resolve(wheel, Places.from_environment())
        done = runner.qualify(
            Path(path).resolve(), runner.parse_tiers(tiers), python=python, extra=with_, device=device
        )
        if json:
            console.emit_json(done.as_dict())
        runner.show(done, asked=bool(tiers))


@command(Verify, without=("omni", "record"))
def verify(options: Verify) -> None:
    """Tell whether a package imports with this vLLM, and whether both can be installed, from their sources."""
    from build_recipes.kit.errors import UsageError
    from build_recipes.verify import command

    if not options.packages:
        raise UsageError("no package is named", "./inv verify --package lmcache --tag v0.33.0")
    if options.matrix:
        _no_pair(options)
        if len(options.packages) > 1:
            raise UsageError("--matrix is of one package", f"--matrix --package {options.packages[0]}")
        command.matrix(html=options.html, json=options.json, package=options.packages[0])
        return
    command.verify(options)


@command(Verify, without=("packages", "from_"))
def verify_omni(options: Verify) -> None:
    """Tell whether vllm-omni imports with this vLLM, from the sources of both."""
    from build_recipes.kit.errors import UsageError
    from build_recipes.verify import command

    if options.matrix or (options.html and not (options.tag or options.omni or options.vllm)):
        _no_pair(options)
        command.matrix(html=options.html, json=options.json, record=options.record)
        return
    if options.record:
        raise UsageError("--record keeps a matrix", "./inv verify-omni --matrix --record")
    command.verify(options)


def _no_pair(options: Verify) -> None:
    from build_recipes.kit.errors import UsageError

    words = {"tag": options.tag, "vllm": options.vllm, "omni": options.omni, "from": options.from_}
    if given := [f"--{name} {value}" for name, value in words.items() if value]:
        raise UsageError(
            f"--matrix judges all releases, and {' '.join(given)} names one", "leave one of them out"
        )


@task(
    auto_shortflags=False,
    help={
        "serve": "serve it until Ctrl-C",
        "host": "address to serve on (default: 127.0.0.1, this machine alone; 0.0.0.0: every network it is in)",
        "port": "port to serve on (0: a free one)",
        "json": "print one JSON document on stdout",
    },
)
def index(
    c: Context, serve: bool = False, host: str = "127.0.0.1", port: int = 0, json: bool = False
) -> None:
    """Rewrite the package index of wheels/ for pip and uv, or serve it."""
    with door(json):
        from build_recipes.wheelhouse import manage as command

        command.index(serve=serve, host=host, port=port, json=json)


@task(
    auto_shortflags=False,
    positional=["wheel"],
    iterable=["requires"],
    help={
        "wheel": "a .whl file",
        "platform": "new platform tag, such as manylinux_2_39_aarch64",
        "version": "new version, such as 0.12.0+cu130.thor",
        "requires": "new Requires-Dist of a project, such as torch==2.11.0 (repeatable)",
        "to": "folder to write to (default: the wheel's own)",
    },
)
def retag(
    c: Context, wheel: str, *, platform: str = "", version: str = "", requires: Any = None, to: str = ""
) -> None:
    """Rewrite a wheel's tag, version or requirements without recompressing it."""
    with door():
        from build_recipes.wheelhouse import manage as command

        command.retag(wheel, platform=platform, version=version, requires=tuple(requires or ()), to=to)


@task(
    auto_shortflags=False,
    positional=["wheel"],
    help={
        "wheel": "a wheel that was built here",
        "plan": "show its plan and what differs from today's (the default; nothing is built)",
        "check": "build it again, in another folder, and compare it member by member",
        "cache": "with --check: compiler cache of the second build (auto, ccache, sccache or off)",
        "json": "print one JSON document on stdout",
    },
)
def rebuild(
    c: Context, wheel: str, plan: bool = True, check: bool = False, cache: str = "off", json: bool = False
) -> None:
    """Recreate the plan of a wheel from the wheel alone, and say what differs from today's."""
    with door(json):
        from build_recipes.build import again
        from build_recipes.build import rebuild as rebuilding
        from build_recipes.kit import heartbeat

        if check:
            with heartbeat.beating():
                again.show(wheel, cache=cache, json=json)
            return
        rebuilding.show(wheel, json=json)
