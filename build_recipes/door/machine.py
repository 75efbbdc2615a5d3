"""The machine and its failures: doctor, canary, diagnose."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.frame import door


@task(
    auto_shortflags=False,
    help={
        "device": "device that wheels are for; this machine's where it is left out",
        "tag": "vLLM tag whose needs are checked",
        "root": "root of another machine's files (a snapshot of a board)",
        "python": "Python whose torch and Triton are looked at",
        "json": "print one JSON document on stdout",
    },
)
def doctor(
    c: Context, device: str = "", tag: str = "", root: str = "", python: str = "", json: bool = False
) -> None:
    """Say what this machine is and what stops a build or a run on it; and the command that fixes it."""
    with door(json):
        from build_recipes.doctor import consult
        from build_recipes.doctor.report import print_report
        from build_recipes.kit import console

        report = consult.doctor(device, tag, root, python)
        if json:
            console.emit_json(report.as_dict())
        else:
            print_report(report)
        consult.check(report)


@task(
    auto_shortflags=False,
    help={
        "tag": "try the build environment of this vLLM tag (made first, if it is not there)",
        "device": "device to compile for; this machine's where it is left out",
        "python": "without --tag: Python whose torch is built against",
        "json": "print one JSON document on stdout",
    },
)
def canary(c: Context, tag: str = "", device: str = "", python: str = "", json: bool = False) -> None:
    """Build a tiny CUDA extension as the big build would, in seconds; run it where there is a GPU."""
    with door(json):
        from build_recipes.build.stages import canary as canaries
        from build_recipes.doctor.report import print_canary
        from build_recipes.kit import console

        result = canaries.canary(tag, device, python)
        if json:
            console.emit_json(result.as_dict())
        else:
            print_canary(result)
        canaries.check(result)


@task(
    auto_shortflags=False,
    positional=["log"],
    help={"log": "a log file, or - for standard input", "json": "print one JSON document on stdout"},
)
def diagnose(c: Context, log: str, json: bool = False) -> None:
    """Say what went wrong in a log: line, tool, cause, fix. Exit code 0: healthy, 65: known, 66: unknown."""
    with door(json):
        from build_recipes.diagnosis.diagnose import diagnose_file
        from build_recipes.doctor.report import check_diagnosis, print_diagnosis
        from build_recipes.kit import console
        from build_recipes.kit.errors import UsageError

        if log.startswith("-") and log != "-":
            raise UsageError(f"'{log}' stands where a log is asked for", "./inv --help diagnose")
        diagnosis = diagnose_file(log)
        name = "standard input" if log == "-" else log
        if json:
            console.emit_json(diagnosis.as_dict())
        else:
            print_diagnosis(diagnosis, name)
        check_diagnosis(diagnosis, name)
