"""`./inv matrix` and `./inv nightly`: from what was typed to what is shown."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_recipes.build.request import parse_duration
from build_recipes.facts import device
from build_recipes.kit import console, http, ourselves
from build_recipes.kit.console import counted
from build_recipes.kit.errors import MissingPackages, NetworkError, UsageError
from build_recipes.kit.host import Host
from build_recipes.kit.paths import Places
from build_recipes.nightly import compiler_cache, feed, matrix, runner, sharing
from build_recipes.nightly import config as configuration
from build_recipes.nightly.events import utc_now
from build_recipes.nightly.jobs import Job, as_dict, commands, shown
from build_recipes.nightly.options import Options
from build_recipes.nightly.store import Store
from build_recipes.toolchain import distro

if TYPE_CHECKING:
    from build_recipes.nightly.gather import Gathered


def open_store(places: Places, feeds: tuple[str, ...] = ()) -> Store:
    """The results of this machine, with those of its own feed and of others read in.

    :param feeds: files, folders, or addresses; empty ones are passed over.
    :raises UsageError: a feed that was named is not there.
    :raises NetworkError: an address does not answer.
    """
    folder = matrix.folder(places)
    store = Store(folder / "night.sqlite")
    own = folder / "feed.jsonl"
    with tempfile.TemporaryDirectory(prefix="armory-feed.") as scratch:
        named = [file for name in feeds if name for file in _feed_files(name, Path(scratch))]
        new = store.merge(feed.read_all([*([own] if own.exists() else []), *named]))
    if new and named:
        console.say(f"{counted(new, 'event')} read from {counted(len(named), 'feed')}")
    return store


def _feed_files(name: str, scratch: Path) -> list[Path]:
    """The files a feed's name means."""
    if name.startswith(("https://", "http://")):
        answer = http.ask(name)
        if answer.status == 404:
            console.warn(f"{name} is not there yet: this is taken for the first night")
            return []
        if answer.status != 200:
            raise NetworkError(f"{name} answers {answer.status}", "run it again later")
        target = scratch / f"{len(list(scratch.iterdir()))}.jsonl"
        target.write_bytes(answer.body)
        return [target]
    path = Path(name)
    if not path.exists():
        raise UsageError(
            f"there is no feed {path}", "name a feed.jsonl, a folder that has some, or an address"
        )
    return sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]


def show_matrix(options: Options) -> None:
    """Print the matrix of today."""
    places = Places.from_environment()
    config = configuration.load(configuration.find(options.config))
    with open_store(places, options.feeds) as store:
        jobs = matrix.resolve(
            config, places, store, here=options.here, offline=options.offline, force=options.force
        )
        if options.github:
            runner.tell_skipped(store, matrix.folder(places), jobs)
    document = as_matrix(config, jobs, places, skipped=options.all)
    if options.github:
        _github_output(document)
    if options.json:
        console.emit_json(document)
        return
    rows = [
        [
            job.id, "" if job.skip else job.runner, "skipped" if job.skip else job.state,
            console.duration(job.estimate_s), str(job.nights), f"{job.fit.gib:g}",
            f"{job.fit.disk_gb:g}" if job.fit.disk_gb else "",
        ]
        for job in jobs
    ]  # fmt: skip
    console.table(config.title, ["job", "runner", "state", "estimate", "nights", "GiB", "disk GB"], rows)
    for job in jobs:
        if why := _why(job):
            console.say(f"{job.id}: {why}")
    skipped = sum(bool(job.skip) for job in jobs)
    console.say(f"{len(jobs) - skipped} to run, {skipped} skipped")


def _why(job: Job) -> str:
    return job.skip or (f"will be red: {job.problem}" if job.problem else "")


def as_matrix(
    config: configuration.Config, jobs: list[Job], places: Places, *, skipped: bool = False
) -> dict[str, Any]:
    """Jobs as GitHub Actions' ``strategy.matrix``: an object with ``include`` and nothing else."""
    tree = str(places.build / "vllm-main")
    return {
        "include": [
            as_dict(job, [shown(command) for command in commands(config, job, tree=tree)])
            for job in jobs
            if skipped or not job.skip
        ]
    }


def _github_output(document: dict[str, Any]) -> None:
    """Write ``matrix``, ``any`` and ``caches`` to the file that GitHub Actions reads a step's outputs from.

    :raises UsageError: not in a step of GitHub Actions.
    """
    target = os.environ.get("GITHUB_OUTPUT")
    if not target:
        raise UsageError(
            "GITHUB_OUTPUT is not set: this is not a step of GitHub Actions", "./inv matrix --json"
        )
    line = console.as_called(json.dumps(document, separators=(",", ":")))
    caches = {job["device"]: job["cache_size"] for job in document["include"] if job["cache_size"]}
    shared = [{"device": name, "size": size} for name, size in caches.items()]
    with Path(target).open("a", encoding="utf-8") as stream:
        stream.write(f"matrix={line}\nany={'true' if document['include'] else 'false'}\n")
        stream.write(f"caches={json.dumps(shared, separators=(',', ':'))}\n")


def merge_cache(gains: tuple[str, ...], size: str, *, github: bool) -> compiler_cache.Merged:
    """Merge what jobs gained into this machine's compiler cache. A folder that is not there is a job that handed
    nothing over, and no error: it is as red as it is.

    :raises UsageError: ``size`` is not a size.
    """
    for name in gains:
        if not Path(name).is_dir():
            console.warn(f"{name} is not there: no job handed anything over")
    limit = compiler_cache.parse_size(size)
    cache = Places.from_environment().cache / "ccache"
    done = compiler_cache.merge(cache, [Path(name) for name in gains], limit)
    target = os.environ.get("GITHUB_OUTPUT")
    if github and target:
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(f"changed={'true' if done.gained else 'false'}\n")
    return done


def run(options: Options) -> None:
    """Run the night, or one job of it.

    :raises NightFailed: a job is red.
    :raises NightBusy: another night runs here.
    """
    deadline = time.monotonic() + parse_duration(options.time_box) if options.time_box else None
    places = Places.from_environment()
    if options.install:
        _install()
    config = configuration.load(configuration.find(options.config))
    folder = matrix.folder(places)
    with runner.night_lock(folder, wait=options.wait), open_store(places, options.feeds) as store:
        jobs = matrix.resolve(config, places, store, here=True, offline=options.offline, force=options.force)
        chosen = runner.choose(jobs, options.only)
        cache = sharing.choose()
        console.step("night", f"{counted(len(chosen), 'job')}, compiler cache: {cache.name}")
        night = runner.Night(config, places, store, cache, deadline, device.detect())
        ccache = places.cache / "ccache"
        before = compiler_cache.entries(ccache) if options.cache_gain else {}
        try:
            if options.workers:
                from build_recipes.nightly import cluster

                cluster.spread(night, chosen, options.workers)
            else:
                runner.run_night(night, chosen)
        finally:
            if options.cache_gain:
                count = compiler_cache.hand_over(before, ccache, Path(options.cache_gain))
                console.say(
                    f"the compiler cache gained {counted(count, 'entry', 'entries')}: {options.cache_gain}"
                )
            console.table("The night", ["job", "state"], [list(row) for row in night.states.items()])
            if options.json:
                console.emit_json({"states": night.states, "feed": str(folder / "feed.jsonl")})


def _install() -> None:
    """Install what builds need and what makes them better; a machine that may not goes on with what it has."""
    host = Host.this()
    try:
        distro.ensure(host, cross=host.machine == "x86_64", install=True)
    except MissingPackages as error:
        console.warn(f"{error.args[0]}; next: {error.advice}")


def page(options: Options, to: str, *, wheels_url: str = "", index_url: str = "", site_url: str = "") -> Path:
    """Write the status page of everything this machine, and the feeds that are named, know.

    :param wheels_url: where wheels are downloaded from.
    :param index_url: a package index that has them (PEP 503).
    :param site_url: where the page will be.
    """
    from build_recipes.nightly.page.rows import Drawing
    from build_recipes.nightly.page.site import write_site

    places = Places.from_environment()
    config = configuration.load(configuration.find(options.config))
    folder = matrix.folder(places)
    with open_store(places, options.feeds) as store:
        feed.sync(store, folder / "feed.jsonl")
        events = [event for _, event in store.events()]
    how = Drawing(utc_now(), wheels_url, index_url, config.page.stale_days, config.page.strip)
    return write_site(
        config.title, events, Path(to).resolve() if to else folder / "page", how, site_url=site_url
    )


def gather_wheels(options: Options, folders: tuple[str, ...], to: str) -> Gathered:
    """Gather the wheels of green runs.

    :raises UsageError: a folder is not there.
    """
    from build_recipes.nightly.gather import gather

    for name in folders:
        if not Path(name).is_dir():
            raise UsageError(f"there is no folder {name}", "--wheels names a folder that holds wheels")
    config = configuration.load(configuration.find(options.config))
    places = Places.from_environment()
    with open_store(places, options.feeds) as store:
        done = gather(store, [Path(name) for name in folders], Path(to or "out").resolve(), config.publish)
        feed.sync(store, matrix.folder(places) / "feed.jsonl")
    return done


def publish(options: Options, source: str, repository: str, site: str) -> dict[str, Any]:
    """Bring gathered wheels to the releases, and write the index of all that is published.

    :param repository: ``owner/name``; GitHub Actions' own by default. Without one nothing is uploaded.
    :param site: folder for the index; empty for none.
    """
    from build_recipes.nightly.publishing import index, release
    from build_recipes.nightly.publishing.github import GitHub

    config = configuration.load(configuration.find(options.config))
    if not Path(source).is_dir():
        raise UsageError(f"there is no folder {source}", "./inv gather makes it")
    hub = GitHub.of_environment(repository)
    if hub is None:
        names = sorted(path.name for path in Path(source).rglob("*.whl"))
        console.say(f"no repository is named: nothing is uploaded ({', '.join(names) or 'no wheels'})")
        return {"uploaded": [], "deleted": [], "retired": [], "index": {}}
    commit = ourselves.invocation().commit or ourselves.commit()
    done = release.publish(hub, Path(source).resolve(), config.publish, commit)
    listed = index.write(done.catalogues, done.urls, Path(site).resolve()) if site else {}
    return {"uploaded": done.uploaded, "deleted": done.deleted, "retired": done.retired, "index": listed}
