"""The matrix as one static page: sortable, each cell opens its breaks, no file or address from elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path

from build_recipes.verify.judge.matrix import Matrix

_TEMPLATE = Path(__file__).with_name("matrix.html")


def page(matrix: Matrix) -> str:
    """The page. Texts are kept once and named by number: pairs share most of their breaks."""
    texts: dict[str, int] = {}

    def text(value: str | None) -> int:
        return texts.setdefault(value or "", len(texts))

    cells = {}
    for (omni, vllm), entry in matrix.cells.items():
        cells[f"{omni} {vllm}"] = [
            [
                text(item.tier),
                text(item.module),
                text(item.name),
                text(f"{item.file}:{item.line}"),
                text(item.moved_to),
                text(" > ".join(item.chain)),
            ]
            for item in entry.breaks
        ]
    data = {
        "omni": matrix.omni,
        "vllm": matrix.vllm,
        "cells": cells,
        "texts": list(texts),
        "unread": matrix.unread,
        "made": time.strftime("%F %H:%M UTC", time.gmtime()),
    }
    packed = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return _TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/", packed)
