"""A plan made visible: what would be done, how much it would fetch, how long it would take."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from build_recipes.build.disk import downloads, here, needs
from build_recipes.build.plan import Plan, memory_note
from build_recipes.build.stages.given import host_compiler, newer_library
from build_recipes.build.stages.published import published
from build_recipes.build.stages.trees import foreseen
from build_recipes.build.units.estimate import Estimate, before
from build_recipes.kit.console import counted, duration, say, size
from build_recipes.kit.errors import ToolchainMismatch
from build_recipes.sources.lockfile import TreePin

OVERHEAD_S = 60
"""Seconds of a build beside its compilers once everything is fetched (measured: fetch to configure, package, audit)."""


def at_once(plan: Plan) -> int:
    """Units that are compiled at the same time: more jobs than cores make nothing faster."""
    return min(plan.jobs, plan.host.cores)


def preview(plan: Plan) -> dict[str, Any]:
    """The plan with its sizes and estimates, as plain data."""
    files = downloads(plan)
    cached = sum(pin.size for pin in files if here(plan, pin))
    room = needs(plan)
    hoped = estimate(plan)
    ready = published(plan)
    return {
        **plan.as_dict(),
        "up_to_date": str(ready.wheel) if ready else None,
        "trees": [
            {"name": tree.name, "repository": tree.repository, "commit": tree.commit or _instead(tree)}
            for tree in plan.lock.trees
        ],
        "download_bytes": sum(pin.size for pin in files) - cached,
        "cached_bytes": cached,
        "disk_gib": round(sum(need.octets for need in room) / 2**30, 1),
        "disk": [{"folder": str(need.folder), "what": need.what, "bytes": need.octets} for need in room],
        "cpu_seconds": round(hoped.cpu_s),
        "wall_seconds": round(hoped.cpu_s / at_once(plan) + OVERHEAD_S),
        "estimate_from": hoped.basis,
        "estimate": {
            "units": hoped.units,
            "modules": hoped.modules,
            "gib": hoped.gib,
            "heaviest": hoped.heaviest,
            "short_of_memory": memory_note(plan.host, hoped.heaviest, hoped.gib),
            "unknown": hoped.unknown,
        },
        "selected": plan.selected,
        "lacks": [
            {
                "tree": lack.tree.name,
                "reason": lack.reason,
                "needed_by": lack.needed_by,
                "perhaps": lack.perhaps,
                "next": lack.advice,
            }
            for lack in foreseen(plan)
        ],
        "compiler": _compiler(plan),
        "environment": planned_environment(plan),
    }


def _instead(tree: TreePin) -> str:
    """What stands in for a commit that the lock does not know."""
    if tree.from_wheel is None:
        return tree.unresolved
    return f"{counted(len(tree.from_wheel.members), 'file')} of {tree.from_wheel.wheel.filename}"


def _compiler(plan: Plan) -> dict[str, str]:
    """The C++ compiler that was chosen, or why there is none and what to type."""
    try:
        found = host_compiler(plan)
    except ToolchainMismatch as error:
        return {"problem": str(error.args[0]), "next": error.advice}
    if not found:
        return {"problem": "this machine has none"}
    return {"program": found.cxx, "version": found.version, "library": newer_library(plan, found)}


def estimate(plan: Plan) -> Estimate:
    """What the compile is expected to take; a configured tree knows its units, else the survey does."""
    request = plan.request
    if request.smoke:
        return Estimate(2, 120.0, 3.0, {}, "a smoke build links one module and compiles one unit")
    return before(
        plan.tag, plan.version, plan.device.arch_list, plan.tree, only=request.only, without=request.without
    )


def planned_environment(plan: Plan) -> dict[str, str]:
    """The variables that the build exports, with the paths of its tree."""
    trees = {
        tree.variable: plan.tree / "src" / tree.name / tree.subdir
        for tree in plan.lock.trees
        if tree.variable
    }
    return plan.environment(_cuda_home(plan), plan.tree / "env/bin/python", trees)


def _cuda_home(plan: Plan) -> Path:
    if plan.request.cuda not in ("", "wheels"):
        return Path(plan.request.cuda)
    return plan.tree / "cuda"


def exports(variables: dict[str, str]) -> str:
    """``export`` lines for a POSIX shell."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def show(made: dict[str, Any]) -> None:
    """Print a preview for people."""
    say(
        f"{made['wheel_version']}  {made['device']} ({made['arch_list']}), {made['platform_tag']}",
        style="bold",
    )
    say(f"  fingerprint  {made['fingerprint']}" + ("  (up to date)" if made["up_to_date"] else ""))
    say(
        f"  torch        {made['torch']['version']} (CUDA {made['torch']['cuda']}) from {made['torch']['index']}"
    )
    way = "cross-compiled" if made["cross"] else "native"
    host = made["host"]
    say(
        f"  host         {host['machine']}, {host['cores']} cores, {host['memory_gib']} GiB: {way}, {made['jobs']} jobs"
    )
    compiler = made["compiler"]
    if "problem" in compiler:
        say(f"  compiler     {compiler['problem']}")
        say(f"  next         {compiler.get('next', 'the build names the package')}")
    else:
        say(f"  compiler     {compiler['program']} {compiler['version']}")
        if compiler["library"]:
            say(f"               {compiler['library']}")
    for tree in made["trees"]:
        say(f"  tree         {tree['name']} {tree['commit']}")
    say(f"  patches      {', '.join(made['patches']) or 'none'}")
    say(f"  to fetch     {size(made['download_bytes'])} ({size(made['cached_bytes'])} in the cache)")
    for need in made["disk"]:
        say(f"  disk         {size(need['bytes'])} for {need['what']} in {need['folder']}")
    say(
        f"  compile      {made['estimate']['units']} units, about {made['cpu_seconds'] / 60:.0f} CPU minutes, "
        f"{duration(made['wall_seconds'])} on this machine ({made['estimate_from']})"
    )
    if made["selected"]:
        say(f"  modules      {made['selected']}")
    if made["estimate"]["short_of_memory"]:
        say(f"  memory       {made['estimate']['short_of_memory']}")
    if made["estimate"]["unknown"]:
        say(f"               and what {', '.join(made['estimate']['unknown'])} take, which is not known")
    for lack in made["lacks"]:
        if lack["needed_by"]:
            what = f"{', '.join(lack['needed_by'])} need it"
        elif lack["perhaps"]:
            what = f"{', '.join(lack['perhaps'])} may need it: CMake will tell"
        else:
            what = f"{made['device']} compiles nothing of it"
        say(f"  missing      {lack['tree']}: {lack['reason']}; {what}")
        if lack["needed_by"] or lack["perhaps"]:
            say(f"  next         {lack['next']}")
