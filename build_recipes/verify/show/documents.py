"""The JSON documents of ``verify`` and ``verify-omni``, as types; their schema is made from these."""

from __future__ import annotations

from typing import Any

import msgspec

from build_recipes.verify.judge.verdict import Break
from build_recipes.verify.run.imports import Failure
from build_recipes.verify.run.requirements import Requirements


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """Base: nothing that is not described."""


class CallBreak(Document):
    """A call, an override or an attribute that fitted the package's own vLLM and does not fit this one."""

    severity: str
    kind: str
    callee: str
    problem: str
    file: str
    line: int
    tier: str
    baseline: str
    """The vLLM that it was compared with."""


class Imported(Document):
    """What real imports told (``--run``, ``--stub``)."""

    tier: str
    modules: int
    seconds: float
    failures: list[Failure]
    differs: list[str]
    """Where the static and the real answer are not the same."""


class Suggested(Document, kw_only=True):
    """Pairs without a break."""

    omni: list[str] = []
    vllm: list[str] = []
    nearest: dict[str, str | None] = {}
    from_: str | None = msgspec.field(name="from", default=None)


class Pair(Document, kw_only=True):
    """``verify --json`` and ``verify-omni --json``."""

    package: str
    omni: str
    """Version of the package; of a file without one its name."""
    vllm: str
    verdict: str
    """``no-break-found``, ``breaks`` or ``unknown``."""
    breaks: list[Break]
    calls: list[CallBreak]
    warnings: list[Break]
    suggest: Suggested
    unread: dict[str, str]
    imports: Imported | None = None
    requirements: Requirements | None = None
    error: str = ""
    """Why the question, or a part of it, could not be answered."""


class Several(Document):
    """``verify --json`` with several packages, each on the same vLLM."""

    pairs: list[Pair]


class MatrixCell(Document):
    """One pair of the matrix."""

    verdict: str
    breaks: int
    """Breaks that decide: names, classes and calls, of an entry point or a model."""
    platform: int
    """Breaks of other platforms."""


class Pairs(Document, kw_only=True):
    """``--matrix --json``."""

    package: str
    omni: list[str]
    vllm: list[str]
    cells: dict[str, dict[str, MatrixCell]]
    """By version of the package, then of vLLM."""
    suggest: dict[str, dict[str, list[str]]]
    unread: dict[str, str]
    seconds: float


def schema() -> dict[str, Any]:
    """The JSON schema of all documents."""
    schemas, parts = msgspec.json.schema_components([Pair, Several, Pairs], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What verify and verify-omni print with --json",
        "anyOf": list(schemas),
        "$defs": parts,
    }


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=1))
