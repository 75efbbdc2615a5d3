"""`./inv rebuild WHEEL --plan`: the plan of a wheel, recreated from the wheel alone, against today's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.audit import origin
from build_recipes.audit.run import check_named
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import console
from build_recipes.kit.errors import CouldNotCheck
from build_recipes.kit.paths import Places, user_path
from build_recipes.wheelhouse.provenance import MEMBER, Recorded, read

IGNORED = ("tree", "jobs", "host")
"""Of a plan: where and on what it runs, not what comes out."""


@dataclass(frozen=True)
class Rebuild:
    """A wheel's own plan beside the one that its request gives today."""

    wheel: str
    then: Recorded
    now: dict[str, Any]
    differs: dict[str, tuple[Any, Any]]
    """Key of the plan to its value then and now."""
    command: str
    """What builds it again."""
    request: Request


def recorded(wheel: Path) -> Recorded:
    """What a wheel says of its build.

    :raises CouldNotCheck: it was not made here, or its document is damaged.
    """
    with Wheel(wheel) as opened:
        name = MEMBER.replace("{dist_info}", opened.dist_info)
        if (
            origin.SBOM.replace("{dist_info}", opened.dist_info) in opened.members
            and name not in opened.members
        ):
            raise CouldNotCheck(
                f"{wheel.name} was not built: it was made out of a wheel that its SBOM and its notice name",
                f"./inv specialise pypi:{opened.version.partition('+')[0]}, with its --device, makes it again",
            )
        if name not in opened.members:
            raise CouldNotCheck(
                f"{wheel.name} has no {name}: it was not built here",
                "give a wheel from wheels/ (./inv index)",
            )
        text = opened.text(name)
    try:
        return read(text.encode())
    except ValueError as error:
        raise CouldNotCheck(f"{name} of {wheel.name} is damaged: {error}", "build the wheel again") from error


def compare(wheel: Path, places: Places) -> Rebuild:
    """Recreate a wheel's plan with today's locks, patches and facts.

    :raises CouldNotCheck: the wheel does not say how it was built.
    :raises ArmoryError: the request makes no sense any more (its lock is gone, for instance).
    """
    then = recorded(wheel)
    known = {field.name for field in dataclasses.fields(Request)}
    words = {key: value for key, value in then.request.items() if key in known}
    words["device"] = then.plan.get("device", "")
    try:
        request = msgspec.convert(words, Request)
    except msgspec.ValidationError as error:
        raise CouldNotCheck(f"the request in {wheel.name} is damaged: {error}", "build it again") from error
    now = make_plan(request, places).as_dict()
    left, right = _flat(then.plan), _flat(now)
    differs = {
        key: (left.get(key), right.get(key))
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key) and key.split(".")[0] not in IGNORED
    }
    return Rebuild(wheel.name, then, now, differs, _command(request), request)


def show(wheel: str, *, json: bool) -> None:
    """Show a wheel's plan beside today's.

    :raises ArmoryError: see `compare`.
    """
    check_named(wheel, "rebuild")
    found = compare(user_path(wheel), Places.from_environment())
    if json:
        console.emit_json(dataclasses.asdict(found))
        return
    if found.differs:
        rows = [[key, str(then), str(now)] for key, (then, now) in found.differs.items()]
        console.table(f"{found.wheel}: what differs", ["", "then", "now"], rows)
    else:
        console.say(f"{found.wheel}: today's plan is the same ({found.now['fingerprint']})")
    console.say(f"next  {found.command}")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: list(value) if isinstance(value, tuple) else value}


def _command(request: Request) -> str:
    words = ["./inv build"]
    for field in dataclasses.fields(Request):
        value, name = getattr(request, field.name), field.name.replace("_", "-")
        if value == field.default or field.name in ("jobs", "time_box", "offline", "cache"):
            continue
        if value is True:
            words.append(f"--{name}")
        elif field.name in ("only", "without"):
            words.append(f"--{name} {','.join(value)}")
        elif isinstance(value, tuple):
            words += [f"--{name.removesuffix('s')} {one}" for one in value]
        else:
            words.append(f"--{name} {value}")
    return " ".join(words)
