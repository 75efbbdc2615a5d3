"""What people see of a delivery."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from build_recipes.audit import subject
from build_recipes.audit.run import check_named
from build_recipes.delivery import building
from build_recipes.delivery import companions as resolving
from build_recipes.facts import device as devices
from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.errors import UsageError
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files


def companions_of(
    tag: str, wheel: str, device: str, python: str, *, fresh: bool = False, build: Sequence[str] = ()
) -> resolving.Companions:
    """The companions that a command line asks for.

    :param build: names of those that are built first, because they have no wheel.

    :raises UsageError: neither a tag nor a wheel.
    """
    places = Places.from_environment()
    if not tag and not wheel:
        raise UsageError("say which vLLM: a tag or a wheel", "./inv companions --tag v0.12.0 --device thor")
    path = Path(subject.resolve(wheel, places)) if wheel else None
    target = resolving.target_of(tag, path, device or devices.detect() or "thor", python)
    found = resolving.companions(target, places, fresh=fresh)
    for name in build:
        building.build(name, found, places)
    return resolving.companions(target, places) if build else found


def companions(found: resolving.Companions) -> None:
    """A sentence, then a line or two for each."""
    target = found.target
    running = [one for one in found.entries if one.runs]
    total = sum(pin.size for pin in found.locked)
    console.say(
        f"{len(running)} of {len(found.entries)} companions of vLLM {target.label} run on {target.device_name} "
        f"with torch {target.torch}; {counted(len(found.locked), 'wheel')}, {console.size(total)}",
        "bold",
    )
    for one in found.entries:
        named = f"{one.name} {one.version}".strip()
        console.say(f"  {named:<32} {one.code:<10} {console.size(one.file.size) if one.file else ''}")
        console.say(
            f"      {one.reason}" if one.runs else f"      {one.reason}\n      without it: {one.without}"
        )
        if one.code == resolving.NO_WHEEL and one.name in building.recipes():
            console.say(f"      there is a recipe: ./inv companions ... --build {one.name}")
    if found.unbuilt:
        console.say(f"as source only: {', '.join(found.unbuilt)}; --build NAME makes their wheels")
    console.say(f"pinned in {found.path}")


def wheel_named(wheel: str, task: str) -> Path:
    """The wheel file that a command line names.

    :raises UsageError: a flag stands there. `NotAWheel`: there is no such file.
    """
    check_named(wheel, task)
    return Path(subject.resolve(wheel, Places.from_environment())).resolve()


def put(found: resolving.Companions, to: str) -> None:
    """Put every wheel of the set into a folder, each checked by its hash; ``wheels`` is the folder of the index.

    :raises ArmoryError: see `fetch_files`.
    """
    places = Places.from_environment()
    folder = places.wheels if to == "wheels" else Path(to).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in fetch_files(found.locked, places.downloads).items():
        if not (folder / name).exists():
            shutil.copyfile(path, folder / name)
    for path in found.built:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    console.say(f"{len(found.locked) + len(found.built)} wheels are in {folder}")
    console.say("next  ./inv index --serve --host 0.0.0.0")
