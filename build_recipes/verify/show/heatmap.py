"""The matrix in a terminal, and as plain data."""

from __future__ import annotations

import math
from typing import Any

from build_recipes.kit import console
from build_recipes.verify.judge.matrix import Matrix
from build_recipes.verify.judge.verdict import BREAKS, CLEAN


def as_json(matrix: Matrix) -> dict[str, Any]:
    """The matrix as one document."""
    cells: dict[str, dict[str, Any]] = {}
    for omni in matrix.omni:
        for vllm in matrix.vllm:
            entry = matrix.cells.get((omni, vllm))
            if entry is not None:
                cells.setdefault(omni, {})[vllm] = {
                    "verdict": BREAKS if entry.decisive else CLEAN,
                    "breaks": entry.decisive,
                    "platform": len(entry.breaks) - entry.decisive,
                }
    return {
        "package": matrix.package,
        "omni": matrix.omni,
        "vllm": matrix.vllm,
        "cells": cells,
        "suggest": {
            "omni": {vllm: matrix.clean_omni(vllm) for vllm in matrix.vllm},
            "vllm": {omni: matrix.clean_vllm(omni) for omni in matrix.omni},
        },
        "unread": matrix.unread,
        "seconds": round(matrix.seconds, 1),
    }


def show(matrix: Matrix) -> None:
    """The heat map. Where the terminal is too narrow the oldest vLLM releases are left out, and said so."""
    from rich.text import Text

    room = max(40, console.console().width)
    width = 4
    left = max(len(name) for name in matrix.omni) + 1
    shown = matrix.vllm[-max(1, (room - left) // width) :]
    console.say(f"Breaks at import, {matrix.package} by vLLM; 0: no import break found", "bold")
    for part in (0, 1):
        words = [_short(version)[part] for version in shown]
        console.say(" " * left + "".join(word.rjust(width) for word in words))
    for omni in matrix.omni:
        line = Text(omni.ljust(left))
        for vllm in shown:
            entry = matrix.cells.get((omni, vllm))
            number = "?" if entry is None else str(entry.decisive)
            line.append(number.rjust(width - 1) + " ", _style(None if entry is None else entry.decisive))
        console.console().print(line)
    if len(shown) < len(matrix.vllm):
        console.paragraph(
            f"{len(matrix.vllm) - len(shown)} older vLLM releases do not fit here; --html and --json have all"
        )
    for omni in matrix.omni:
        console.paragraph(f"{omni}: no break on {', '.join(matrix.clean_vllm(omni)) or 'any vLLM release'}")
    for name, reason in matrix.unread.items():
        console.paragraph(f"{name} was left out: {reason}")


def _short(version: str) -> tuple[str, str]:
    """``0.14.1`` in two lines: 14 and .1."""
    parts = version.split(".", 2)
    return (parts[1] if len(parts) > 1 else version), "." + (parts[2] if len(parts) > 2 else "0")[:3]


def _style(count: int | None) -> str:
    if count is None:
        return "dim"
    if count == 0:
        return "white on rgb(42,143,74)"
    heat = min(1.0, math.log(count + 1) / math.log(150))
    return f"white on rgb({round(215 - 45 * heat)},{round(140 * (1 - heat) + 25)},30)"
