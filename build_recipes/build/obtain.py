"""What a request for a wheel comes to: the wheel is there already, or it is built.

What builds is imported only when there is something to build: saying 'up to date' must cost next to nothing.
"""

from __future__ import annotations

import time

from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.build.result import Result
from build_recipes.build.stages.published import complete, published
from build_recipes.kit.console import step
from build_recipes.kit.errors import LockMissing, NetworkError, OfflineError
from build_recipes.kit.paths import Places


def obtain(request: Request, places: Places, *, install: bool = False) -> Result:
    """The wheel of a request: found, or built.

    :param install: install missing distribution packages (needs root).
    :raises ArmoryError: one class per cause; everything finished so far is kept.
    """
    started = time.monotonic()
    plan = _plan(request, places)
    ready = published(plan)
    if ready:
        complete(plan, ready)
        return Result(ready.wheel, ready.manifest, True, time.monotonic() - started)
    from build_recipes.build.pipeline import build

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
        from build_recipes.sources.lock import write_lock

        step("lock", f"{request.tag} has none yet: pinning every source of it")
        try:
            write_lock(request.tag, mirrors=request.mirrors, offline=False, source=request.source)
        except (NetworkError, OfflineError) as cause:
            raise LockMissing(
                f"{error.args[0]}, and none can be made: {cause.args[0]}", error.advice
            ) from cause
    return make_plan(request, places)
