"""What people read of a diagnosis and of a check-up."""

from __future__ import annotations

from build_recipes.canary.trial import CanaryResult
from build_recipes.diagnosis import grammar
from build_recipes.diagnosis.diagnose import Diagnosis
from build_recipes.doctor.consult import Report
from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.errors import FailureKnown, FailureUnknown, LogUnfinished

_PHASES = {"prepare": "preparing", "configure": "configuring", "compile": "compiling", "link": "linking",
           "start": "starting", "run": "running"}  # fmt: skip


def print_diagnosis(diagnosis: Diagnosis, name: str) -> None:
    """Print a diagnosis on stderr: the report to look at in full, the rest in short."""
    read = f"{counted(diagnosis.lines, 'line')}, {console.size(diagnosis.octets)}"
    if diagnosis.report is None:
        if diagnosis.state == "healthy":
            console.say(f"{name}: no failure, and no sign of one ({read})")
        else:
            last = f"; its last line: {diagnosis.tail[-1].strip()[:200]}" if diagnosis.tail else ""
            console.say(
                f"{name}: no error is reported, and it does not end like a success ({read}){last}",
                style="bold yellow",
            )
        return
    report, known = diagnosis.report, diagnosis.primary
    title = grammar.family(report.tool).title
    if known:
        console.say(f"{name}:{known.line}: {known.id}", style="bold red")
    else:
        console.say(
            f"{name}:{report.line}: {title} reports a failure that is not known here ({read})",
            style="bold yellow",
        )
    for line in report.context:
        console.say(f"    {line}")
    during = f"while {_PHASES[report.phase]}" if report.phase else ""
    said = ", ".join(part for part in (title, during, report.source) if part)
    rows = [("said by", said), ("package", report.package), ("unit", report.unit)]
    if known:
        rows += [("cause", known.cause), ("fix", known.fix), ("seen", ", ".join(known.sources))]
    else:
        rows += [("look", report.look), ("send", report.send)]
    for word, text in rows:
        if text:
            console.say(f"  {word:<8} {text}")
    if not known and diagnosis.unit and not report.unit:
        console.say(f"  {'unit':<8} {diagnosis.unit}")
    rest = [found for found in diagnosis.findings if not found.primary]
    if rest:
        console.table(
            f"Also in the log ({read}); look at these only if they stay",
            ["line", "failure", "cause"],
            [[str(found.line), found.id, found.cause] for found in rest],
        )


def check_diagnosis(diagnosis: Diagnosis, name: str) -> None:
    """Refuse a log that is not healthy.

    :raises FailureKnown: it shows a failure whose cause is known; the advice is its fix.
    :raises FailureUnknown: it shows a failure that is not known.
    :raises LogUnfinished: it shows neither a failure nor a good end.
    """
    known, report = diagnosis.primary, diagnosis.report
    if known:
        raise FailureKnown(f"{name}:{known.line}: {known.id}", known.fix)
    if report:
        raise FailureUnknown(f"{name}:{report.line}: {report.text}", report.look)
    if diagnosis.state == "unfinished":
        raise LogUnfinished(
            f"{name} reports no error, and does not end like a success", "give the whole log, to its end"
        )


def print_canary(result: CanaryResult) -> None:
    """Print how the canary did: one line where it lives; its cause of death is told by the error."""
    took = console.duration(result.seconds)
    if not result.ok:
        console.say(f"the canary died after {took} (log: {result.log})", style="bold red")
        return
    parts = ["kernel and torch op" if result.torch else "kernel without torch", " ".join(result.code)]
    parts.append("it ran on the GPU" if result.ran else "loaded" if result.loaded else "compiled and linked")
    why = f" ({result.why})" if result.why else ""
    console.say(f"the canary lives: {', '.join(parts)}{why}, {took}", style="bold green")


_STYLE = {"ok": "green", "warning": "yellow", "blocker": "bold red", "unknown": "cyan"}


def print_report(report: Report) -> None:
    """Print a check-up: one line a check, and under what is not well what follows and what fixes it."""
    for found in report.findings:
        console.say(f"{found.status:>8}  {found.check}: {found.seen}", style=_STYLE[found.status])
        if found.follows:
            console.say(f"{'':>8}  {found.follows}")
        if found.fix and found.status != "ok":
            console.say(f"{'':>8}  fix: {found.fix}")
    if report.left_out:
        why = "they need a tag, a device, or the machine itself"
        console.say(f"{'not asked':>9} {', '.join(report.left_out)} ({why})")
