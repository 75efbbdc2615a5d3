"""What people read of a diagnosis and of a check-up."""

from __future__ import annotations

from build_recipes.canary.trial import CanaryResult
from build_recipes.diagnosis.diagnose import Diagnosis, Finding
from build_recipes.doctor.consult import Report
from build_recipes.kit import console


def print_diagnosis(diagnosis: Diagnosis, name: str) -> None:
    """Print a diagnosis on stderr: the first cause in full, the rest in short."""
    read = f"{diagnosis.lines} lines, {console.size(diagnosis.octets)}"
    if diagnosis.unknown:
        _print_unknown(diagnosis, name, read)
        return
    if not diagnosis.findings:
        console.say(f"{name}: no known failure, and no sign of one ({read})")
        return
    _print_cause(diagnosis.findings[0], name, diagnosis.unit)
    rest = diagnosis.findings[1:]
    if rest:
        console.table(
            f"Also in the log ({read}); look at these only if they stay",
            ["line", "failure", "cause"],
            [[str(found.line), found.id, found.cause] for found in rest],
        )


def _print_cause(found: Finding, name: str, unit: str | None) -> None:
    console.say(f"{name}:{found.line}: {found.id}", style="bold red")
    console.say(f"  {found.text}")
    if unit:
        console.say(f"  unit   {unit}")
    console.say(f"  cause  {found.cause}")
    console.say(f"  fix    {found.fix}")
    console.say(f"  seen   {', '.join(found.sources)}")


def _print_unknown(diagnosis: Diagnosis, name: str, read: str) -> None:
    console.say(f"{name}: it failed, and the failure is unknown ({read})", style="bold yellow")
    if diagnosis.unit:
        console.say(f"  unit   {diagnosis.unit}")
    console.say("  its last lines:" if diagnosis.unit else "  the log's last lines:")
    for line in diagnosis.tail:
        console.say(f"    {line}")


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
    """Print a check-up: one line a check, and under what is not well what follows and what mends it."""
    for found in report.findings:
        console.say(f"{found.status:>8}  {found.check}: {found.seen}", style=_STYLE[found.status])
        if found.follows:
            console.say(f"{'':>8}  {found.follows}")
        if found.fix and found.status != "ok":
            console.say(f"{'':>8}  fix: {found.fix}")
