"""Static pages, with no file or address from elsewhere: one pair with all that is told of it, or all pairs."""

from __future__ import annotations

import time
from typing import Any

from build_recipes.kit import pages
from build_recipes.verify.judge.matrix import Matrix

_ROOM = "build_recipes.verify.show"
_WORDS = {
    "no-break-found": "no import break found",
    "breaks": "breaks",
    "unknown": "unknown: a file that the import needs was not read",
}


def page(matrix: Matrix) -> str:
    """The matrix. Texts are kept once and named by number: pairs share most of their breaks."""
    texts: dict[str, int] = {}

    def text(value: str | None) -> int:
        return texts.setdefault(value or "", len(texts))

    cells = {}
    for (omni, vllm), entry in matrix.cells.items():
        cells[f"{omni} {vllm}"] = [
            [
                text(item.tier),
                text(item.kind),
                text(f"{item.module}.{item.name}" if item.name else item.module),
                text(f"{item.file}:{item.line}"),
                text(_went(item.moved_to)),
                text(" > ".join(item.chain)),
            ]
            for item in entry.breaks
        ]
    data = {
        "package": matrix.package,
        "omni": matrix.omni,
        "vllm": matrix.vllm,
        "cells": cells,
        "texts": list(texts),
    }
    return pages.page(
        _ROOM,
        "matrix.html",
        title=f"{matrix.package} on vLLM: import breaks",
        data=data,
        unread=sorted(matrix.unread.items()),
        made=_now(),
    )


def pair_page(document: dict[str, Any]) -> str:
    """One pair.

    :param document: what ``--json`` prints of it.
    """
    guarded = [e for e in document["warnings"] if e["kind"].startswith(("missing-", "failing-"))]
    calls = [
        {**e, "what": e["callee"], "says": f"{e['problem']} ({e['kind']}, {e['severity']})", "chain": ""}
        for e in document["calls"]
    ]
    failures = [
        {**f, "tier": f["fault"], "what": f["module"], "says": f"{f['error']}: {f['message']}", "chain": ""}
        for f in document.get("imports", {}).get("failures", [])
    ]
    groups = [
        ("Fails at import", [_finding(e) for e in document["breaks"]]),
        ("Calls, overrides and attributes that do not fit any more", calls),
        ("Behind a guard or in a function", [_finding(e) for e in guarded]),
        ("Real imports that failed", failures),
    ]
    return pages.page(
        _ROOM,
        "pair.html",
        title=f"{document['package']} {document['omni']} on vLLM {document['vllm']}",
        verdict=document["verdict"],
        words=_WORDS[document["verdict"]],
        summary=f"{len(document['breaks'])} places fail at import, {len(calls)} calls do not fit.",
        unread=sorted(document["unread"].items()),
        requirements=document.get("requirements"),
        groups=groups,
        made=_now(),
    )


def _finding(entry: dict[str, Any]) -> dict[str, Any]:
    says = [entry["kind"], _went(entry["moved_to"]), entry["guard"] or ""]
    return {
        **entry,
        "what": f"{entry['module']}.{entry['name']}" if entry["name"] else entry["module"],
        "says": "; ".join(filter(None, says)),
        "chain": " > ".join(entry["chain"]),
    }


def _went(moved_to: str | None) -> str:
    if not moved_to:
        return ""
    return moved_to if moved_to.startswith(("last in", "was in")) else f"now in {moved_to}"


def _now() -> str:
    return time.strftime("%F %H:%M UTC", time.gmtime())
