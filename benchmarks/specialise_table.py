"""The official wheels made into wheels for each device: what comes out, as one table.

    python benchmarks/specialise_table.py [--native thor,gh200] [--keep] [0.33.0 0.26.0 ...]
    python benchmarks/specialise_table.py --only-native --native spark 0.33.0
    python benchmarks/specialise_table.py --show

For every version (all known releases where none is named) the official aarch64 wheel is fetched, specialised with
--slim for all aarch64 devices in one go, and for the devices of --native also without; the wheels are made in a
scratch folder. A fetched wheel is removed again, unless it was there before or --keep is given. Rows are kept in
`rows.jsonl` beside the table (`docs/evidence/specialise`), a new one in the place of an old one; the table is then
written from all of them, and says what was not run. CPU seconds: of a slim wheel, its share of the run for all
devices; of a native one, of the run and of ptxas on each of its images, however many runs those took (read from
the broker's journal: `--journal` for images that an earlier run of ./inv specialise made).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.version import Version

from build_recipes.audit.audit import OnDevice
from build_recipes.audit.families import family_table
from build_recipes.audit.subject import official
from build_recipes.build.specialising import Asked, run
from build_recipes.facts.device import devices
from build_recipes.facts.versions import facts
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import ArmoryError
from build_recipes.kit.paths import Places
from build_recipes.specialise.wheel import Options, Result

HERE = Path(__file__).parent.parent / "docs" / "evidence" / "specialise"
COLUMNS = (
    "version", "device", "kind", "wheel, MB", "installed, MB", "audit", "left to the driver", "absent",
    "images made", "CPU s",
)  # fmt: skip
Row = dict[str, Any]


def titles(found: OnDevice, status: str) -> list[str]:
    """Families of one status."""
    return [family_table().family[name].title for name, one in found.families.items() if one.status == status]


def cpu_seconds() -> float:
    """Of this process and its children."""
    times = os.times()
    return float(times.user + times.system + times.children_user + times.children_system)


def images_of(result: Result, journals: Iterable[Path]) -> tuple[int, float | None]:
    """How many images a native wheel took, and the CPU seconds of those that the journals know."""
    wanted = {name.replace("/", ".") for name in json.loads(result.manifest.read_text())["images"]}
    spent = {}
    for line in (line for path in journals for line in path.read_text().splitlines()):
        row = json.loads(line)
        name = row["unit"].removeprefix("out/").removesuffix(".o").rpartition(".")[0]
        if name in wanted and not row["code"]:
            spent[name] = row["cpu_s"]
    return len(wanted), sum(spent.values()) if len(spent) == len(wanted) else None


def rows_of(version: str, native: list[str], places: Places, asked: argparse.Namespace) -> list[Row]:
    """All lines of one version that were asked for."""
    names = [name for name, one in devices().items() if one.machine == "aarch64"]
    kinds = [] if asked.only_native else [("slim", names)]
    rows: list[Row] = []
    for kind, targets in [*kinds, *(("native", [name]) for name in native)]:
        started = cpu_seconds()
        try:
            wheel = official(version, places)
            with Wheel(wheel) as opened:
                installed = sum(one.file_size for one in opened.members.values())
            done = run(Asked(str(wheel), tuple(targets), Options(native=kind == "native")), places)
        except ArmoryError as error:
            why = str(error.args[0]).splitlines()[0].split(": ", 1)[-1]
            rows += [{"version": version, "device": name, "kind": kind, "refused": why} for name in targets]
            continue
        spent = (cpu_seconds() - started) / len(done)
        for one in done:
            made, more = images_of(one, asked.journal) if kind == "native" else (0, 0.0)
            one.wheel.unlink()
            rows.append(
                {
                    "version": version, "device": one.device, "kind": kind,
                    "wheel": [wheel.stat().st_size, one.size], "installed": [installed, one.installed],
                    "audit": [one.before.verdict, one.after.verdict],
                    "jit": titles(one.after, "jit"), "absent": titles(one.after, "absent"),
                    "images": made, "cpu_s": None if more is None else round(spent + more, 1),
                }
            )  # fmt: skip
    return rows


def cells(row: Row) -> list[str]:
    """One line of the table."""
    first = [row["version"], row["device"], row["kind"]]
    if "refused" in row:
        return [*first, "–", "–", f"refused: {row['refused']}", "", "", "", ""]
    both = [" → ".join(f"{size / 1e6:.0f}" for size in row[what]) for what in ("wheel", "installed")]
    lists = [
        "not recorded" if row[what] is None else ", ".join(row[what]) or "–" for what in ("jit", "absent")
    ]
    spent = "not measured" if row["cpu_s"] is None else f"{row['cpu_s']:.0f}"
    return [*first, *both, " → ".join(row["audit"]), *lists, str(row["images"] or "–"), spent]


def table(rows: list[Row]) -> str:
    """All rows as Markdown, newest version first, and what was not run."""
    names = [name for name, one in devices().items() if one.machine == "aarch64"]
    order = {"slim": 0, "native": 1}
    rows = sorted(rows, key=lambda row: (order[row["kind"]], names.index(row["device"])))
    rows.sort(key=lambda row: Version(row["version"]), reverse=True)
    lines = ["| " + " | ".join(line) + " |" for line in (COLUMNS, ("---",) * len(COLUMNS))]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows if "refused" not in row]
    refused: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if "refused" in row:
            refused.setdefault((row["version"], row["refused"]), []).append(row["device"])
    lines += [f"\n{version}, {', '.join(names)}: refused: {why}" for (version, why), names in refused.items()]
    known = {(row["version"], row["device"], row["kind"]) for row in rows}
    missing: dict[tuple[str, str], list[str]] = {}
    for kind in order:
        for version in reversed(facts().releases):
            left = [name for name in names if (version, name, kind) not in known]
            if left and not any(version == one for one, _ in refused):
                devices_left = "all devices" if left == names else ", ".join(left)
                missing.setdefault((kind, devices_left), []).append(version)
    lines.append("\nNot run:\n")
    lines += [f"* {kind}, {left}: {', '.join(versions)}" for (kind, left), versions in missing.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make rows, keep them, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", default=list(reversed(facts().releases)))
    parser.add_argument("--native", default="", help="devices to make native wheels for, with ptxas")
    parser.add_argument("--only-native", action="store_true")
    parser.add_argument("--journal", type=Path, action="append", default=[])
    parser.add_argument("--keep", action="store_true", help="keep the official wheels in the cache")
    parser.add_argument(
        "--show", action="store_true", help="only write the table from the rows that are kept"
    )
    parser.add_argument("--into", type=Path, default=HERE)
    asked = parser.parse_args()
    here = Places.from_environment()
    kept = asked.into / "rows.jsonl"
    for version in () if asked.show else asked.versions:
        own = f"*/vllm-{version}-*aarch64.whl"
        before = set(here.downloads.glob(own))
        here.build.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=here.build) as folder:
            places = dataclasses.replace(here, build=Path(folder) / "build", wheels=Path(folder) / "wheels")
            made = rows_of(version, [name for name in asked.native.split(",") if name], places, asked)
        for row in made:
            print(" | ".join(cells(row)), file=sys.stderr, flush=True)
        for path in set(here.downloads.glob(own)) - before if not asked.keep else ():
            path.unlink()
            path.with_name(f"{path.name}.ok").unlink(missing_ok=True)
        keys = {(row["version"], row["device"], row["kind"]) for row in made}
        old = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
        rows = [row for row in old if (row["version"], row["device"], row["kind"]) not in keys] + made
        write_atomic(kept, "".join(json.dumps(row) + "\n" for row in rows))
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    text = asked.into / "table.md"
    head, mark, _ = text.read_text().partition("<!-- made by benchmarks/specialise_table.py -->\n")
    write_atomic(text, head + mark + table(rows))


if __name__ == "__main__":
    main()
