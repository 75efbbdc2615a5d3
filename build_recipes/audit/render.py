"""Audits for people: tables on the terminal, one HTML page."""

from __future__ import annotations

from build_recipes.audit.audit import NOT_USABLE, READY, Audit
from build_recipes.audit.compare import Difference
from build_recipes.audit.coverage import ABSENT, JIT, NATIVE, FamilyOnDevice
from build_recipes.audit.families import family_table
from build_recipes.kit import console, pages

_SHORT = {NATIVE: "native", JIT: "JIT", ABSENT: "absent", "not needed": "-"}


def cell(one: FamilyOnDevice | None) -> str:
    """A family on a device in a word: ``native``, ``JIT (13.0)``, ``absent``, ``empty`` or ``-``."""
    if one is None:
        return ""
    if one.status == ABSENT and one.empty:
        return "empty"
    text = _SHORT[one.status]
    return f"{text} ({one.driver})" if one.status == JIT else text


def module_rows(audit: Audit) -> list[list[str]]:
    """One row a module: path, sizes, CUDA, units, targets."""
    rows = []
    for module in audit.modules:
        code = " ".join(f"{name}×{count}" for name, (count, _) in module.code.items())
        rows.append(
            [
                module.path.removeprefix("vllm/"),
                console.size(module.packed),
                console.size(module.size),
                " ".join(map(str, module.cuda)) or "-",
                module.torch_abi or "-",
                str(len(module.units)),
                module.broken or code or "no device code",
            ]
        )
    return rows


def family_rows(audit: Audit) -> list[list[str]]:
    """One row a kernel family: title, kernels, then a cell a device."""
    rows = []
    for name, family in family_table().family.items():
        found = [one.families.get(name) for one in audit.devices.values()]
        some = next((one for one in found if one), None)
        if some:
            rows.append(
                [family.title, str(some.native + some.jit + some.absent), *(cell(one) for one in found)]
            )
    return rows


def show(audit: Audit) -> None:
    """Print an audit for people."""
    console.say(
        f"{audit.wheel}: vLLM {audit.version}, {console.size(audit.size)}, needs glibc {audit.glibc},"
        f" torch{audit.requires_torch or ' (not pinned)'}"
    )
    console.table(
        "Modules",
        ["module", "packed", "size", "CUDA", "torch ABI", "units", "device code (×units)"],
        module_rows(audit),
    )
    console.table(
        "Kernel families: native, JIT (least CUDA of the driver), absent, empty (SASS that only exits),"
        " - not needed there",
        ["family", "kernels", *audit.devices],
        family_rows(audit),
    )
    if audit.findings:
        rows = [[one.severity, one.id, one.text, one.advice] for one in audit.findings]
        console.table("Findings", ["", "id", "what", "next"], rows)
    verdicts = [[one.device, one.verdict, "\n".join(one.reasons)] for one in audit.devices.values()]
    console.table("Verdict", ["device", "", "why"], verdicts)


def show_difference(a: Audit, b: Audit, found: Difference) -> None:
    """Print what two wheels do not share."""
    for what, (first, second) in (
        ("modules", found.modules),
        ("kernel families", found.families),
        ("targets", found.targets),
        ("torch ops", found.ops),
    ):
        rows = []
        if first:
            rows.append([f"only {a.version}", str(len(first)), ", ".join(first)])
        if second:
            rows.append([f"only {b.version}", str(len(second)), ", ".join(second)])
        if rows:
            console.table(what, ["", "", what], rows)
        else:
            console.say(f"{what}: the same")
    sizes = [[part, console.size(one), console.size(two)] for part, (one, two) in found.sizes.items()]
    console.table("packed bytes", ["part", a.version, b.version], sizes)


def page(audit: Audit) -> str:
    """The audit as one HTML page without scripts or anything to fetch."""
    return pages.page(
        "build_recipes.audit",
        "audit.html",
        audit=audit,
        size=console.size(audit.size),
        verdict_class={READY: "native", NOT_USABLE: "absent"},
        families=family_rows(audit),
        modules=module_rows(audit),
    )
