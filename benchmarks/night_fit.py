"""How the jobs of a night go on GitHub's arm64 machine, simulated: the table of docs/evidence/nights/fit.md.

    .venv/bin/python benchmarks/night_fit.py [TAG ...] > docs/evidence/nights/fit.md

Nothing is compiled, and no network is used. Without tags: v0.12.0 and the newest with a lock.
"""

from __future__ import annotations

import sys

import msgspec
from packaging.version import Version

from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.units import simulate
from build_recipes.build.units.costs import Cost, expected, read_journal
from build_recipes.facts.device import devices
from build_recipes.kit import paths
from build_recipes.kit.errors import ArmoryError
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly import config as configuration
from build_recipes.nightly.config import Runner
from build_recipes.nightly.fit import judge

COLUMNS = (
    "tag", "device", "units", "CPU min", "hours, each night", "peak memory, GiB", "disk with downloads, GB",
    "disk, GB", "ends there", "units of",
)  # fmt: skip
HEAD = """# What a job of the night takes on GitHub's arm64 machine

Made by `benchmarks/night_fit.py`; nothing was compiled for it. The runner is `arm64` of nightly.toml (`arm64-old` for
devices with glibc 2.35, the same machine with Ubuntu 22.04): {cores} cores, {memory:g} GiB (16 GB), {disk:g} GB of
disk, {box} of {hours:g} hours. Hours and memory: the broker's rule on the cost of each unit (`costs.toml`, fitted to
the recorded builds of docs/evidence), with a CPU second of that machine taken for one of ours, and {reserve:g} GiB
for the rest of the system. Disk: the sizes of the lock's files, unpacked as `sizes.toml` has measured, with {cache:g}
GB of compiler cache and this program. A cell whose own tag was not surveyed for that device is counted by the nearest
that was: the last column names it. Fetching is not in the hours.

"""
FOOT = """
The disk of {disk:g} GB does not hold the downloads beside what is unpacked of them. A build that sees this removes
what it fetched itself once it is unpacked (`invoke build` tells it); the second column of disk is that. Tried on
2026-11-26 with a smoke build of v0.12.0 for Thor on a disk that was made to say that 226 MB are free where 263 were
needed: it removed the 38 MB that it had fetched after they were unpacked, kept the 46 other downloads of the cache,
and ended with its wheel.

## The compiler cache

379 units (of v0.26.0 for Thor and v0.28.0 for Spark) take 216 MB in ccache, 0.57 MB each; the {cache:g} GB of a
device hold about {held:.0f}. Not measured: units for 9.0 alone.

## A time box that is too short

`{tags[0]}` for gh200 in boxes of two hours: {short} hours. What one night compiled comes out of
the compiler cache in the next.

## The simulation against a real build

| build | cores | units | it took, s | simulated from what its units took, s | from costs.toml, s |
|---|---|---|---|---|---|
{real}

Builds in time boxes have pauses between them and are not compared.
"""


def newest() -> str:
    """The newest tag with a lock."""
    return max((path.stem for path in paths.LOCKS.glob("v*.toml")), key=lambda tag: Version(tag[1:]))


def row(tag: str, name: str, runner: Runner, cache_gb: float) -> str:
    """One line of the table."""
    try:
        plan = make_plan(Request(tag=tag, device=name), Places.from_environment(), runner.host())
    except ArmoryError as error:
        return line(tag, name, *[""] * 6, f"no: {error.args[0]}", "")
    fit = judge(plan, tag, name, runner, cache_gb=cache_gb)
    kept = judge(plan, tag, name, with_any_disk(runner), cache_gb=cache_gb)
    hours = " + ".join(f"{seconds / 3600:.2f}" for seconds in fit.boxes)
    ends = "no: " + "; ".join(fit.lacks) if fit.lacks else "yes"
    cells = (
        tag, name, fit.units, f"{fit.cpu_s / 60:.0f}", hours, f"{fit.gib:g}", f"{kept.disk_gb:g}", f"{fit.disk_gb:g}",
        ends, fit.basis,
    )  # fmt: skip
    return line(*cells)


def line(*cells: object) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def with_any_disk(runner: Runner) -> Runner:
    """The runner with a disk that nobody judges."""
    return msgspec.structs.replace(runner, disk_gb=0)


def real(build: str, cores: int, memory_gib: float) -> str:
    """A build of which every unit was compiled in one go, against its simulation."""
    rows = [r for r in read_journal(PROJECT / "docs/evidence" / build / "units.jsonl") if r["code"] == 0]
    took = max(r["ended"] for r in rows) - min(r["ended"] - r["wall_s"] for r in rows)
    measured = {r["unit"]: Cost(r["wall_s"], r["rss_kib"] / 2**20) for r in rows}
    table = {unit: expected(unit) for unit in measured}
    seconds = [simulate.run(units, cores=cores, memory_gib=memory_gib).seconds for units in (measured, table)]
    return line(build, cores, len(rows), *(f"{value:.0f}" for value in (took, *seconds)))


def main() -> None:
    """Print the document."""
    config = configuration.load(configuration.find("nightly"))
    runners = {one.name: one for one in config.runner}
    runner = runners["arm64"]
    tags = sys.argv[1:] or ["v0.12.0", newest()]
    print(HEAD.format(
        cores=runner.cores, memory=runner.memory_gib, disk=runner.disk_gb, box=runner.time_box, hours=runner.hours,
        reserve=simulate.RESERVE_GIB, cache=config.cache_gb(runner),
    ), end="")  # fmt: skip
    print(line(*COLUMNS), line(*["---"] * len(COLUMNS)), sep="\n")
    for tag in tags:
        for name, entry in devices().items():
            own = runners["arm64-old"] if entry.glibc < runner.glibc else runner
            print(row(tag, name, own, config.cache_gb(own)))
    box = judge(
        None,
        tags[0],
        "gh200",
        msgspec.structs.replace(runner, time_box="2h"),
        cache_gb=config.cache_gb(runner),
    ).boxes
    short = " + ".join(f"{seconds / 3600:.2f}" for seconds in box)
    print(
        FOOT.format(
            cache=config.cache_gb(runner),
            held=config.cache_gb(runner) * 1000 / 0.57,
            tags=tags,
            short=short,
            disk=runner.disk_gb,
            real=real("thor-v0.12.0", 2, 20),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
