"""The next step after a failure, from what its log says."""

from __future__ import annotations

from pathlib import Path

from build_recipes.diagnosis.diagnose import diagnose_file


def advice_for(log: Path) -> str:
    """What to do about the failure that a log records: the fix of its first cause, if that is known."""
    diagnosed = diagnose_file(log) if log.exists() else None
    if diagnosed and (primary := diagnosed.primary):
        return f"{primary.cause.rstrip('.')}. {primary.fix.rstrip('.')} ({primary.id}; ./inv diagnose {log})"
    if diagnosed and (report := diagnosed.report):
        return f"{report.look.rstrip('.')} (line {report.line}: {report.text[:200]}; ./inv diagnose {log})"
    return f"./inv diagnose {log}"
