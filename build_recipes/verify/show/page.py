"""The matrix as one static page: sortable, each cell opens its breaks, no file or address from elsewhere."""

from __future__ import annotations

import time

from build_recipes.kit.pages import page as page_of
from build_recipes.verify.judge.matrix import Matrix


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
    return page_of("build_recipes.verify.show", "matrix.html", data=data)
