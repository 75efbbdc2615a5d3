"""A job is given what it can end: hours, memory, disk and the compiler cache of a night, simulated and tried."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from test_plan import plan_of

from build_recipes.build import disk
from build_recipes.build.units import simulate
from build_recipes.build.units.costs import Cost, read_journal
from build_recipes.facts.device import devices
from build_recipes.kit.errors import NotEnoughDisk, UsageError
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly import compiler_cache, matrix
from build_recipes.nightly import config as configuration
from build_recipes.nightly.config import Config
from build_recipes.nightly.fit import judge, units_of
from build_recipes.nightly.night import as_matrix, merge_cache, open_store, show_matrix
from build_recipes.nightly.options import Options

NIGHT = configuration.load(configuration.find("nightly"))
ARM64 = next(one for one in NIGHT.runner if one.name == "arm64")


# -- the clock -----------------------------------------------------------------------------------


def test_the_simulation_takes_what_a_real_build_took() -> None:
    """150 units on two cores in one go: from what each took, the whole within two percent."""
    rows = [
        r
        for r in read_journal(PROJECT / "docs/evidence/thor-v0.12.0/units.jsonl")
        if not r["code"] and not r["cached"]
    ]
    took = max(r["ended"] for r in rows) - min(r["ended"] - r["wall_s"] for r in rows)
    course = simulate.run(
        {r["unit"]: Cost(r["wall_s"], r["rss_kib"] / 2**20) for r in rows}, cores=2, memory_gib=20
    )
    assert len(rows) == 150 and not course.left
    assert abs(course.seconds / took - 1) < 0.02


def test_units_run_beside_each_other_as_memory_allows_and_a_box_is_gone_on_with() -> None:
    units = {f"u{n}": Cost(60, 4) for n in range(8)}
    assert simulate.run(units, cores=4, memory_gib=100).seconds == 120
    assert simulate.run(units, cores=4, memory_gib=9).seconds == 240, (
        "two at a time, and one GiB for the rest"
    )
    assert simulate.run(units, cores=4, memory_gib=9).gib == 8
    assert simulate.run(units, cores=4, memory_gib=1).seconds == 480, "one alone runs in any case"
    boxed = simulate.run(units, cores=4, memory_gib=9, box_s=130)
    assert boxed.boxes == (120, 120) and not boxed.left
    never = simulate.run({**units, "long": Cost(500, 1)}, cores=4, memory_gib=9, box_s=130)
    assert never.left == ("long",)


# -- the runner ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["v0.12.0", "v0.33.0"])
def test_a_job_ends_on_githubs_machine_or_its_unit_is_named(tag: str, places: Places) -> None:
    """4 cores, 16 GB, 14 GB of disk, six hours; no two devices' estimates are one number for all."""
    seen = {}
    for name, entry in devices().items():
        if entry.machine != ARM64.machine:
            continue
        runner = next(one for one in NIGHT.runner if one.glibc == entry.glibc)
        plan = plan_of(places, runner.host(), tag=tag, device=name)
        fit = judge(plan, tag, name, runner, cache_gb=NIGHT.cache_gb(runner))
        large = [unit for unit, cost in units_of(tag, name)[0].items() if cost.gib + 1 > runner.memory_gib]
        assert [lack.split(" ")[1] for lack in fit.lacks] == sorted(large)
        assert fit.seconds > 3600 and all(seconds < 5 * 3600 + 1200 for seconds in fit.boxes)
        assert fit.gib > 8 and 8 < fit.disk_gb <= runner.disk_gb
        assert fit.drops, "16 GB of downloads, toolkit and tree"
        seen[entry.arch_list] = round(fit.seconds)
    assert len({seen["11.0"], seen["8.7"], seen["12.1"], seen["9.0"]}) == 4


def test_what_does_not_fit_goes_to_a_larger_runner_or_is_named(places: Places) -> None:
    def of(**change: float) -> Config:
        small = msgspec.structs.replace(ARM64, **change)
        rows = [small if one.name == "arm64" else one for one in NIGHT.runner]
        tags = msgspec.structs.replace(NIGHT.tags, newest=0, main=False)
        thor = [one for one in NIGHT.device if one.name == "thor"]
        return msgspec.structs.replace(NIGHT, runner=rows, tags=tags, device=thor)

    (fits,) = matrix.resolve(of(), places, None, offline=True)
    assert (fits.runner, fits.skip) == ("arm64", "")
    short = of(memory_gib=12.0)
    (named,) = matrix.resolve(short, places, None, offline=True)
    assert named.skip.startswith("does not fit arm64: memory: _C/") and "takes 12.6 GiB" in named.skip
    assert "it would end on arm64-8" in named.skip
    assert as_matrix(short, [named], places) == {"include": []}
    rows = [
        msgspec.structs.replace(one, enabled=one.enabled or one.name == "arm64-8") for one in short.runner
    ]
    (moved,) = matrix.resolve(msgspec.structs.replace(short, runner=rows), places, None, offline=True)
    assert (moved.runner, moved.skip, moved.fit.lacks) == ("arm64-8", "", ())
    (tiny,) = matrix.resolve(of(disk_gb=9.0), places, None, offline=True)
    assert "disk: the build takes" in tiny.skip and "it has 9" in tiny.skip
    (slow,) = matrix.resolve(
        msgspec.structs.replace(of(), runner=[msgspec.structs.replace(r, time_box="5m") for r in NIGHT.runner]),
        places, None, offline=True,
    )  # fmt: skip
    assert "time: " in slow.skip and "one night has 5m" in slow.skip
    old = [msgspec.structs.replace(one, python="3.9") for one in NIGHT.runner]
    (python,) = matrix.resolve(msgspec.structs.replace(of(), runner=old), places, None, offline=True)
    assert "Python 3.9: the lock has no torch" in python.skip
    (here,) = matrix.resolve(short, places, None, offline=True, here=True)
    assert not here.skip, "a machine that asks for itself is given what it asks for"


def test_a_unit_that_a_real_build_measured_as_too_large_is_named(places: Places) -> None:
    """v0.12.0 for 9.0: one unit took more than 15 GiB on an H200, which 16 GB do not hold; 32 GB do."""
    old, large = (
        next(one for one in NIGHT.runner if one.name == name) for name in ("arm64-old", "arm64-8-old")
    )
    plan = plan_of(places, old.host(), device="gh200")
    (lack,) = judge(plan, "v0.12.0", "gh200", old, cache_gb=1.2).lacks
    assert "sparse_scaled_mm_c3x.cu.o takes 15." in lack and "13.9 of its 14.9 are free" in lack
    assert judge(plan, "v0.12.0", "gh200", large, cache_gb=1.2).lacks == ()


def test_a_job_takes_its_numbers_with_it(places: Places) -> None:
    jobs = matrix.resolve(NIGHT, places, None, offline=True)
    document = as_matrix(NIGHT, jobs, places)["include"]
    assert document and all(job["cache_size"] == f"{NIGHT.cache_gb(ARM64):g}G" for job in document)
    hosted = {job["device"] for job in document}
    assert len(hosted) * NIGHT.cache_gb(ARM64) * NIGHT.cache.generations <= NIGHT.cache.quota_gb
    assert all(job["disk_gb"] and job["memory_gib"] and job["drops_downloads"] for job in document)


def test_what_a_night_does_not_run_is_recorded_once_and_is_no_run(
    places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "out"))
    text = (PROJECT / "build_recipes/nightly/nightly.toml").read_text()
    for old, new in (
        ("newest = 2 ", "newest = 0 "), ("main = true ", "main = false "), ("disk_gb = 14 ", "disk_gb = 9 "),
        ('name = "gh200"', 'name = "gb200"'),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "night.toml").write_text(text)
    for _ in range(2):
        show_matrix(Options(config=str(tmp_path / "night.toml"), offline=True, github=True))
    with open_store(places) as store:
        told = [event for _, event in store.events()]
        assert store.runs() == []
    assert {event.kind for event in told} == {"skipped"}
    assert sorted(event.data["device"] for event in told) == ["orin", "spark", "thor"], (
        "gh200 has another runner"
    )
    assert all("disk: the build takes" in event.data["reason"] for event in told)
    output = dict(line.split("=", 1) for line in (tmp_path / "out").read_text().splitlines())
    assert json.loads(output["caches"]) == [{"device": "gb200", "size": f"{NIGHT.cache_gb(ARM64):g}G"}]
    assert [job["id"] for job in json.loads(output["matrix"])["include"]] == ["v0.12.0-gb200"]


# -- the disk ------------------------------------------------------------------------------------


def test_a_disk_without_room_for_the_downloads_loses_them_once_they_are_unpacked(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(places, ARM64.host())
    kept, dropped = (sum(n.octets for n in disk.needs(plan, drop=drop)) for drop in (False, True))
    assert dropped < kept
    free = [kept]
    monkeypatch.setattr(disk, "free_disk", lambda folder: free[0])
    assert disk.check_disk(plan) == []
    free[0] = dropped
    spare = disk.check_disk(plan)
    assert {pin.sha256 for pin in spare} == {pin.sha256 for pin in disk.downloads(plan)}
    offline = dataclasses.replace(plan, request=dataclasses.replace(plan.request, offline=True))
    with pytest.raises(NotEnoughDisk):
        disk.check_disk(offline)
    free[0] -= 1
    with pytest.raises(NotEnoughDisk):
        disk.check_disk(plan)
    for pin in spare[:3]:
        path = places.downloads / pin.sha256 / pin.filename
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    mine = places.downloads / ("0" * 64) / "mine.whl"
    mine.parent.mkdir()
    mine.write_bytes(b"x")
    disk.drop_downloads(plan, spare)
    assert [path.name for path in places.downloads.rglob("*") if path.is_file()] == ["mine.whl"]
    assert "they are unpacked" in capsys.readouterr().err


# -- the compiler cache --------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("ccache"), reason="no ccache")
def test_jobs_of_a_device_share_one_cache_that_stays_below_its_size(tmp_path: Path) -> None:
    """Two machines begin with the same cache and compile different files; a third finds both."""

    def compiled(cache: Path, *names: str) -> int:
        """Compile on a machine with this cache. Returns the hits."""
        env = {**os.environ, "CCACHE_DIR": str(cache), "CCACHE_BASEDIR": str(tmp_path)}
        subprocess.run(["ccache", "-z"], env=env, check=True, capture_output=True)
        for name in names:
            (tmp_path / f"{name}.c").write_text(f"int {name}(void) {{ return {len(name)}; }}\n")
            subprocess.run(
                ["ccache", "gcc", "-c", f"{name}.c", "-o", f"{name}.o"], cwd=tmp_path, env=env, check=True
            )
        said = subprocess.check_output(["ccache", "--print-stats"], env=env, text=True)
        counts = dict(line.split("\t") for line in said.splitlines())
        return int(counts["direct_cache_hit"]) + int(counts["preprocessed_cache_hit"])

    shared = tmp_path / "shared"
    assert compiled(shared, "common", "old") == 0
    for name in ("one", "two"):
        machine = tmp_path / name
        shutil.copytree(shared, machine)
        before = compiler_cache.entries(machine)
        os.utime(shared / next(iter(before)), (1, 1))
        assert compiled(machine, "common", name) == 1
        assert compiler_cache.hand_over(before, machine, tmp_path / "gain" / name) >= 1
    done = compiler_cache.merge(shared, [tmp_path / "gain"], 10**6)
    assert done.gained >= 2 and done.removed == 0
    assert compiled(shared, "common", "one", "two") == 3
    again = compiler_cache.merge(shared, [tmp_path / "gain"], 10**6)
    assert again.gained == 0, "nothing to save"
    cut = compiler_cache.merge(shared, [], again.bytes // 2)
    assert cut.removed and cut.bytes <= again.bytes // 2


def test_a_device_whose_jobs_handed_nothing_over_keeps_its_cache(
    places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = places.cache / "ccache/a/b" / ("0" * 30 + "R")
    entry.parent.mkdir(parents=True)
    entry.write_bytes(b"x" * 100)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "out"))
    done = merge_cache((str(tmp_path / "none"),), "1G", github=True)
    assert (done.gained, done.entries, done.bytes, done.removed) == (0, 1, 100, 0)
    assert (tmp_path / "out").read_text() == "changed=false\n"


def test_a_size_is_ccaches() -> None:
    assert compiler_cache.parse_size("1.2G") == 1_200_000_000
    assert compiler_cache.parse_size("500M") == 500_000_000
    for wrong in ("", "-1G", "1e9", "lots"):
        with pytest.raises(UsageError):
            compiler_cache.parse_size(wrong)
