"""What people see of a delivery."""

from __future__ import annotations

from pathlib import Path

from build_recipes.audit import subject
from build_recipes.audit.run import check_named
from build_recipes.delivery import companions as resolving
from build_recipes.facts import device as devices
from build_recipes.kit import console
from build_recipes.kit.errors import UsageError
from build_recipes.kit.paths import Places


def companions_of(
    tag: str, wheel: str, device: str, python: str, *, fresh: bool = False
) -> resolving.Companions:
    """The companions that a command line asks for.

    :raises UsageError: neither a tag nor a wheel.
    """
    places = Places.from_environment()
    if not tag and not wheel:
        raise UsageError("say which vLLM: a tag or a wheel", "./inv companions --tag v0.12.0 --device thor")
    path = Path(subject.resolve(wheel, places)) if wheel else None
    target = resolving.target_of(tag, path, device or devices.detect() or "thor", python)
    return resolving.companions(target, places, fresh=fresh)


def companions(found: resolving.Companions) -> None:
    """A sentence, then a line or two for each."""
    target = found.target
    running = [one for one in found.entries if one.runs]
    total = sum(pin.size for pin in found.locked)
    console.say(
        f"{len(running)} of {len(found.entries)} companions of vLLM {target.label} run on {target.device_name} "
        f"with torch {target.torch}; {len(found.locked)} wheels, {console.size(total)}",
        "bold",
    )
    for one in found.entries:
        named = f"{one.name} {one.version}".strip()
        console.say(f"  {named:<32} {one.code:<10} {console.size(one.file.size) if one.file else ''}")
        console.say(
            f"      {one.reason}" if one.runs else f"      {one.reason}\n      without it: {one.without}"
        )
    if found.unbuilt:
        console.say(f"as source only, built where it is installed: {', '.join(found.unbuilt)}")
    console.say(f"pinned in {found.path}")


def wheel_named(wheel: str, task: str) -> Path:
    """The wheel file that a command line names.

    :raises UsageError: a flag stands there. `NotAWheel`: there is no such file.
    """
    check_named(wheel, task)
    return Path(subject.resolve(wheel, Places.from_environment())).resolve()
