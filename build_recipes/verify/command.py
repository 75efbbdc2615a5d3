"""`./inv verify-omni`, from its words to what it prints."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.kit import console
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import ArmoryError, OmniBreaks
from build_recipes.kit.paths import Places
from build_recipes.verify.check import Asked, Checker, show, verdict_error, wheel_of
from build_recipes.verify.judge.reach import PLATFORM, entry_points, tier_by_path
from build_recipes.verify.judge.verdict import BREAKS, CLEAN, UNDECIDED, Report
from build_recipes.verify.read.tree import Tree
from build_recipes.verify.run import environment, imports
from build_recipes.verify.run.imports import BY_VLLM, Imports, Job


@dataclass(frozen=True)
class Options:
    """The words of the command line."""

    tag: str = ""
    omni: str = ""
    vllm: str = ""
    run: bool = False
    stub: bool = False
    env: str = ""
    limit: float = 1800.0
    json: bool = False


def verify(options: Options) -> None:
    """Judge one pair and print the verdict.

    :raises OmniBreaks: a name that an entry point or a model needs at import is missing.
    :raises CouldNotCheck: the question could not be answered.
    """
    asked = Asked(tag=options.tag, omni=options.omni, vllm=options.vllm)
    found: Imports | None = None
    try:
        checker = Checker(Places.from_environment())
        right = checker.vllm(asked)
        left = checker.omni(asked, right)
        report = checker.judge(left, right)
        if options.run or options.stub:
            found = _import(checker, asked, options, left, right)
    except ArmoryError as error:
        if options.json:
            console.emit_json(_undecided(asked, error))
        raise
    real = _real(found) if found else []
    verdict = BREAKS if real else report.verdict
    if found is not None and found.tier == "run" and not real:
        verdict = CLEAN  # the last word
    if options.json:
        document = {**report.as_json(), "verdict": verdict}
        if found is not None:
            document["imports"] = {**msgspec.to_builtins(found), "differs": differs(report, found)}
        console.emit_json(document)
    else:
        show(report)
        if found is not None:
            imports.show(found)
            for line in differs(report, found):
                console.say(f"differs: {line}")
    if real:
        raise OmniBreaks(
            f"vllm-omni {report.omni} does not import with vLLM {report.vllm}: {real[0].module}: {real[0].message}",
            "--matrix shows the pairs without a break",
        )
    if verdict == BREAKS:
        raise verdict_error(report)


def matrix(*, html: str, json: bool, record: bool = False) -> None:
    """Judge all pairs and print the heat map, or one JSON document; write the page where one is named.

    :param record: also write the numbers that come with the project.
    :raises CouldNotCheck: the releases are not known.
    """
    from build_recipes.verify.judge import suggest
    from build_recipes.verify.judge.matrix import compute
    from build_recipes.verify.read.store import Store
    from build_recipes.verify.show import heatmap
    from build_recipes.verify.show.page import page

    places = Places.from_environment()
    found = compute(places)
    if html:
        write_atomic(Path(html), page(found))
        console.say(f"wrote {html}")
    if record:
        suggest.ship(suggest.known(Store(places.cache / "compat" / "parsed.sqlite")))
    if json:
        console.emit_json(heatmap.as_json(found))
    else:
        heatmap.show(found)


def _import(checker: Checker, asked: Asked, options: Options, omni: Tree, vllm: Tree) -> Imports:
    """Run the import tier."""
    order = imports.modules_in_order(omni, entry_points(omni))
    checker.places.build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-omni-", dir=checker.places.build) as work:
        folder = Path(work)
        if options.stub:
            python = Path(options.env) / "bin" / "python" if options.env else None
            paths = [environment.unpack(vllm, folder / "vllm"), environment.unpack(omni, folder / "omni")]
            chosen = python or environment.for_stubs(vllm, omni, checker.places)
            products = sorted(name for name in vllm.products if ".third_party" not in name)
            job = Job("stub", chosen, paths, order, products, vllm.version, folder, options.limit)
            return imports.import_all(job)
        if options.env:
            job = Job("run", Path(options.env) / "bin" / "python", [], order, [], "", folder, options.limit)
            return imports.import_all(job)
        with environment.fresh(
            wheel_of(asked, checker.places), checker.requirement(asked, omni), checker.places
        ) as python:
            return imports.import_all(Job("run", python, [], order, [], "", folder, options.limit))


def _real(found: Imports) -> list[imports.Failure]:
    """Failures that are vLLM's, of files that are no other platform's."""
    return [f for f in found.failures if f.fault == BY_VLLM and tier_by_path(f.file) != PLATFORM]


def differs(report: Report, found: Imports) -> list[str]:
    """Where the static tier and the real import tell different things, one line each.

    A file stops at its first failure, so a static break is only held against a module that did import.
    """
    lines = []
    broken = {entry.file for entry in report.breaks}
    failed = {failure.module for failure in found.failures}
    for entry in report.breaks:
        module = entry.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if module not in failed:
            lines.append(
                f"only static: {entry.file}:{entry.line} {entry.module}.{entry.name}; {module} did import"
            )
    for failure in found.failures:
        if failure.fault == BY_VLLM and failure.file not in broken:
            lines.append(
                f"only real: {failure.file}:{failure.line} {failure.error}: {failure.message.splitlines()[0]}"
            )
    return sorted(set(lines))


def _undecided(asked: Asked, error: ArmoryError) -> dict[str, Any]:
    return {
        "omni": asked.omni,
        "vllm": asked.vllm or asked.tag,
        "verdict": UNDECIDED,
        "breaks": [],
        "calls": [],
        "warnings": [],
        "suggest": {},
        "error": error.args[0],
    }
