"""Draw a build's time line from its units.jsonl: every unit as a bar, and the memory that they took together.

    python benchmarks/timeline.py BUILD/units.jsonl timeline.svg
    python benchmarks/timeline.py plain-ninja.jsonl busy.svg

Bars are wall time, one lane per job; the memory is the sum of the peaks of the units that ran, an upper bound.
From the lines that benchmarks/plain_ninja.py prints it draws how many cores were busy in each way.
"""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path
from typing import Any

from plain_ninja import EVERY_S

from build_recipes.build.units.costs import read_journal

COLOURS = {"_C": "#3b7dd8", "_moe_C": "#e08a2e", "_vllm_fa2_C": "#4a9d5b", "_vllm_fa3_C": "#8c5fc0"}
WIDTH, LEFT, BAR, CHART = 1100, 60, 5, 120


def lanes(units: list[dict[str, Any]]) -> list[int]:
    """The lane of each unit: the first that is free when it starts."""
    free: list[float] = []
    chosen = []
    for unit in units:
        lane = next((n for n, ends in enumerate(free) if ends <= unit["start"] + 0.05), len(free))
        free[lane : lane + 1] = [unit["end"]]
        chosen.append(lane)
    return chosen


def picture(width: float, height: float, parts: list[str]) -> str:
    """Parts of a picture as SVG on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return (
        f'{head} font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def draw(units: list[dict[str, Any]]) -> str:
    """The picture as SVG."""
    last = max(unit["end"] for unit in units)
    chosen = lanes(units)
    top = 24 + BAR * (max(chosen) + 1)
    scale = (WIDTH - LEFT - 10) / last
    out = []
    for unit, lane in zip(units, chosen, strict=True):
        name, module = unit["unit"], unit["unit"].partition("/")[0]
        told = f"{name}: {unit['end'] - unit['start']:.0f} s, {unit['gib']:.1f} GiB"
        out.append(
            f'<rect x="{LEFT + unit["start"] * scale:.1f}" y="{18 + lane * BAR}" height="{BAR - 1}" '
            f'width="{max(0.5, (unit["end"] - unit["start"]) * scale):.1f}" fill="{COLOURS.get(module, "#999")}">'
            f"<title>{html.escape(told)}</title></rect>"
        )
    events = sorted([(u["start"], u["gib"]) for u in units] + [(u["end"], -u["gib"]) for u in units])
    level, line = 0.0, []
    for at, change in events:
        line += [(at, level), (at, level + change)]
        level += change
    peak = max(gib for _, gib in line)
    bottom = top + CHART
    points = " ".join(f"{LEFT + at * scale:.1f},{bottom - gib / peak * (CHART - 20):.1f}" for at, gib in line)
    out.append(f'<polyline points="{points}" fill="none" stroke="#b03a48"/>')
    out.append(
        f'<text x="2" y="{top + 24}">{peak:.0f} GiB</text><text x="2" y="14">{max(chosen) + 1} jobs</text>'
    )
    for part in range(5):
        at = LEFT + part / 4 * last * scale
        anchor = "end" if part == 4 else "middle"
        out.append(
            f'<text x="{at:.0f}" y="{bottom + 16}" text-anchor="{anchor}">{part / 4 * last / 60:.1f} min</text>'
        )
    for number, (module, colour) in enumerate(COLOURS.items()):
        if any(unit["unit"].startswith(f"{module}/") for unit in units):
            out.append(f'<text x="{LEFT + 60 + number * 110}" y="14" fill="{colour}">{module}</text>')
    return picture(WIDTH, bottom + 24, out)


def draw_busy(ways: list[dict[str, Any]]) -> str:
    """Cores busy over time, a line for each way, as SVG."""
    height, last = 200, max(way["wall_s"] for way in ways)
    most = max(way["jobs"] for way in ways)
    out = []
    for number, (way, colour) in enumerate(zip(ways, COLOURS.values(), strict=False)):
        points = [(0.0, 0.0), *((place * EVERY_S, cores) for place, cores in enumerate(way["busy"], 1))]
        points.append((way["wall_s"], 0.0))
        line = " ".join(
            f"{LEFT + at / last * (WIDTH - LEFT - 10):.1f},{24 + height * (1 - cores / most):.1f}"
            for at, cores in points
        )
        told = f"{way['way']}: {way['wall_s']:.0f} s, {way['cpu_s'] / 60:.0f} CPU min"
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{LEFT + 20 + number * 260}" y="14" fill="{colour}">{html.escape(told)}</text>')
    for part in range(5):
        at, cores = LEFT + part / 4 * (WIDTH - LEFT - 10), 24 + height * (1 - part / 4)
        out.append(
            f'<text x="{at:.0f}" y="{height + 40}" text-anchor="middle">{part / 4 * last:.0f} s</text>'
        )
        out.append(f'<text x="2" y="{cores + 4:.0f}">{part / 4 * most:.0f} cores</text>')
    return picture(WIDTH + 20, height + 50, out)


def main() -> None:
    """Read, draw, write."""
    source, target = map(Path, sys.argv[1:3])
    told = [json.loads(line) for line in source.read_text().splitlines() if line.startswith("{")]
    if all("busy" in one for one in told):
        target.write_text(draw_busy(told), encoding="utf-8")
        return
    rows = [row for row in read_journal(source) if row["code"] == 0]
    start = min(row["ended"] - row["wall_s"] for row in rows)
    units = [
        {
            "unit": row["unit"], "gib": row["rss_kib"] / 2**20,
            "start": row["ended"] - row["wall_s"] - start, "end": row["ended"] - start,
        }
        for row in rows
    ]  # fmt: skip
    target.write_text(draw(sorted(units, key=lambda unit: float(unit["start"]))), encoding="utf-8")


if __name__ == "__main__":
    main()
