"""Building: plan, build, the environment, one unit alone."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

from invoke.context import Context
from invoke.tasks import task

from build_recipes.build.request import Request, parse_duration
from build_recipes.door.command import command
from build_recipes.door.frame import door
from build_recipes.kit.options import JSON, option

_PLAN = {
    "install": "install missing distribution packages (as root), saying what and why",
    "dry": "stop after the plan; nothing is written",
    "json": JSON,
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


@command(Request, help=_PLAN)
def plan(request: Request, *, install: bool = False, dry: bool = False, json: bool = False) -> None:
    """Show everything a build would do, with sizes and an estimate. Writes nothing."""
    _show_plan(request, json)


@command(Request, help=_PLAN)
def build(request: Request, *, install: bool = False, dry: bool = False, json: bool = False) -> None:
    """Build the wheel of a vLLM tag for a device: pin, patch, compile, audit; it ends in wheels/."""
    if dry:
        _show_plan(request, json)
        return
    from build_recipes.build import obtain
    from build_recipes.build import result as outcome
    from build_recipes.kit import heartbeat
    from build_recipes.kit.console import emit_json
    from build_recipes.kit.paths import Places

    with heartbeat.beating():
        result = obtain.obtain(request, Places.from_environment(), install=install)
    outcome.report(result)
    if json:
        emit_json(result.__dict__)


def _show_plan(request: Request, json: bool) -> None:
    from build_recipes.build.plan import make_plan
    from build_recipes.build.preview import preview, show
    from build_recipes.kit.console import emit_json
    from build_recipes.kit.paths import Places

    made = preview(make_plan(request, Places.from_environment()))
    if json:
        emit_json(made)
    else:
        show(made)


@command(Request, take=("tag", "device", "cuda"), help={"json": JSON})
def env(request: Request, *, json: bool = False) -> None:
    """Print the build's environment variables for a shell to eval."""
    from build_recipes.build.plan import make_plan
    from build_recipes.build.preview import exports, planned_environment
    from build_recipes.kit.console import emit_json
    from build_recipes.kit.paths import Places

    variables = planned_environment(make_plan(request, Places.from_environment()))
    if json:
        emit_json(variables)
    else:
        sys.stdout.write(exports(variables))


@command(
    Request,
    take=("tag", "device", "source", "smoke"),
    help={"unit": "the unit, as the failure names it"},
)
def repro(request: Request, *, unit: str = "") -> None:
    """Run one compile unit of a build tree alone, with its whole output: what failed, and nothing else."""
    from build_recipes.build.plan import make_plan
    from build_recipes.build.stages.repro import repro as run_one
    from build_recipes.kit.paths import Places

    raise SystemExit(run_one(make_plan(request, Places.from_environment()), unit))


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What `survey` is asked."""

    tag: str = option("", "release tags, comma separated (default: every tag with a lock)")
    device: str = option("", "devices, comma separated (default: all with an Arm CPU)")
    mirrors: tuple[str, ...] = option(
        (), "URL=DIR: a local repository stands in for URL (repeatable)", name="mirror"
    )
    offline: bool = option(False, "use no network: everything comes from the cache")
    compile: bool = option(
        False,
        "also compile the cheapest unit of each module, each source for each target once (minutes a pair)",
    )
    time_box: float = option(
        0.0, "stop after this long, such as 35m; the same command goes on", read=parse_duration
    )
    """Seconds; 0 means no box."""
    docs: bool = option(False, "also write docs/survey.md, docs/survey.json and the table of estimates")
    json: bool = option(False, JSON)


@command(Survey)
def survey(asked: Survey) -> None:
    """How far each release comes on each device: lock to configured tree, with units and targets."""
    import time

    from build_recipes.build.survey import publish, walk
    from build_recipes.kit import console, paths
    from build_recipes.kit.errors import Checkpointed

    places = paths.Places.from_environment()
    tags, names = walk.asked(asked.tag, asked.device)
    deadline = time.monotonic() + asked.time_box if asked.time_box else float("inf")
    cells = walk.walk(tags, names, walk.Survey(places, asked.mirrors, asked.offline, asked.compile, deadline))
    if asked.docs:
        pairs = [(one, two) for one in walk.asked("", "")[0] for two in walk.asked("", "")[1]]
        publish.publish(walk.read_cells(places), pairs, paths.PROJECT / "docs")
    if asked.json:
        console.emit_json([dataclasses.asdict(cell) for cell in cells])
    else:
        publish.show(cells)
    left = len(tags) * len(names) - len(cells)
    untried = sum(len(cell.untried) for cell in cells) if asked.compile else 0
    if left or untried:
        raise Checkpointed(
            f"the time box ended: {console.counted(left, 'pair')} and {console.counted(untried, 'module')} are left; "
            "all that is finished is kept",
            "run the same command again; it goes on from here",
        )


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
    """Show what is kept, how large it is and why; remove what killed runs left, and what is asked for."""
    with door(json):
        from build_recipes.build import clean as cleaning
        from build_recipes.build.request import parse_duration
        from build_recipes.kit.console import emit_json
        from build_recipes.kit.errors import UsageError
        from build_recipes.kit.paths import Places

        if keep < -1:
            raise UsageError(f"--keep {keep} is not a number of build trees", "--keep 2")
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
