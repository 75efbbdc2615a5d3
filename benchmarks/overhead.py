"""What the tool itself costs: starting it, planning, saying 'up to date', and a smoke build beside its compilers.

    python benchmarks/overhead.py [--repeat 5] [--no-build]

Each command is a process of its own; wall and CPU time of the quickest run, beside the bound of the same run:
Python that starts and ends. The smoke build is a fresh tree with the user's downloads and without a compiler
cache; its time is split by the lines in which it reports its steps, the record of configure, and ninja's log (which
has every compile and link with its start and end).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from trees import options, table

from build_recipes.kit.paths import PROJECT

INVOKE = Path(sys.executable).with_name("invoke")


def timed(words: list[str | Path], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(words, cwd=PROJECT, env=environment, check=True, capture_output=True)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row(title: str, bound: str, runs: list[tuple[float, float]]) -> list[str]:
    """One line of the first table."""
    walls = sorted(wall for wall, _ in runs)
    return [
        title,
        f"{walls[0]:.2f} s",
        f"{walls[len(walls) // 2]:.2f} s",
        f"{min(cpu for _, cpu in runs):.2f} s",
        bound,
    ]


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that at least one of the spans covers."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def ninja_spans(folder: Path) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Compile spans and link spans of ninja's log, seconds."""
    compiles: dict[str, tuple[float, float]] = {}
    links: dict[str, tuple[float, float]] = {}
    for line in (folder / ".ninja_log").read_text().splitlines()[1:]:
        start, end, _, output, _ = line.split("\t")
        if output.endswith((".o", ".so")):
            (compiles if output.endswith(".o") else links)[output] = (int(start) / 1000, int(end) / 1000)
    return list(compiles.values()), list(links.values())


def smoke(words: list[str], environment: dict[str, str], tree: Path) -> list[list[str]]:
    """Make a smoke build and split its time: by the lines in which it reports each step, and ninja's log."""
    begin = time.monotonic()
    marks = {}
    with subprocess.Popen(
        [INVOKE, *words], cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            marks[line[:10].strip()] = time.monotonic() - begin  # the last line of a step ends it
    assert child.returncode == 0
    total = time.monotonic() - begin
    configure = json.loads((tree / "stages/configure.json").read_text())["seconds"]
    compiles, links = ninja_spans(tree / "cmake")
    compilers = covered(compiles)
    linker = covered(compiles + links) - compilers
    steps = ["plan", "fetch", "patch", "provision", "compile", "package", "audit", "publish"]
    spent = {
        step: marks[step] - marks.get(before, 0.0) for before, step in zip(["", *steps], steps, strict=False)
    }
    inside = configure + compilers + linker
    parts = {
        "start and plan": spent["plan"],
        "fetch: sources out of the cache, as plain folders": spent["fetch"],
        "patch: the series and its intents": spent["patch"],
        "provision: environment, toolkit and torch from wheels": spent["provision"],
        "configure: vLLM's CMake, which tries its compilers": configure,
        "compilers": compilers,
        "linker": linker,
        "the rest of compile: graph, broker, reading the machine code": spent["compile"] - inside,
        "package: vLLM's setup.py, rewriting its wheel": spent["package"],
        "audit": spent["audit"],
        "publish and end": total - marks["audit"],
    }
    rows = [[name, f"{value:.1f} s", f"{100 * value / total:.0f} %"] for name, value in parts.items()]
    return [
        *rows,
        ["total", f"{total:.1f} s", "100 %"],
        [
            "not in CMake, compilers or linker",
            f"{total - inside:.1f} s",
            f"{100 * (total - inside) / total:.0f} %",
        ],
    ]


def main() -> None:
    """Measure and print both tables."""
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument(
        "--no-build", action="store_true", help="only the first table, against a wheel of before"
    )
    given = parser.parse_args()
    into: Path = given.into / "overhead"
    environment = {
        **os.environ,
        "VLLM_ARMORY_BUILD": str(into / "build"),
        "VLLM_ARMORY_WHEELS": str(into / "wheels"),
    }
    words = ["build", "--tag", given.tag, "--device", given.device, "--smoke", "--cache", "off"]
    words += [word for pair in given.mirror for word in ("--mirror", pair)]
    if not given.no_build:
        shutil.rmtree(into, ignore_errors=True)
        tree = into / f"build/{given.tag}-{given.device}-smoke"
        split = smoke(words, environment, tree)
    commands: dict[str, tuple[list[str | Path], str]] = {
        "python -c pass": ([sys.executable, "-c", "pass"], ""),
        "invoke --list": ([INVOKE, "--list"], "<= 0.5 s"),
        "invoke plan": ([INVOKE, "plan", "--tag", given.tag, "--device", given.device], "<= 1 s"),
        "invoke build, up to date": ([INVOKE, *words], "<= 1.5 s"),
    }
    rows = [
        row(title, bound, [timed(command, environment) for _ in range(given.repeat)])
        for title, (command, bound) in commands.items()
    ]
    table(
        f"Starting, planning, nothing to do ({given.repeat} runs each)",
        ["", "wall, quickest", "wall, median", "CPU", "asked for"],
        rows,
    )
    if not given.no_build:
        table("A smoke build in a fresh tree, downloads in the cache", ["", "seconds", "share"], split)


if __name__ == "__main__":
    main()
