"""`invoke verify` and `invoke verify-omni`, from their words to what they print."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.facts.device import device
from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import ArmoryError, OmniBreaks, UnknownTag, UsageError
from build_recipes.kit.paths import Places
from build_recipes.verify import packages
from build_recipes.verify.check import Asked, Checker, show, unread_error, verdict_error, wheel_of
from build_recipes.verify.judge.reach import PLATFORM, tier_by_path
from build_recipes.verify.judge.verdict import BREAKS, CLEAN, UNDECIDED, Report
from build_recipes.verify.options import Options
from build_recipes.verify.packages import entry_points, platforms
from build_recipes.verify.read.tree import Tree
from build_recipes.verify.run import environment, imports, requirements
from build_recipes.verify.run.imports import BY_VLLM, Imports, Job
from build_recipes.verify.run.requirements import UNSATISFIABLE, Requirements


@dataclass
class _Outcome:
    """What is known of one pair."""

    document: dict[str, Any]
    """What ``--json`` prints of it."""
    late: ArmoryError | None = None
    """Why the question, or a part of it, could not be answered."""
    report: Report | None = None
    """None where the question could not be answered."""
    found: Imports | None = None
    real: list[imports.Failure] = field(default_factory=list)
    """Real imports that failed for vLLM."""
    needs: Requirements | None = None

    def show(self) -> None:
        """Tell it to people."""
        if self.report is None:
            console.paragraph(f"{self.document['package']}: {self.document['error']}")
            return
        show(self.report)
        if self.found is not None:
            imports.show(self.found)
            for line in differs(self.report, self.found):
                console.paragraph(f"differs: {line}")
        _show_requirements(self.needs)


def verify(options: Options) -> None:
    """Judge one pair, or several packages on one vLLM, and print the verdicts.

    :raises OmniBreaks: a name that an entry point or a model needs at import is missing, or the requirements
        cannot be installed together on the device.
    :raises CouldNotCheck: the question could not be answered.
    """
    several = len(options.packages) > 1
    if several and options.given:
        raise UsageError(f"{options.given} is of one package, and several are named", "name one --package")
    names = options.packages or ("",)
    try:
        outcomes = [_judge(options, name, several) for name in names]
    except ArmoryError as error:
        if options.json:
            console.emit_json(_undecided(options, names[0], error))
        raise
    documents = [outcome.document for outcome in outcomes]
    if options.html:
        from build_recipes.verify.show.page import pairs_page

        write_atomic(Path(options.html), pairs_page(documents))
        console.say(f"wrote {options.html}")
    if options.json:
        console.emit_json({"pairs": documents} if several else documents[0])
    else:
        for outcome in outcomes:
            outcome.show()
    ends = [end for outcome in outcomes if (end := _error(outcome, options.device)) is not None]
    if ends:
        raise next((end for end in ends if isinstance(end, OmniBreaks)), ends[0])


def _judge(options: Options, name: str, several: bool) -> _Outcome:
    """One pair.

    :param several: of several packages; what keeps one from being judged is told, and the others are judged.
    :raises ArmoryError: it could not be judged, and is alone.
    """
    found: Imports | None = None
    late: ArmoryError | None = None
    try:
        package, asked = _asked(options, name)
        checker = Checker(Places.from_environment(), package)
        right = checker.vllm(asked)
        left = checker.omni(asked, right)
        report = checker.judge(left, right)
        if options.run or options.stub:
            try:
                found = _import(checker, asked, options, left, right)
            except ArmoryError as error:
                late = error  # the static answer stands, and is told
        needs = _requirements(options, left, right)
    except ArmoryError as error:
        if not several or isinstance(error, (UsageError, UnknownTag)):
            raise
        return _Outcome(_undecided(options, name, error), error)
    real = _real(found, platforms(left)) if found else []
    verdict = BREAKS if real else report.verdict
    if found is not None and found.tier == "run" and not real:
        verdict = CLEAN  # the last word
    return _Outcome(_document(report, verdict, found, needs, late), late, report, found, real, needs)


def _error(outcome: _Outcome, device: str) -> ArmoryError | None:
    """What a pair ends in; None where no break was found and all was answered."""
    report, real, needs, verdict = outcome.report, outcome.real, outcome.needs, outcome.document["verdict"]
    if report is None:
        return outcome.late
    if real:
        return OmniBreaks(
            f"{report.package} {report.omni} does not import with vLLM {report.vllm}: "
            f"{real[0].module}: {real[0].message}",
            "--matrix shows the pairs without a break",
        )
    if verdict == BREAKS:
        return verdict_error(report)
    if outcome.late is not None:
        return outcome.late
    if verdict == UNDECIDED:
        return unread_error(report)
    if needs is not None and needs.status == UNSATISFIABLE:
        why = "; ".join(map(str, needs.no_wheel)) or needs.why
        return OmniBreaks(
            f"{report.package} {report.omni} and vLLM {report.vllm} cannot be installed together on "
            f"{device} ({needs.platform}, Python {needs.python}): {why}",
            "--matrix shows the pairs without a break; another --device, or another version",
        )
    return None


def _asked(options: Options, typed: str) -> tuple[packages.Package, Asked]:
    """The package and the pair that the command line names.

    :param typed: of ``--package``; empty for vllm-omni.

    :raises UsageError: two words of it contradict each other.
    """
    if options.tag and options.vllm:
        raise UsageError(
            f"--tag {options.tag} and --vllm {options.vllm} both name the vLLM", "give one of the two"
        )
    if options.run and options.stub:
        raise UsageError("--run and --stub are two ways of importing", "give one of the two")
    name, version = packages.asked(typed) if typed else packages.Asked("vllm-omni", "")
    if version and options.given:
        raise UsageError(
            f"--package {typed} and --omni {options.given} both name a version",
            "give one of the two",
        )
    return packages.named(name), Asked(options.tag, version or options.given, options.vllm)


def _requirements(options: Options, left: Tree, right: Tree) -> Requirements | None:
    """Resolve the requirements of the pair for a device; None where the package has none."""
    if not requirements.lines(left):
        return None
    target = device(options.device)
    python = "{}.{}".format(*sys.version_info[:2])
    return requirements.resolve(left, right, target, python, offline=not options.resolve)


def _show_requirements(needs: Requirements | None) -> None:
    if needs is None:
        return
    where = f"on {needs.platform}, Python {needs.python}"
    if needs.status == requirements.RESOLVED:
        built = f"; without a wheel: {', '.join(needs.from_source)}" if needs.from_source else ""
        console.paragraph(
            f"requirements: {counted(needs.count, 'distribution goes', 'distributions go')} together {where}{built}"
        )
    elif needs.no_wheel:
        for lacking in needs.no_wheel:
            console.paragraph(f"requirements: no wheel {where}: {lacking}")
        if needs.count:
            console.paragraph(
                f"requirements: the other {counted(needs.count, 'distribution goes', 'distributions go')} together"
            )
    elif needs.status == UNSATISFIABLE:
        console.paragraph(f"requirements: cannot be installed {where}: {needs.why}")
    else:
        console.paragraph("requirements: not in uv's cache; --resolve asks the index")


def _document(
    report: Report, verdict: str, found: Imports | None, needs: Requirements | None, late: ArmoryError | None
) -> dict[str, Any]:
    """The JSON document of a pair; see `show.documents`."""
    document = {**report.as_json(), "verdict": verdict}
    if found is not None:
        document["imports"] = {**msgspec.to_builtins(found), "differs": differs(report, found)}
    if needs is not None:
        document["requirements"] = msgspec.to_builtins(needs)
    if late is not None:
        document["error"] = str(late.args[0])
    return document


def matrix(*, html: str, json: bool, record: bool = False, package: str = "") -> None:
    """Judge all pairs and print the heat map, or one JSON document; write the page where one is named.

    :param record: also write the counts of vllm-omni's matrix to the file that comes with the project.
    :param package: the distribution; vllm-omni where it is empty.
    :raises CouldNotCheck: the releases are not known.
    """
    from build_recipes.verify.judge import suggest
    from build_recipes.verify.judge.matrix import compute
    from build_recipes.verify.show import heatmap
    from build_recipes.verify.show.page import page

    places = Places.from_environment()
    name, version = packages.asked(package) if package else packages.Asked("vllm-omni", "")
    if version:
        raise UsageError(f"--matrix judges all releases of {name}", f"--matrix --package {name}")
    found = compute(places, package=packages.named(name))
    if html:
        write_atomic(Path(html), page(found))
        console.say(f"wrote {html}")
    if record:
        new = suggest.ship(suggest.counts(found.cells))
        console.say(f"{'wrote' if new else 'nothing new for'} {suggest.SHIPPED.name}")
    if json:
        console.emit_json(heatmap.as_json(found))
    else:
        heatmap.show(found)


def _import(checker: Checker, asked: Asked, options: Options, omni: Tree, vllm: Tree) -> Imports:
    """Run the import tier."""
    order = imports.modules_in_order(omni, entry_points(omni))
    checker.places.build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=checker.places.build) as work:
        folder = Path(work)
        if options.stub:
            python = Path(options.env) / "bin" / "python" if options.env else None
            paths = [environment.unpack(vllm, folder / "vllm"), environment.unpack(omni, folder / "omni")]
            chosen = python or environment.for_stubs(vllm, omni, checker.places)
            made = vllm.products | omni.products
            products = sorted(name for name in made if ".third_party" not in name)
            versions = {tree.package: tree.version for tree in (vllm, omni)}
            job = Job("stub", chosen, paths, order, products, versions, omni.package, folder, options.limit)
            return imports.import_all(job)
        if options.env:
            job = Job(
                "run",
                Path(options.env) / "bin" / "python",
                [],
                order,
                [],
                {},
                omni.package,
                folder,
                options.limit,
            )
            return imports.import_all(job)
        with environment.fresh(
            wheel_of(asked, checker.places), checker.requirement(asked, omni), checker.places
        ) as python:
            return imports.import_all(
                Job("run", python, [], order, [], {}, omni.package, folder, options.limit)
            )


def _real(found: Imports, own: frozenset[str]) -> list[imports.Failure]:
    """Failures that are vLLM's, of files that are no other platform's."""
    return [f for f in found.failures if f.fault == BY_VLLM and tier_by_path(f.file, own) != PLATFORM]


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


def _undecided(options: Options, typed: str, error: ArmoryError) -> dict[str, Any]:
    """The document of a pair that could not be judged."""
    name, _, version = (typed or "vllm-omni").partition("==")
    empty = Report(options.given or version, options.vllm or options.tag, UNDECIDED, [], [], [], package=name)
    return {**empty.as_json(), "error": error.args[0]}
