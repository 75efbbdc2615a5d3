"""`invoke rebuild WHEEL --check`: build a wheel again, in another place, and compare it member by member."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build import rebuild
from build_recipes.build.plan import make_plan
from build_recipes.formats.elf import Elf, Malformed
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.errors import CouldNotCheck, RebuildDiffers
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places


@dataclass(frozen=True)
class Comparison:
    """Two wheels, member by member."""

    then: str
    now: str
    same: int
    """Members with the same content."""
    differs: dict[str, str]
    """Member to what differs in it."""
    only_then: tuple[str, ...]
    only_now: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every member is the same."""
        return not (self.differs or self.only_then or self.only_now)


def compare(then: Path, now: Path) -> Comparison:
    """Compare two wheels by the content of their members (how they are packed does not count).

    :raises NotAWheel: one of them is none.
    """
    with Wheel(then) as left, Wheel(now) as right:
        both = [name for name in left.members if name in right.members]
        other = {name for name in both if left.digest(name) != right.digest(name)}
        differs = {
            name: why(bytes(left.content(name).data), bytes(right.content(name).data))
            for name in sorted(other)
            if not name.endswith(".dist-info/RECORD") or len(other) == 1
        }
        return Comparison(
            then.name,
            now.name,
            len(both) - len(other),
            differs,
            tuple(sorted(set(left.members) - set(right.members))),
            tuple(sorted(set(right.members) - set(left.members))),
        )


def why(then: bytes, now: bytes) -> str:
    """What differs between two contents: the sections of a shared library, the first line of a text."""
    try:
        parts = [
            {one.name: bytes(elf.content(one)) for one in elf.sections}
            for elf in (Elf(then, "then"), Elf(now, "now"))
        ]
        names = [
            name for name in parts[0].keys() | parts[1].keys() if parts[0].get(name) != parts[1].get(name)
        ]
        if ".comment" in names:
            makers = [b", ".join(filter(None, part.get(".comment", b"").split(b"\0"))) for part in parts]
            return "compiled by {} then, {} now".format(
                *(maker.decode("utf-8", "replace") for maker in makers)
            )
        return f"sections {', '.join(sorted(names))}" if names else "bytes outside of its sections"
    except Malformed:
        pass
    lines = zip(then.split(b"\n"), now.split(b"\n"), strict=False)
    for number, (one, other) in enumerate(lines, 1):
        if one != other:
            return f"line {number}: {one[:60]!r} then, {other[:60]!r} now"
    return f"{len(then)} bytes then, {len(now)} now"


def check(wheel: Path, places: Places, cache: str) -> Comparison:
    """Build the plan of a wheel again below ``build/again`` and compare.

    :param cache: compiler cache of the second build, as for a build.
    :raises CouldNotCheck: today's plan is another one; what differs is named.
    :raises ArmoryError: of the build.
    """
    found = rebuild.compare(wheel, places)
    if found.differs:
        rows = "\n".join(f"  {key}: {then} then, {now} now" for key, (then, now) in found.differs.items())
        raise CouldNotCheck(
            f"today's plan of {wheel.name} is another one:\n{rows}", f"./inv rebuild {wheel} --plan"
        )
    from build_recipes.build.pipeline import build

    folder = places.build / "again"
    own = dataclasses.replace(places, build=folder, wheels=folder / "wheels")
    plan = make_plan(dataclasses.replace(found.request, cache=cache), own)
    done = compare(wheel, build(plan).wheel)
    if done.equal:
        remove_tree(folder)
    return done


def show(wheel: str, *, cache: str, json: bool) -> None:
    """Build a wheel again and say whether it is the same.

    :raises RebuildDiffers: it is not; what differs is listed.
    :raises ArmoryError: see `check`.
    """
    path = Path(wheel).expanduser()
    done = check(path, Places.from_environment(), cache)
    if json:
        console.emit_json(dataclasses.asdict(done))
    elif done.equal:
        console.say(f"{done.then}: built again, all {done.same} members are the same")
    if not done.equal:
        rows = [f"  {name}: {text}" for name, text in done.differs.items()]
        rows += [f"  {name}: only then" for name in done.only_then]
        rows += [f"  {name}: only now" for name in done.only_now]
        raise RebuildDiffers(
            f"{done.then}: built again, {counted(done.same, 'member is', 'members are')} the same, "
            f"{counted(len(rows), 'is', 'are')} not:\n" + "\n".join(rows),
            f"look at it in {Places.from_environment().build / 'again'}",
        )
