"""The audit gate: a wheel that breaks its plan's promise is not published."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_recipes.audit.audit import Audit, audit_wheel
from build_recipes.audit.closure import shared_libraries
from build_recipes.audit.promise import Promise
from build_recipes.build.plan import Plan
from build_recipes.build.stages.compile import Compiled
from build_recipes.build.stages.package import Packaged
from build_recipes.build.stages.provision import Provisioned
from build_recipes.formats.elf import mapped
from build_recipes.kit.console import warn
from build_recipes.sources.modules import Kind


@dataclass(frozen=True)
class Audited:
    """An audit that let the wheel pass."""

    audit: Audit
    device: str
    allowed: tuple[str, ...]
    """Findings that were accepted by ``--allow``."""
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        verdict = self.audit.devices[self.device]
        closed = self.audit.closure is not None
        reasons = f" ({'; '.join(verdict.reasons[:3])})" if verdict.reasons else ""
        lost = [one for one in self.audit.findings if one.id.startswith("closure:")]
        symbols = (
            "symbols are not checked"
            if not closed
            else "symbols are missing"
            if lost
            else "all symbols resolve"
        )
        return f"{self.device}: {verdict.verdict}{reasons}; {symbols}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {"allowed": list(self.allowed), "seconds": self.seconds, **self.audit.as_dict()}


def audit_gate(plan: Plan, made: Provisioned, compiled: Compiled, packaged: Packaged) -> Audited:
    """Audit the wheel against what the plan promised.

    :raises AuditFailed: a finding that ``--allow`` does not name.
    """
    started = time.monotonic()
    promise = Promise(
        device=plan.device_name,
        modules=compiled.made(Kind.KERNEL, Kind.HOST),
        cuda=int(made.cuda_version.split(".")[0]),
        native=compiled.made(Kind.KERNEL),
        left_out=tuple(part.module.target for part in compiled.parts if part.left_out),
        torch=made.torch_version.split("+")[0],
        glibc=plan.promised_glibc,
    )
    with contextlib.ExitStack() as stack:
        places = [made.torch / "lib", _cuda_libraries(plan, made)]
        libraries = [
            stack.enter_context(mapped(path)) for place in places for path in shared_libraries(place)
        ]
        audit = audit_wheel(packaged.wheel, [plan.device_name], libraries=libraries, promise=promise)
    audit.check(plan.request.allow)
    for finding in audit.findings:
        if finding.severity == "warning":
            warn(f"[{finding.id}] {finding.text}")
    allowed = tuple(one.id for one in audit.failing() if one.id in plan.request.allow)
    return Audited(audit, plan.device_name, allowed, round(time.monotonic() - started, 2))


def _cuda_libraries(plan: Plan, made: Provisioned) -> Path:
    return made.cuda_home / "targets/sbsa-linux/lib" if plan.cross else made.cuda_home / "lib64"
