"""Real source trees and build environments for the benchmarks, made as a build makes them."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from build_recipes.build import pipeline as build
from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages.provision import Provisioned, provision
from build_recipes.kit.console import console
from build_recipes.kit.host import Host
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.sources.fetch import Fetched


def options(what: str) -> argparse.ArgumentParser:
    """The options all benchmarks share."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--tag", default="v0.12.0")
    parser.add_argument("--device", default="thor")
    parser.add_argument("--mirror", action="append", default=[], metavar="URL=DIR")
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--into", type=absolute, default=PROJECT / "build/benchmarks", help="working folder")
    return parser


def absolute(text: str) -> Path:
    """A folder as CMake and ninja must be told of it: they run elsewhere."""
    return Path(text).resolve()


def plan_for(given: argparse.Namespace, name: str, **words: object) -> Plan:
    """A plan whose tree is ``<into>/<name>``; downloads and toolkits are the user's own."""
    places = dataclasses.replace(Places.from_environment(), build=given.into, wheels=given.into / "wheels")
    request = Request(
        tag=given.tag,
        device=given.device,
        mirrors=tuple(given.mirror),
        offline=given.offline,
        **words,  # type: ignore[arg-type]
    )
    return dataclasses.replace(make_plan(request, places), tree=given.into / name)


def prepared(plan: Plan, *, patched: bool = True) -> tuple[Fetched, Provisioned]:
    """Sources, patched or as upstream has them, and the build environment of a plan."""
    plan.tree.mkdir(parents=True, exist_ok=True)
    fetched = build.fetch_sources(plan)
    if patched:
        build.patch_sources(plan, fetched)
    return fetched, provision(plan)


def machine() -> str:
    """What the figures were measured on, with what else was going on."""
    host = Host.this()
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        host.machine,
    )  # fmt: skip
    load = os.getloadavg()[0]
    own = f"{model}, {host.cores} cores, {host.memory_gib} GiB, {host.distribution}"
    return f"{own}; load average {load:.1f} at the end"


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table on standard output, as docs/evidence/benchmarks.md keeps it."""
    console()  # notes of the stages go to stderr
    widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
    print(f"\n{title}\n")
    for number, row in enumerate([columns, *rows]):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(f"\n{machine()}")
