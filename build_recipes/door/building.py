"""Building: plan, build, the environment, one unit alone."""

from __future__ import annotations

import sys
from typing import Any

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.frame import BUILD_HELP, door, request_of

_BUILD = {
    "positional": [],
    "auto_shortflags": False,
    "iterable": ["mirror", "allow"],
    "help": BUILD_HELP,
}


@task(auto_shortflags=False, help={"json": "print one JSON document on stdout"})
def devices(c: Context, json: bool = False) -> None:
    """List the devices wheels can be built for, and which one this machine is."""
    with door(json):
        from build_recipes.facts import device
        from build_recipes.kit import console

        known, here = device.devices(), device.detect()
        if json:
            console.emit_json(
                {"here": here, "devices": {name: device.as_dict(entry) for name, entry in known.items()}}
            )
            return
        rows = [
            [
                ("* " if name == here else "") + name,
                d.title,
                d.capability,
                d.machine,
                d.platform_tag,
                d.memory_kind,
            ]
            for name, d in known.items()
        ]
        console.table(
            "Devices (* is this machine)", ["device", "machine", "sm", "cpu", "wheel tag", "memory"], rows
        )


@task(**_BUILD)
def plan(
    c: Context,
    tag: str = "",
    device: str = "",
    source: str = "sdist",
    mirror: Any = None,
    offline: bool = False,
    torch: str = "",
    cuda: str = "",
    only: str = "",
    without: str = "",
    smoke: bool = False,
    build_type: str = "Release",
    jobs: int = 0,
    time_box: str = "",
    allow: Any = None,
    cache: str = "auto",
    install: bool = False,
    dry: bool = False,
    json: bool = False,
) -> None:
    """Show everything a build would do, with sizes and an estimate. Writes nothing."""
    words = dict(locals())
    with door(json):
        _show_plan(request_of(words), json)


@task(**_BUILD)
def build(
    c: Context,
    tag: str = "",
    device: str = "",
    source: str = "sdist",
    mirror: Any = None,
    offline: bool = False,
    torch: str = "",
    cuda: str = "",
    only: str = "",
    without: str = "",
    smoke: bool = False,
    build_type: str = "Release",
    jobs: int = 0,
    time_box: str = "",
    allow: Any = None,
    cache: str = "auto",
    install: bool = False,
    dry: bool = False,
    json: bool = False,
) -> None:
    """Build the wheel of a vLLM tag for a device: pin, patch, compile, audit; it ends in wheels/."""
    words = dict(locals())
    with door(json):
        request = request_of(words)
        if dry:
            _show_plan(request, json)
            return
        from build_recipes.build import obtain
        from build_recipes.build import result as outcome
        from build_recipes.kit.console import emit_json
        from build_recipes.kit.paths import Places

        result = obtain.obtain(request, Places.from_environment(), install=install)
        outcome.report(result)
        if json:
            emit_json(result.__dict__)


def _show_plan(request: Any, json: bool) -> None:
    from build_recipes.build.plan import make_plan
    from build_recipes.build.preview import preview, show
    from build_recipes.kit.console import emit_json
    from build_recipes.kit.paths import Places

    made = preview(make_plan(request, Places.from_environment()))
    if json:
        emit_json(made)
    else:
        show(made)


@task(
    auto_shortflags=False, positional=[], help={k: BUILD_HELP[k] for k in ("tag", "device", "cuda", "json")}
)
def env(c: Context, tag: str = "", device: str = "", cuda: str = "", json: bool = False) -> None:
    """Print the build's environment variables for a shell to eval."""
    with door(json):
        from build_recipes.build.plan import make_plan
        from build_recipes.build.preview import exports, planned_environment
        from build_recipes.build.request import Request
        from build_recipes.kit.console import emit_json
        from build_recipes.kit.paths import Places

        variables = planned_environment(
            make_plan(Request(tag=tag, device=device, cuda=cuda), Places.from_environment())
        )
        if json:
            emit_json(variables)
        else:
            sys.stdout.write(exports(variables))


@task(
    auto_shortflags=False,
    positional=[],
    help={
        **{k: BUILD_HELP[k] for k in ("tag", "device", "source", "smoke")},
        "unit": "the unit, as the failure names it",
    },
)
def repro(
    c: Context, tag: str = "", device: str = "", source: str = "sdist", unit: str = "", smoke: bool = False
) -> None:
    """Run one compile unit of a build tree alone, with its whole output: what failed, and nothing else."""
    with door():
        from build_recipes.build.plan import make_plan
        from build_recipes.build.request import Request
        from build_recipes.build.stages.repro import repro as run_one
        from build_recipes.kit.paths import Places

        plan = make_plan(
            Request(tag=tag, device=device, source=source, smoke=smoke), Places.from_environment()
        )
        raise SystemExit(run_one(plan, unit))


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["mirror"],
    help={
        **{k: BUILD_HELP[k] for k in ("mirror", "offline", "json")},
        "tag": "release tags, comma separated (default: every tag with a lock)",
        "device": "devices, comma separated (default: all with an Arm CPU)",
        "docs": "also write docs/survey.md, docs/survey.json and the table that estimates are made from",
    },
)
def survey(
    c: Context,
    tag: str = "",
    device: str = "",
    mirror: Any = None,
    offline: bool = False,
    docs: bool = False,
    json: bool = False,
) -> None:
    """How far each release comes on each device: lock to configured tree, with units and targets. Compiles nothing."""
    with door():
        from build_recipes.build import survey as surveys
        from build_recipes.kit import console, paths

        places = paths.Places.from_environment()
        tags, names = surveys.asked(tag, device)
        cells = surveys.survey(tags, names, mirror or [], places, offline=offline)
        if docs:
            pairs = [(one, two) for one in surveys.asked("", "")[0] for two in surveys.asked("", "")[1]]
            surveys.publish(surveys.read_cells(places), pairs, paths.PROJECT / "docs")
        if json:
            console.emit_json([cell.__dict__ for cell in cells])
        else:
            surveys.show(cells)


@task(
    auto_shortflags=False,
    positional=[],
    help={
        "keep": "build trees that stay, the last used first (-1: all)",
        "older": "what was not used for so long goes, too: 30d",
        "dry": "remove nothing, say what would go",
        "json": "print one JSON document on stdout",
    },
)
def clean(c: Context, keep: int = -1, older: str = "", dry: bool = False, json: bool = False) -> None:
    """Show what is kept where, how large, and why; remove what killed runs left, and what is asked for."""
    with door(json):
        from build_recipes.build import clean as cleaning
        from build_recipes.build.request import parse_duration
        from build_recipes.kit.console import emit_json
        from build_recipes.kit.errors import UsageError
        from build_recipes.kit.paths import Places

        if keep < -1:
            raise UsageError(f"--keep {keep} is no number of build trees", "--keep 2")
        done = cleaning.clean(
            Places.from_environment(),
            keep=keep if keep >= 0 else None,
            older_s=parse_duration(older, "--older") or None,
            dry=dry,
        )
        if json:
            emit_json(done)
        else:
            cleaning.show(done)
