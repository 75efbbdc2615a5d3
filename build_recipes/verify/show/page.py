"""Static pages, with no file or address from elsewhere: one pair with all that is told of it, or all pairs."""

from __future__ import annotations

import time
from typing import Any

from build_recipes.kit import pages
from build_recipes.verify.judge.matrix import Matrix
from build_recipes.verify.run.requirements import RESOLVED, UNKNOWN, UNSATISFIABLE, Lacking

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


def pairs_page(documents: list[dict[str, Any]]) -> str:
    """One pair, or several packages on one vLLM with an overview above them.

    :param documents: what ``--json`` prints of each.
    """
    pairs = [_pair(document, f"p{number}-") for number, document in enumerate(documents, 1)]
    one = pairs[0]["title"] if len(pairs) == 1 else ""
    vllm = next((d["vllm"] for d in documents if not d.get("error")), documents[0]["vllm"])
    title = one or f"{len(pairs)} packages on vLLM {vllm}"
    return pages.page(_ROOM, "pair.html", title=title, pairs=pairs, made=_now())


def _pair(document: dict[str, Any], prefix: str) -> dict[str, Any]:
    """What the page shows of a pair.

    :param prefix: of the names of its places in the page.
    """
    guarded = [e for e in document["warnings"] if e["kind"].startswith(("missing-", "failing-"))]
    calls = [
        {**e, "what": e["callee"], "says": f"{e['problem']} ({e['kind']}, {e['severity']})", "chain": []}
        for e in document["calls"]
    ]
    failures = [
        {**f, "tier": f["fault"], "what": f["module"], "says": f"{f['error']}: {f['message']}", "chain": []}
        for f in document.get("imports", {}).get("failures", [])
    ]
    groups = [
        _group("import", "Fails at import", "fail at import", [_finding(e) for e in document["breaks"]]),
        _group(
            "calls", "Calls, overrides and attributes that do not fit any more", "calls do not fit", calls
        ),
        _group(
            "guarded", "Behind a guard or in a function", "behind a guard", [_finding(e) for e in guarded]
        ),
    ]
    if "imports" in document:
        groups.append(_group("real", "Real imports that failed", "real imports failed", failures))
    error = document.get("error", "")
    return {
        "id": prefix,
        "name": f"{document['package']} {document['omni']}".rstrip(),
        "title": f"{document['package']} {document['omni']} on vLLM {document['vllm']}",
        "verdict": document["verdict"],
        "words": "unknown" if error and document["verdict"] == "unknown" else _WORDS[document["verdict"]],
        "error": error,
        "unread": sorted(document["unread"].items()),
        "needs": _needs(document.get("requirements")),
        "groups": groups,
    }


def _group(name: str, heading: str, short: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Findings by file, the files in the order of their first one."""
    files: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        key = (entry["file"], entry["tier"])
        file = files.setdefault(
            key, {"name": entry["file"], "tier": entry["tier"], "chain": entry["chain"], "entries": []}
        )
        file["entries"].append(entry)
    return {
        "id": name,
        "heading": heading,
        "short": short,
        "count": len(entries),
        "files": list(files.values()),
    }


def _finding(entry: dict[str, Any]) -> dict[str, Any]:
    says = [entry["kind"], _went(entry["moved_to"]), entry["guard"] or ""]
    return {
        **entry,
        "what": f"{entry['module']}.{entry['name']}" if entry["name"] else entry["module"],
        "says": "; ".join(filter(None, says)),
    }


def _needs(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """The requirements, for people."""
    if found is None:
        return None
    lines = [str(Lacking(**entry)) for entry in found["no_wheel"]]
    if found["no_wheel"] and found["count"]:
        lines.append(f"the other {found['count']} distributions go together")
    if found["from_source"]:
        lines.append(f"published without any wheel: {', '.join(found['from_source'])}")
    words = {
        RESOLVED: f"{found['count']} distributions go together",
        UNSATISFIABLE: "cannot be installed together",
        UNKNOWN: "not looked up: --resolve asks the index",
    }
    tone = {RESOLVED: "good", UNSATISFIABLE: "bad"}.get(found["status"], "")
    return {**found, "words": words[found["status"]], "tone": tone, "list": lines}


def _went(moved_to: str | None) -> str:
    if not moved_to:
        return ""
    return moved_to if moved_to.startswith(("last in", "was in")) else f"now in {moved_to}"


def _now() -> str:
    return time.strftime("%F %H:%M UTC", time.gmtime())
