"""Is a source build needed at all? The official wheel, the wheels at hand and a build, for one device.

A wheel that runs on the device is preferred to a build, the official one to our own, unless the official one leaves to
the driver's compiler what a wheel at hand has as machine code; what a build would do better is said, not decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from build_recipes.audit import subject
from build_recipes.audit.audit import NOT_USABLE, READY, SLOW_START, Audit, audit_wheel
from build_recipes.audit.coverage import ABSENT, JIT, NATIVE
from build_recipes.audit.families import family_table
from build_recipes.facts import device as device_table
from build_recipes.facts.device import Device
from build_recipes.formats.wheel import incomplete
from build_recipes.kit import console
from build_recipes.kit.errors import ArmoryError, NetworkError, NotAWheel, UnknownTag, UsageError
from build_recipes.kit.host import Host
from build_recipes.kit.paths import Places
from build_recipes.specialise.estimate import estimate


@dataclass(frozen=True)
class Choice:
    """One way to get vLLM onto the device."""

    kind: str
    """``official``, ``specialise`` (the official one made into one for the device), ``local`` or ``build``."""
    name: str
    verdict: str
    """The audit's word; empty for what has to be made first."""
    why: tuple[str, ...]
    native: tuple[str, ...] = ()
    """Kernel families with code for the device."""
    jit: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    size: int = 0
    """Bytes."""
    torch: str = ""
    driver: str = ""
    """Least CUDA of the driver, for what must be compiled at first use."""
    first_start_s: float = 0
    """CPU seconds of compiling, all families together (the driver does each when it is first used)."""
    build_s: float = 0
    """Seconds that making it takes on this machine."""


@dataclass(frozen=True)
class Advice:
    """What to do, and what it was weighed against."""

    tag: str
    device: str
    take: str
    """``official``, ``local`` or ``build``; ``none`` where nothing is known to work."""
    say: str
    command: str
    choices: tuple[Choice, ...]


def advise(tag: str, name: str, places: Places) -> Advice:
    """Weigh the ways to run a vLLM version on a device.

    :param tag: release tag; the newest release that is known where it is empty.
    :param name: device; this machine where it is empty.
    :raises UsageError: no device was named and this machine is none.
    :raises UnknownTag: no such version.
    :raises NetworkError: the official wheel cannot be fetched and nothing else was found.
    """
    from build_recipes.facts import versions

    name = name or device_table.detect() or ""
    if not name:
        raise UsageError(
            "this machine is not a supported device", "name one: --device thor (./inv devices lists them)"
        )
    name = device_table.canonical(name)
    entry = device_table.device(name)
    tag = tag or f"v{versions.facts().releases[-1]}"
    try:
        version = str(Version(tag.removeprefix("v")))
    except ValueError as error:
        raise UnknownTag(f"'{tag}' is not a release tag", "write --tag v0.33.0") from error
    official, special = _official(version, name, entry, places)
    local = _local(version, name, places)
    built = _build(f"v{version}", name, places)
    return _weigh(f"v{version}", name, official, [special, *local], built, wheels=places.wheels)


def _official(version: str, name: str, entry: Device, places: Places) -> tuple[Choice, Choice]:
    """The official wheel as it is, and what `invoke specialise` would make of it."""
    what = f"pypi:{version} for {name}"
    try:
        wheel = subject.official(version, places, entry.machine)
    except (NotAWheel, NetworkError) as error:
        why = (str(error.args[0]),)
        missing = Choice("official", f"vllm {version} from PyPI", NOT_USABLE, why)
        return missing, Choice("specialise", what, NOT_USABLE, why)
    audit = audit_wheel(wheel, [name])
    official = _judged("official", audit, name, wheel.stat().st_size)
    if official.verdict == NOT_USABLE:
        return official, Choice("specialise", what, NOT_USABLE, official.why)
    expected = estimate(audit, entry)
    gone = (f"not there: {', '.join(official.absent)}",) if official.absent else ()
    return official, Choice(
        kind="specialise",
        name=what,
        verdict="",
        why=gone,
        native=(*official.native, *official.jit),
        absent=official.absent,
        size=expected.size,
        torch=official.torch,
        build_s=expected.cpu_s / Host.this().cores,
    )


def _local(version: str, name: str, places: Places) -> list[Choice]:
    """The wheels of a version in ``wheels/``, but for those whose name is another device's."""
    found = []
    others = set(device_table.devices()) - {name}
    for path in sorted(places.wheels.glob("vllm-*.whl")):
        try:
            there = parse_wheel_filename(path.name)[1]
            parts = set((there.local or "").split("."))
            if there.public == version and (name in parts or not parts & others):
                found.append(_judged("local", audit_wheel(path, [name]), name, path.stat().st_size))
        except (InvalidWheelFilename, ValueError):
            continue
        except NotAWheel as error:
            found.append(Choice("local", path.name, NOT_USABLE, (str(error.args[0]),)))
    return found


def _judged(kind: str, audit: Audit, name: str, size: int) -> Choice:
    one = audit.devices[name]

    def titles(status: str) -> tuple[str, ...]:
        return tuple(
            family_table().family[f].title for f, seen in one.families.items() if seen.status == status
        )

    slow = {family: seen for family, seen in one.families.items() if seen.status == JIT}
    return Choice(
        kind=kind,
        name=audit.wheel,
        verdict=one.verdict,
        why=one.reasons,
        native=titles(NATIVE),
        jit=titles(JIT),
        absent=titles(ABSENT),
        size=size,
        torch=audit.requires_torch,
        driver=max((seen.driver for seen in slow.values()), key=_version, default=""),
        first_start_s=sum(family_table().family[f].jit_seconds * seen.jit_units for f, seen in slow.items()),
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _build(tag: str, name: str, places: Places) -> Choice:
    """A build, as its plan sees it; where there is none, the reason."""
    from build_recipes.build.plan import make_plan
    from build_recipes.build.preview import OVERHEAD_S, at_once, estimate
    from build_recipes.build.request import Request
    from build_recipes.build.stages.trees import foreseen

    try:
        plan = make_plan(Request(tag=tag, device=name), places)
    except ArmoryError as error:
        return Choice("build", f"{tag} for {name}", NOT_USABLE, (str(error.args[0]),))
    seconds = estimate(plan).cpu_s / at_once(plan) + OVERHEAD_S
    why = ["nothing to compile at the first start: its last step assembles what CMake leaves as PTX"]
    if lacks := [lack.tree.name for lack in foreseen(plan) if lack.needed_by or lack.perhaps]:
        why.insert(
            0, f"first to be pinned: {', '.join(lacks)} (./inv plan --tag {tag} --device {name} says how)"
        )
    return Choice(
        "build", plan.wheel_version, "", tuple(why), torch=f"=={plan.torch.version}", build_s=seconds
    )


def _weigh(
    tag: str, name: str, official: Choice, others: list[Choice], built: Choice, *, wheels: Path
) -> Advice:
    choices = (official, *others, built)
    special, *local = others
    usable = [one for one in local if one.verdict != NOT_USABLE and not incomplete(one.name.split("-")[1])]
    build = f"./inv build --tag {tag} --device {name}"
    native = [one for one in usable if one.verdict == READY and set(one.absent) <= set(official.absent)]
    if official.verdict != NOT_USABLE and official.jit and native:
        best = min(native, key=lambda one: (one.size, one.name))
        say = f"use {best.name} from wheels/: it leaves nothing to the driver's compiler, where the official one"
        say += f" leaves {', '.join(official.jit)}; it needs {_system(name)}"
        return Advice(tag, name, "local", say, f"pip install {wheels / best.name}", choices)
    if official.verdict != NOT_USABLE:
        say = (
            f"use the official wheel: it {'is ready' if official.verdict != SLOW_START else 'runs'} on {name}"
        )
        if official.jit:
            say += f"; {', '.join(official.jit)} are compiled by the driver when first used"
        if official.absent:
            say += f"; it lacks {', '.join(official.absent)}"
        say += f"; it needs {_system(name)}"
        if official.jit:
            say += (
                f". Nothing is left to the driver in about {console.size(special.size)} after about"
                f" {console.duration(special.build_s)}: ./inv specialise pypi:{tag[1:]} --device {name}"
            )
        return Advice(tag, name, "official", say, f"pip install vllm=={tag[1:]}", choices)
    why = official.why[0] if official.why else "it is not usable"
    if usable:
        best = min(usable, key=lambda one: (one.verdict == SLOW_START, one.first_start_s, one.name))
        say = f"use {best.name} from wheels/; the official wheel does not do: {why}"
        return Advice(tag, name, "local", say, f"pip install {wheels / best.name}", choices)
    if built.verdict != NOT_USABLE:
        say = f"build it: the official wheel does not do on {name}: {why}"
        return Advice(tag, name, "build", say, build, choices)
    say = f"nothing is known to work: {why}; and no build: {built.why[0]}"
    return Advice(tag, name, "none", say, f"./inv lock --tag {tag} && {build}", choices)


def _system(name: str) -> str:
    """What a CUDA 13 wheel asks of the device's system: driver, JetPack."""
    entry = device_table.device(name)
    jetpack = f" (JetPack {entry.jetpack.removeprefix('>=')} or newer)" if entry.jetpack else ""
    return f"driver {entry.driver} or newer{jetpack}"


def show(advice: Advice) -> None:
    """Print an advice for people: the answer first, then each choice with what speaks for and against it."""
    console.say(f"{advice.tag} on {advice.device}: {advice.say}", style="bold")
    console.say(f"next  {advice.command}")
    for one in advice.choices:
        facts = [
            one.verdict or f"about {console.duration(one.build_s)} to build",
            f"{len(one.native)} kernel families native, {len(one.jit)} compiled at first use, {len(one.absent)} absent"
            if one.native or one.jit or one.absent
            else "",
            console.size(one.size) if one.size else "",
            f"torch{one.torch}" if one.torch else "",
            f"driver for CUDA {one.driver}" if one.driver else "",
            f"{console.duration(one.first_start_s)} of CPU at the first start"
            if one.first_start_s
            else "nothing to compile at the first start"
            if one.native and one.verdict != NOT_USABLE
            else "",
        ]
        console.say()
        console.say(f"{one.kind}: {one.name}")
        for line in (", ".join(filter(None, facts)), *one.why):
            console.item(line)
