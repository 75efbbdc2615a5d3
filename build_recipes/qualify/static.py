"""Tiers 0 and 1: what the wheel is, and whether it imports."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from build_recipes.audit.audit import audit_wheel
from build_recipes.audit.closure import shared_libraries
from build_recipes.build import registrations
from build_recipes.formats.elf import mapped
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.console import counted, warn
from build_recipes.kit.errors import ArmoryError
from build_recipes.kit.paths import Places
from build_recipes.patching import trees as release
from build_recipes.qualify import ops
from build_recipes.qualify.report import FAILED, PASSED, Tier, judge
from build_recipes.qualify.trial import Trial, run_script
from build_recipes.sources.download import fetch_files


def audit(trial: Trial) -> Tier:
    """Tier 0: the audit for the wheel's device, symbols resolved against the torch of the trial where there is one."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        libraries = None
        if trial.base:
            files = [path for place in trial.base.libraries for path in shared_libraries(place)]
            libraries = [stack.enter_context(mapped(path)) for path in files]
        seen = audit_wheel(trial.wheel, [trial.device_name], libraries=libraries)
    allowed = tuple(trial.manifest.audit.allowed)
    bad = seen.failing(allowed)
    verdict = seen.devices[trial.device_name]
    good = not bad and verdict.verdict != "not usable"
    closed = (
        "all symbols resolve against the torch here"
        if seen.closure
        else "symbols are not checked (no torch here)"
    )
    why = "; ".join([*(one.text for one in bad[:3]), *verdict.reasons[:3]])
    return Tier(
        0, "audit", PASSED if good else FAILED,
        f"{trial.device_name}: {verdict.verdict}, {closed}" + (f": {why}" if why else ""),
        round(time.monotonic() - started, 2), seen.as_dict(),
    )  # fmt: skip


def read_ops(trial: Trial) -> dict[str, Any]:
    """The ops that the wheel's Python files call, and which of them its modules register, read statically."""
    with Wheel(trial.wheel) as archive:
        names = list(archive.members)
        read = ops.calls(
            (name, archive.read(name).decode("utf-8", "replace")) for name in names if name.endswith(".py")
        )
        there = ops.registered(
            archive.read(name, most=archive.bounds.member) for name in names if name.endswith(".so")
        )
        files = [name for name in names if name.endswith(".so")]  # one for each Python may be there
        modules = sorted({name[: name.index(".", name.rindex("/"))].replace("/", ".") for name in files})
    left_out = {name.rsplit(".", 1)[-1] for name in trial.left_out}
    kept, passed = ops.wanted(read, left_out, trial.manifest.ops or of_release(trial.version))
    absent = {
        space: gone for space, called in kept.items() if (gone := [one for one in called if one not in there])
    }
    return {"modules": modules, "wanted": kept, "passed_over": passed, "missing_statically": absent}


def of_release(version: str) -> dict[str, list[str]] | None:
    """The ops that a release's own sources register, for a wheel that no build of ours describes; None: not had."""
    try:
        pin = release.pin(version.partition("+")[0])
        file = fetch_files([pin], Places.from_environment().downloads)[pin.filename]
        return registrations.of_sdist(file)
    except ArmoryError as error:
        warn(f"which ops are other platforms' is known from vLLM 0.12.0 alone: {error.args[0]}")
        return None


def imports(trial: Trial, limit: float) -> Tier:
    """Tier 1: import for real where the environment can be fetched; the ops are read statically in any case."""
    started = time.monotonic()
    read = read_ops(trial)
    count = sum(map(len, read["wanted"].values()))
    gone = read["missing_statically"]
    check = {
        "name": "ops that the Python files call are in the modules (static)", "ok": not gone, "calls": count,
        "passed_over": len(read["passed_over"]), **({"missing": gone} if gone else {}),
    }  # fmt: skip
    facts: dict[str, Any] = {"static": read, "left_out": trial.left_out, "checks": [check]}
    if trial.python:
        seen = run_script(trial, "import_check", {"modules": read["modules"], "ops": read["wanted"]}, limit)
        facts = {**seen, **facts, "checks": [check, *seen["checks"]]}
    result, reason = judge(facts["checks"])
    absent = facts.get("requirements_absent")
    if absent:
        warn(f"not installed here, though the wheel asks for them: {', '.join(absent)}")
        if result != PASSED:
            reason += f"; not installed here: {', '.join(absent)} (put their wheels into --with)"
    if result == PASSED:
        reason += f"; {counted(count, 'op')} registered" + (
            "" if trial.python else " (read statically; nothing was imported)"
        )
    if result == PASSED and not trial.python:
        return Tier(
            1, "import", "not run", "no Python with torch: only read statically, and every op is there",
            round(time.monotonic() - started, 2), facts,
        )  # fmt: skip
    return Tier(1, "import", result, reason, round(time.monotonic() - started, 2), facts)
