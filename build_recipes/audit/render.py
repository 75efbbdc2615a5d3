"""Audits for people: tables on the terminal, one HTML page."""

from __future__ import annotations

import html
from pathlib import Path

from build_recipes.audit.audit import NOT_USABLE, READY, Audit
from build_recipes.audit.compare import Difference
from build_recipes.audit.coverage import ABSENT, JIT, NATIVE, FamilyOnDevice
from build_recipes.audit.families import facts
from build_recipes.kit import console

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
    for name, family in facts().family.items():
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
    frame = (Path(__file__).with_name("audit.html")).read_text(encoding="utf-8")
    verdicts = "".join(
        f'<tr><th>{_text(one.device)}</th><td class="{_class(one.verdict)}">{_text(one.verdict)}</td>'
        f"<td>{'<br>'.join(map(_text, one.reasons))}</td></tr>"
        for one in audit.devices.values()
    )
    families = "".join(
        f"<tr><th>{_text(row[0])}</th><td>{row[1]}</td>"
        + "".join(f'<td class="{text.split(" ")[0] or "none"}">{_text(text)}</td>' for text in row[2:])
        + "</tr>"
        for row in family_rows(audit)
    )
    modules = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in module_rows(audit)
    )
    findings = "".join(
        f"<tr><td>{_text(one.severity)}</td><td><code>{_text(one.id)}</code></td><td>{_text(one.text)}</td>"
        f"<td>{_text(one.advice)}</td></tr>"
        for one in audit.findings
    )
    values = {
        "title": _text(audit.wheel),
        "facts": _text(
            f"vLLM {audit.version} · {console.size(audit.size)} · glibc {audit.glibc}"
            f" · torch{audit.requires_torch}"
        ),
        "devices": "".join(f"<th>{_text(name)}</th>" for name in audit.devices),
        "verdicts": verdicts,
        "families": families,
        "modules": modules,
        "findings": findings,
    }
    for name, value in values.items():
        frame = frame.replace(f"<!--{name}-->", value)
    return frame


def _class(verdict: str) -> str:
    return {READY: "native", NOT_USABLE: "absent"}.get(verdict, "JIT")


def _text(text: str) -> str:
    return html.escape(text)
