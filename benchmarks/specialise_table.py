"""The official wheels made into wheels for each device: what comes out, as one table.

    python benchmarks/specialise_table.py [--native thor,gh200] [--keep] [0.33.0 0.26.0 ...]

For every version (all known releases where none is named) the official aarch64 wheel is fetched, specialised
with --slim for all aarch64 devices in one go, and for the devices of --native also without; the wheels are made
in a scratch folder. A fetched wheel is removed again, unless it was there before or --keep is given. A row says
sizes before and after, the audit's verdicts, what is left to the driver, what is absent, and CPU seconds; what
was not run is marked. The table is printed as Markdown; each row also goes to stderr as it is made.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

from build_recipes.audit.audit import OnDevice
from build_recipes.audit.families import family_table
from build_recipes.build.specialising import Asked, run
from build_recipes.facts.device import devices
from build_recipes.facts.versions import facts
from build_recipes.kit.errors import ArmoryError
from build_recipes.kit.paths import Places
from build_recipes.specialise.wheel import Options, Result

COLUMNS = (
    "version",
    "device",
    "kind",
    "wheel, MB",
    "installed, MB",
    "audit",
    "left to the driver",
    "absent",
    "CPU s",
)


def titles(found: OnDevice, status: str) -> str:
    """Families of one status. Those that are absent are asked of the source: the result does not know them."""
    names = [
        family_table().family[name].title for name, one in found.families.items() if one.status == status
    ]
    return ", ".join(names) or "–"


def row(version: str, result: Result, kind: str, cpu: float, source: tuple[float, float]) -> list[str]:
    """One line of the table."""
    return [
        version, result.device, kind, f"{source[0]:.0f} → {result.size / 1e6:.0f}",
        f"{source[1]:.0f} → {result.installed / 1e6:.0f}",
        f"{result.before.verdict} → {result.after.verdict}",
        titles(result.after, "jit"), titles(result.before, "absent"), f"{cpu:.0f}",
    ]  # fmt: skip


def cpu_seconds() -> float:
    """Of this process and its children."""
    times = os.times()
    return float(times.user + times.system + times.children_user + times.children_system)


def rows_of(version: str, native: list[str], places: Places) -> list[list[str]]:
    """All lines of one version."""
    from build_recipes.audit.subject import official
    from build_recipes.formats.wheel import Wheel

    names = [name for name, one in devices().items() if one.machine == "aarch64"]
    rows = []
    for kind, asked in [("slim", names), *(("native", [name]) for name in native)]:
        started = cpu_seconds()
        try:
            wheel = official(version, places)
            with Wheel(wheel) as opened:
                source = (
                    wheel.stat().st_size / 1e6,
                    sum(one.file_size for one in opened.members.values()) / 1e6,
                )
            options = Options(native=kind == "native")
            done = run(Asked(str(wheel), tuple(asked), options), places)
        except ArmoryError as error:
            why = str(error.args[0]).splitlines()[0].split(": ", 1)[-1]
            rows.append(
                [
                    version,
                    ", ".join(asked),
                    kind,
                    "–",
                    "–",
                    f"refused: {why}",
                    "–",
                    "–",
                    f"{cpu_seconds() - started:.0f}",
                ]
            )
            continue
        spent = (cpu_seconds() - started) / len(done)
        rows += [row(version, one, kind, spent, source) for one in done]
        for one in done:
            one.wheel.unlink()
    missing = [name for name in names if name not in native]
    if missing and rows[0][5].startswith("refused") is False:
        rows.append([version, ", ".join(missing), "native", "not run", "", "", "", "", ""])
    return rows


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", default=list(reversed(facts().releases)))
    parser.add_argument("--native", default="", help="devices to make native wheels for, with ptxas")
    parser.add_argument("--keep", action="store_true", help="keep the official wheels in the cache")
    asked = parser.parse_args()
    here = Places.from_environment()
    table = []
    for version in asked.versions:
        own = f"*/vllm-{version}-*aarch64.whl"
        before = set(here.downloads.glob(own))
        with tempfile.TemporaryDirectory(dir=here.build if here.build.exists() else None) as folder:
            places = dataclasses.replace(here, build=Path(folder) / "build", wheels=Path(folder) / "wheels")
            for line in rows_of(version, [name for name in asked.native.split(",") if name], places):
                table.append(line)
                print(time.strftime("%H:%M:%S"), " | ".join(line), file=sys.stderr, flush=True)
        for path in set(here.downloads.glob(own)) - before if not asked.keep else ():
            path.unlink()
            path.with_name(f"{path.name}.ok").unlink(missing_ok=True)
    for line in [list(COLUMNS), ["---"] * len(COLUMNS), *table]:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
