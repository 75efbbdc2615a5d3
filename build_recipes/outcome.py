"""What a request for a wheel comes to: the wheel is there already, or it is built.

What builds is imported only when there is something to build: saying 'up to date' must cost next to nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from build_recipes.console import duration, say, step
from build_recipes.errors import LockMissing, NetworkError, OfflineError
from build_recipes.paths import Places
from build_recipes.plan import Plan, Request, make_plan
from build_recipes.stages.published import published


@dataclass(frozen=True)
class Result:
    """How a build ended."""

    wheel: Path
    manifest: Path
    up_to_date: bool
    """The same plan had been built and published before; nothing was done."""
    seconds: float


def obtain(request: Request, places: Places, *, install: bool = False) -> Result:
    """The wheel of a request: found, or built.

    :param install: install missing distribution packages (needs root).
    :raises ArmoryError: one class per cause; everything finished so far is kept.
    """
    started = time.monotonic()
    plan = _plan(request, places)
    ready = published(plan)
    if ready:
        return Result(ready.wheel, ready.manifest, True, time.monotonic() - started)
    from build_recipes.build import build

    return build(plan, install=install)


def _plan(request: Request, places: Places) -> Plan:
    """The plan of a request; a tag that has no lock yet is locked first, which needs the network.

    :raises LockMissing: there is none, and it cannot be made now.
    """
    try:
        return make_plan(request, places)
    except LockMissing as error:
        if request.offline:
            raise
        from build_recipes.stages.lock import write_lock

        step("lock", f"{request.tag} has none yet: pinning every source of it")
        try:
            write_lock(request.tag, mirrors=request.mirrors, offline=False, source=request.source)
        except (NetworkError, OfflineError) as cause:
            raise LockMissing(
                f"{error.args[0]}, and none can be made: {cause.args[0]}", error.advice
            ) from cause
    return make_plan(request, places)


def report(result: Result) -> None:
    """Tell people how it ended."""
    if result.up_to_date:
        say(f"up to date: {result.wheel}")
        return
    say(f"{result.wheel} in {duration(result.seconds)}")
    if ".smoke" in result.wheel.name:
        say(
            "this machine can build; a smoke wheel holds one module and is not for use. Next: leave --smoke out"
        )
    else:
        say(f"install it on the device: pip install {result.wheel.name}")
