"""``./inv qualify``: the tiers of a wheel, one after another, each with its result, time and reason."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from build_recipes.facts import device as devices
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import paths, process
from build_recipes.kit.console import duration, say, step, table, warn
from build_recipes.kit.data import decoded
from build_recipes.kit.errors import ArmoryError, CouldNotCheck, NotAWheel, QualifyFailed, UsageError
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.qualify import environment, generate, report, static
from build_recipes.qualify.report import FAILED, NOT_RUN, PASSED, Qualification, Tier
from build_recipes.qualify.trial import Manifest, Trial, gpu, of_script, run_script

NAMES = ("audit", "import", "platform", "kernels", "generate", "omni")
LIMITS = {"import": 300.0, "platform": 120.0, "kernels": 600.0, "generate": 420.0, "omni": 1800.0}
"""Seconds a tier's script may take. Generous: PTX may have to be compiled first, and torch.compile runs."""
_OMNI = (
    "import importlib.metadata as m; print(next((d.version for d in m.distributions(name='vllm-omni')), ''))"
)
"""Asks an environment which vllm-omni it has."""


def parse_tiers(text: str) -> tuple[int, ...]:
    """``0,1,2`` or ``kernels,generate``; all for an empty text.

    :raises UsageError: no such tier.
    """
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word in NAMES:
            found.append(NAMES.index(word))
        elif word.isdigit() and int(word) < len(NAMES):
            found.append(int(word))
        else:
            known = ", ".join(f"{number} {name}" for number, name in enumerate(NAMES))
            raise UsageError(f"there is no tier {word}", f"tiers: {known}")
    return tuple(sorted(set(found))) or tuple(range(len(NAMES)))


def qualify(
    wheel: Path, tiers: Sequence[int], *, python: str = "", extra: str = "", device: str = ""
) -> Qualification:
    """Try a wheel on this machine, tier by tier; a tier that fails does not stop the next ones.

    :param python: a Python that has torch and what vLLM needs; python3 of PATH where it is empty.
    :param extra: folder of wheels that the trial needs beside it.
    :param device: the device it was built for; else the wheel's version, then this machine, says it.
    :raises NotAWheel: no vLLM wheel.
    """
    trial, digest, lacking = prepare(wheel, python=python, extra=extra, device=device)
    step("qualify", f"{wheel.name} for {trial.device.title}")
    results = []
    for number in tiers:
        results.append(run_tier(number, trial, lacking))
        tier = results[-1]
        say(
            f"  tier {number} {tier.name:<9} {tier.result:<8} {duration(tier.seconds):>9}  {tier.reason}",
            style={PASSED: "green", FAILED: "bold red"}.get(tier.result, "yellow"),
        )
    done = Qualification(wheel.name, digest, this_machine(trial), tuple(results))
    path = report.keep(wheel, done)
    step("kept", str(path))
    return done


def prepare(wheel: Path, *, python: str, extra: str, device: str) -> tuple[Trial, str, str]:
    """The trial, the wheel's SHA-256, and why nothing can be run in an environment (empty: it can)."""
    with Wheel(wheel) as opened:
        if opened.name != "vllm":
            raise NotAWheel(f"{wheel.name} is a wheel of {opened.name}", "give a vLLM wheel")
        version = str(opened.version)
    local = version.partition("+")[2].split(".")
    name = device or next((part for part in local if part in devices.devices()), "") or devices.detect() or ""
    if not name:
        raise UsageError(f"{wheel.name} does not say which device it is for", "say it: --device thor")
    name = devices.canonical(name)
    digest = file_sha256(wheel)
    folder = Places.from_environment().build / "qualify" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    entry, base, inside, lacking = devices.device(name), None, None, ""
    more: list[Path] = []
    if extra and not Path(extra).is_dir():
        raise UsageError(f"--with {extra} is not a folder", "name a folder of wheels")
    if entry.machine != platform.machine():
        lacking = f"the wheel is for {entry.machine}, this machine is {platform.machine()}"
    else:
        try:
            base = environment.base(python)
            more += sorted(Path(extra).resolve().glob("*.whl")) if extra else []
            inside = environment.make(base, wheel, more, folder, digest)
        except CouldNotCheck as error:
            if python:
                raise
            lacking = str(error.args[0])
    if lacking:
        warn(f"{lacking}; nothing can be imported or run")
    manifest = Manifest()
    try:
        manifest = decoded(wheel.with_name(wheel.stem + ".manifest.json").read_bytes(), Manifest)
    except (OSError, ValueError):
        warn("the wheel has no manifest beside it: modules that were left out on purpose are not known")
    return Trial(wheel, version, name, entry, manifest, base, inside, folder, tuple(more)), digest, lacking


def run_tier(number: int, trial: Trial, lacking: str) -> Tier:
    """One tier's result; an error of ours is its reason, not the end of the run."""
    started = time.monotonic()
    name = NAMES[number]
    no_gpu = gpu() if number in (2, 3, 4) else ""
    if number > 1 and (no_gpu or lacking):
        return Tier(number, name, NOT_RUN, no_gpu or lacking)
    try:
        return _tier(number, trial, started)
    except ArmoryError as error:
        return Tier(number, name, FAILED, str(error.args[0])[:700], round(time.monotonic() - started, 2))


def _tier(number: int, trial: Trial, started: float) -> Tier:
    name = NAMES[number]
    if number == 0:
        return static.audit(trial)
    limit = LIMITS[name]
    if number == 1:
        return static.imports(trial, limit)
    if number == 2:
        wanted = {"capability": trial.device.capability, "unified": trial.device.memory_kind == "unified"}
        return of_script(2, name, run_script(trial, "platform_check", wanted, limit), started)
    if number == 3:
        return of_script(3, name, run_script(trial, "kernels_check", {}, limit), started)
    if number == 4:
        return generate.generate(trial, limit)
    return omni(trial, limit, started)


def omni(trial: Trial, limit: float, started: float) -> Tier:
    """Tier 5: ``verify-omni --run`` in the wheel's environment, through the front door.

    Both sides are read from files where they are there, the wheel itself and vllm-omni's in ``--with``: no network.
    """
    if importlib.util.find_spec("build_recipes.verify.run.environment") is None:
        return Tier(5, "omni", NOT_RUN, "this version has no verify-omni --run")
    assert trial.python is not None
    found = process.capture([trial.python, "-c", _OMNI]).strip()
    if not found:
        reason = "the environment has no vllm-omni: put its wheel, and those of what it needs, into --with"
        return Tier(5, "omni", NOT_RUN, reason, round(time.monotonic() - started, 2))
    log = trial.folder / "omni.log"
    log.unlink(missing_ok=True)
    file = next((path for path in trial.extra if path.name.startswith("vllm_omni-")), "")
    words: list[str | Path] = ["verify-omni", "--vllm", trial.wheel, "--omni", file or found]
    words += ["--run", "--env", trial.python.parent.parent]
    try:
        done = process.run([*paths.OURSELVES, *words], log=log, deadline=time.monotonic() + limit)
    except (TimeoutError, FileNotFoundError) as error:
        return Tier(5, "omni", NOT_RUN, str(error), round(time.monotonic() - started, 2))
    result = {0: PASSED, 62: FAILED}.get(done.returncode, NOT_RUN)
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = said[:2] if result == PASSED else said[-4:]  # the verdict and the count; else the error
    reason = " | ".join(line.strip() for line in told)[-600:]
    facts = {"exit": done.returncode, "said": said[:200]}
    return Tier(5, "omni", result, reason, round(time.monotonic() - started, 2), facts)


def this_machine(trial: Trial) -> dict[str, Any]:
    """What the trial ran on."""
    return {
        "machine": platform.machine(), "kernel": platform.release(), "device": devices.detect(),
        "python": str(trial.base.python) if trial.base else None,
        "torch": str(trial.base.torch) if trial.base else None,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def show(done: Qualification, *, asked: bool = False) -> None:
    """Print the table, and stop where a tier failed, or could not be tried although it was asked for.

    :param asked: the tiers were named; who names none takes what this machine can try.
    :raises QualifyFailed: a tier failed.
    :raises CouldNotCheck: a tier that was asked for was not run.
    """
    rows = [[str(t.number), t.name, t.result, duration(t.seconds), t.reason] for t in done.tiers]
    table(done.wheel, ["tier", "name", "result", "time", "reason"], rows)
    if done.failed:
        names = ", ".join(tier.name for tier in done.failed)
        raise QualifyFailed(
            f"{done.wheel} did not pass: {names}", "read the tier's facts in its .qualify.json"
        )
    missed = [tier for tier in done.tiers if tier.result == NOT_RUN]
    if asked and missed:
        names = ", ".join(f"{tier.number} {tier.name}" for tier in missed)
        raise CouldNotCheck(
            f"asked for and not run: {names} ({missed[0].reason})",
            "type the same command on a machine that can",
        )
