"""`./inv audit`: from what was typed to an audit on the screen."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from build_recipes.audit import audit as auditing
from build_recipes.audit import compare, exports, render, subject
from build_recipes.audit.closure import Library
from build_recipes.audit.options import Options
from build_recipes.facts.device import device
from build_recipes.kit import console, paths
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import UsageError


def check_named(wheel: str, task: str) -> None:
    """Refuse a flag where a wheel should stand (Invoke gives a required argument whatever comes first).

    :raises UsageError: with the right way to ask.
    """
    if not wheel or wheel.startswith("-"):
        raise UsageError(
            f"a wheel should come first, '{wheel}' does",
            f"./inv {task} WHEEL (pypi:0.33.0, or a path); all flags: ./inv --help {task}",
        )


def audit(options: Options) -> None:
    """Audit, show, and refuse where the wheel is not usable.

    :raises AuditFailed: an error that is not allowed, or a named device it cannot be used on.
    :raises ArmoryError: see `auditing.audit_wheel`.
    """
    check_named(options.wheel, "audit")
    for name in options.devices:
        device(name)
    places = paths.Places.from_environment()
    path = subject.resolve(options.wheel, places, options.machine)
    with contextlib.ExitStack() as stack:
        given: list[Library] | None = None
        for what in filter(None, (options.torch, *options.libraries)):
            given = (given or []) + exports.libraries(what, options.machine, places, stack)
        found = auditing.audit_wheel(path, options.devices, libraries=given)
    if options.html:
        write_atomic(Path(options.html), render.page(found))
        console.say(f"written to {options.html}")
    if options.against:
        other = auditing.audit_wheel(
            subject.resolve(options.against, places, options.machine), options.devices
        )
        difference = compare.compare(found, other)
        if options.json:
            console.emit_json(
                {"a": found.wheel, "b": other.wheel, "only_a_b": dataclasses.asdict(difference)}
            )
        else:
            render.show_difference(found, other, difference)
        return
    if options.json:
        console.emit_json(found.as_dict())
    else:
        render.show(found)
    found.check(options.allow)
    found.check_devices(options.devices, options.allow)
