"""The report of an adoption as Markdown: what moved, what was seen, what needs a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from build_recipes.nightly.adopt.adopt import Adoption

MOST = 40
"""Lines of a kind that are shown; the document beside the page has all."""


def page(done: Adoption) -> str:
    """One tag."""
    lines = [
        f"# vLLM {done.tag}",
        "",
        f"Made by `./inv adopt --tag {done.tag}`; compared with {done.before or 'nothing'}.",
        "",
    ]
    lines += ["## What needs a person", "", *_list(done.person, "Nothing."), ""]
    for kind, rows in done.moved.items():
        lines += [f"## What moved: {kind}", "", *_list(rows, "Nothing."), ""]
    lines += ["## Patches", "", *_table(["patch", "state"], done.patches.items()), ""]
    pairs = [(one["tag"], one["omni"], one["verdict"], one["breaks"] or "") for one in done.omni]
    lines += ["## vllm-omni", "", *_table(["vLLM", "vllm-omni", "verdict", "breaks"], pairs), ""]
    lines += ["## Devices", "", *_devices(done.devices), ""]
    seen = [(one.name, f"`{one.command}`", one.state, f"{one.seconds:.0f} s") for one in done.steps]
    lines += ["## Commands", "", *_table(["step", "command", "came to", "wall"], seen)]
    return "\n".join(lines) + "\n"


def table(known: Sequence[Mapping[str, Any]]) -> str:
    """All tags that were adopted, the newest first: tag, what moved, what needs a person."""
    rows = [
        (
            f"[{one['tag']}]({one['tag']}.md)",
            "; ".join(_moved(one)) or "nothing",
            "; ".join(one["person"]) or "nothing",
        )
        for one in known
    ]
    head = "# Releases that were adopted\n\nEach row is what `./inv adopt` made; see docs/nightly.md.\n\n"
    return head + "\n".join(_table(["tag", "what moved", "what needs a person"], rows)) + "\n"


def _moved(one: Mapping[str, Any]) -> list[str]:
    words = []
    for kind, rows in one["moved"].items():
        if rows:
            words.append(
                f"{len(rows)} {kind}" if kind == "pins" or len(rows) > 4 else f"{kind}: {', '.join(rows)}"
            )
    bad = [
        f"{name} {state}"
        for name, state in one["patches"].items()
        if state not in ("applies", "upstream", "not here")
    ]
    return words + ([f"patches: {', '.join(bad)}"] if bad else [])


def _devices(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Units and architectures of each module on each device."""
    rows = []
    for name, cell in cells.items():
        for target, row in (cell.get("modules") or {}).items():
            if row.get("units"):
                fate = ", ".join(
                    f"{row[key]} {key}" for key in ("native", "jit", "none", "no target") if row.get(key)
                )
                rows.append(
                    (name, target, row["units"], ", ".join(row.get("targets") or ()), fate or "host code")
                )
            elif row.get("unknown"):
                rows.append((name, target, "?", "", f"not at hand: {row['unknown']}"))
    lines = _table(["device", "module", "units", "architectures", "on the device"], rows)
    others = [(n, c.get("companions") or {}) for n, c in cells.items()]
    judged = [
        (name, ", ".join(f"{key}: {word}" for key, word in found.items())) for name, found in others if found
    ]
    return [*lines, "", "Companions:", "", *_table(["device", "verdicts"], judged)] if judged else lines


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    body = ["| " + " | ".join(_cell(one) for one in row) + " |" for row in rows]
    if not body:
        return ["None."]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body]


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _list(rows: Sequence[str], nothing: str) -> list[str]:
    shown = [f"* {' '.join(row.split())}" for row in rows[:MOST]]
    more = [f"* and {len(rows) - MOST} more, in the document beside this page"] if len(rows) > MOST else []
    return [*shown, *more] or [nothing]
