"""nightly.toml to jobs: tags and devices resolved against the index, the locks and what is green already."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from packaging.version import Version

from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request, parse_duration
from build_recipes.facts import versions
from build_recipes.facts.device import as_dict as as_facts
from build_recipes.facts.device import device as device_named
from build_recipes.kit import paths
from build_recipes.kit.console import counted, warn
from build_recipes.kit.errors import ArmoryError, BadData, LockMissing, NetworkError, UnsupportedPair
from build_recipes.kit.host import Host
from build_recipes.kit.paths import Places
from build_recipes.nightly.config import Config, Runner, Target
from build_recipes.nightly.fit import Fit, judge
from build_recipes.nightly.jobs import Job
from build_recipes.nightly.store import Store
from build_recipes.sources import registry
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import lock_path
from build_recipes.sources.mirrors import configured_mirrors

LIMIT = 256
"""Jobs of one matrix that GitHub Actions takes."""


@dataclass(frozen=True)
class World:
    """What there is today."""

    releases: list[str] | None
    """Versions of vLLM on the index, oldest first; None where it was not asked."""
    omni: list[str]
    """Versions of vllm-omni, oldest first."""
    main: str
    """Commit of main; empty where it is not built or could not be asked."""
    main_unknown: str
    """Why it could not."""


def look(config: Config, places: Places, *, offline: bool) -> World:
    """Ask the index and the repository; what does not answer is told and done without."""
    releases: list[str] | None = None
    omni: list[str] = []
    main = unknown = ""
    if not offline:
        try:
            releases = registry.releases("vllm")
            kinds = ("sdist", "wheel")  # newer ones come as wheels alone
            omni = registry.releases("vllm-omni", kinds=kinds) if config.omni.newest else []
        except NetworkError as error:
            warn(f"{error.args[0]}; the releases that vllm.toml names are used")
    if config.tags.main:
        try:
            library = Library(places.git, configured_mirrors(), offline)
            main = library.resolve(versions.facts().repository, "main")
        except ArmoryError as error:
            unknown = f"main's commit is not known: {error.args[0]}"
    return World(releases, omni, main, unknown)


def newest(known: Sequence[str], count: int) -> list[str]:
    """The last ``count`` final releases, oldest first."""
    final = sorted((v for v in known if not Version(v).is_prerelease), key=Version)
    return final[-count:] if count else []


def tags(config: Config, known: Sequence[str]) -> list[str]:
    """Release tags to build, the newest first, each once."""
    wanted = {f"v{v}" for v in newest(known, config.tags.newest)} | set(config.tags.always)
    return sorted(wanted, key=_order, reverse=True)


def _order(tag: str) -> Version:
    try:
        return Version(versions.version_of(tag))
    except ArmoryError:
        return Version("0")


def resolve(
    config: Config, places: Places, store: Store | None, *, here: bool = False, offline: bool = False,
    force: bool = False,
) -> list[Job]:  # fmt: skip
    """The matrix of today.

    :param here: for this machine, whatever runners the file names.
    :param force: also what is green already.
    :raises BadData: more jobs than GitHub takes, or the file asks for nothing.
    """
    world = look(config, places, offline=offline)
    known = world.releases if world.releases is not None else versions.facts().releases
    wanted = tags(config, known)
    refs = [(tag, tag) for tag in wanted]
    if config.tags.main:
        base = next((tag for tag in wanted if lock_path(tag).is_file()), "")
        refs.insert(0, (base, world.main or "main"))
    jobs = []
    for target in config.device:
        runners = tuple(config.runners_of(target))
        if not runners and not here:
            warn(f"no runner of {target.name} is enabled: it is not built")
            continue
        for tag, ref in refs:
            cell = Cell(config, target, runners or (config.runner[0],), tag, ref)
            jobs.append(_seen_before(_job(cell, world, places, here=here), store, force=force))
    if not jobs:
        raise BadData("the matrix is empty: no tag, or no device with an enabled runner", "see nightly.toml")
    if len(jobs) > LIMIT:
        raise BadData(
            f"the matrix has {counted(len(jobs), 'job')}; GitHub takes {LIMIT}",
            "ask for less in nightly.toml",
        )
    return jobs


@dataclass(frozen=True)
class Cell:
    """What a job is made of."""

    config: Config
    target: Target
    runners: tuple[Runner, ...]
    """Those that may build it, the first choice first."""
    tag: str
    ref: str
    """The tag, or main's commit."""


def _job(cell: Cell, world: World, places: Places, *, here: bool) -> Job:
    config, tag, device = cell.config, cell.tag, cell.target.name
    main = cell.ref != tag
    host = Host.this() if here else cell.runners[0].host()
    problem = skip = ""
    plan: Plan | None = None
    if main and (world.main_unknown or not tag):
        skip = world.main_unknown or "no tag of the matrix has a lock that main could be built with"
    else:
        try:
            versions.check_known(tag, world.releases)
            plan = _plan(tag, device, places, host, config)
        except UnsupportedPair as error:
            skip = f"refused: {error.args[0]}"
        except ArmoryError as error:
            problem = str(error.args[0])
    omni = tuple(dict.fromkeys([*config.omni.always, *newest(world.omni, config.omni.newest)]))
    runner, fit = _this_machine(cell, host, plan) if here else _place(cell, plan)
    if fit.lacks and not here:
        skip = skip or _why_not(cell, runner, fit, plan)
    return Job(
        id=f"{'main' if main else tag}-{device}{config.suffix}",
        tag=tag,
        ref=cell.ref,
        device=device,
        runner="here" if here else runner.name,
        runs_on=tuple(runner.labels),
        omni=omni,
        fingerprint="" if plan is None and (skip or problem) else _fingerprint(cell, plan, omni),
        unlocked=not main and not skip and not problem and plan is None,
        estimate_s=round(fit.seconds),
        estimate_from=f"the units of {fit.basis}",
        time_box=parse_duration(runner.time_box),
        fit=fit,
        cache_gb=config.cache_gb(runner),
        python=runner.python,
        skip=skip,
        problem=problem,
    )


def _plan(tag: str, device: str, places: Places, host: Host, config: Config) -> Plan | None:
    """The build's plan; None where the tag has no lock yet."""
    versions.for_version(versions.version_of(tag)).check_device(tag, device)
    try:
        return make_plan(Request(tag=tag, device=device, smoke=config.smoke), places, host)
    except LockMissing:
        return None


def _fit(cell: Cell, runner: Runner, plan: Plan | None) -> Fit:
    return judge(
        plan,
        cell.tag,
        cell.target.name,
        runner,
        cache_gb=cell.config.cache_gb(runner),
        smoke=cell.config.smoke,
    )


def _place(cell: Cell, plan: Plan | None) -> tuple[Runner, Fit]:
    """The first runner that a job ends on; the first of all where it ends on none."""
    fits = [(runner, _fit(cell, runner, plan)) for runner in cell.runners]
    return next(((runner, fit) for runner, fit in fits if not fit.lacks), fits[0])


def _this_machine(cell: Cell, host: Host, plan: Plan | None) -> tuple[Runner, Fit]:
    """This machine as a runner: what it has is looked at by the build itself."""
    runner = msgspec.structs.replace(
        cell.runners[0], cores=host.cores, memory_gib=host.memory_gib, disk_gb=0, labels=["self-hosted"]
    )
    return runner, _fit(cell, runner, plan)


def _why_not(cell: Cell, runner: Runner, fit: Fit, plan: Plan | None) -> str:
    """Why a job is given to nobody, and which runner of the file would do."""
    named = [one for one in cell.config.runner if one.name in cell.target.runners and not one.enabled]
    larger = [one.name for one in named if not _fit(cell, one, plan).lacks]
    more = f" (and {len(fit.lacks) - 1} more)" if len(fit.lacks) > 1 else ""
    advice = f"; it would end on {' or '.join(larger)}, which is not enabled" if larger else ""
    return f"does not fit {runner.name}: {fit.lacks[0]}{more}{advice}"


def _fingerprint(cell: Cell, plan: Plan | None, omni: tuple[str, ...]) -> str:
    """What a job's result depends on: of a release its plan; of main, and of a tag whose lock is still to be made,
    the commit or tag and the recipe, so that neither is built again while nothing changed."""
    main = cell.ref != cell.tag
    facts = {
        "plan": _recipe(cell.target.name) if main or plan is None else plan.fingerprint,
        "ref": cell.ref,
        "omni": omni,
        "steps": msgspec.to_builtins(cell.config.step),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _recipe(device: str) -> str:
    """What this program does to any source for a device: its patches, its toolkit, what it knows of the device."""
    digest = hashlib.sha256(json.dumps(as_facts(device_named(device)), sort_keys=True).encode())
    digest.update(versions.facts().cuda_toolkit.version.encode())
    for path in sorted(path for path in paths.PATCHES.rglob("*") if path.is_file()):
        digest.update(path.relative_to(paths.PATCHES).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _seen_before(job: Job, store: Store | None, *, force: bool) -> Job:
    """What earlier nights know of the job."""
    runs = store.runs(job.id) if store else []
    if store is None or not runs:
        return job
    state = "again" if runs[0].state == "red" else "new"
    if store.unfinished(job.id, job.fingerprint):
        state = "resume"
    ready = store.green(job.id, job.fingerprint)
    skip = job.skip or ("" if force or not ready else f"green already: {ready.id}")
    took = next((run.seconds for run in runs if run.state == "green"), 0.0)
    if took > job.estimate_s / 4:  # a shorter one came out of the compiler cache
        return dataclasses.replace(
            job, state=state, skip=skip, estimate_s=took, estimate_from="its last green night"
        )
    return dataclasses.replace(job, state=state, skip=skip)


def folder(places: Places) -> Path:
    """Where results are kept: the database, the feed, logs and the page."""
    return places.wheels / "nightly"
