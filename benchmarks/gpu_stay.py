"""Half an hour on a rented GPU machine without a network: what is carried there, and what is done there, in order.

    here    python benchmarks/gpu_stay.py pack DIR --tag v0.26.0 --with W --remade WHEEL --slim WHEEL --ours WHEEL
    there   setsid taskset -c 0-27 python3 DIR/armory/benchmarks/gpu_stay.py run DIR --only bundle,plain-ninja > a.log &
    there   setsid taskset -c 28-31 python3 DIR/armory/benchmarks/gpu_stay.py run DIR --only qualify,fa2-ours > b.log &
    there   python3 DIR/armory/benchmarks/gpu_stay.py look DIR

`pack` is run under the Python that the machine has (3.12), and fills DIR: a clone of this project, the sources of the
tag and the build requirements as one file, the wheels that the program needs, those that vLLM needs and the machine
lacks (--with: a folder, see docs/evidence/h200-v0.26.0/next.md), and wheels of the tag for 9.0: two specialised ones,
and one that was built before. `run` does the steps one after the other, each into a log of its own, and begins none
that would not end in time or whose wheel was not brought; what is done is not done again, so the same command goes on
after the machine was lost, on what was brought back. What measures the GPU and what compiles can run at once on cores
of their own. DIR/results is what to take home. With fewer than 64 cores compiling takes as much longer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
WITHOUT = "_vllm_fa3_C,_flashmla_C,_flashmla_extension_C"
"""Left out: too much to compile for one stay, and FlashMLA's repository is not always at hand."""


@dataclass(frozen=True)
class Step:
    """One command of a stay."""

    name: str
    minutes: float
    """What it takes: compiling on 64 cores, the others on six of their own; see docs/evidence/h200-v0.26.0."""
    command: str
    """For bash, in the project's folder. $TAG, $WITH, $RESULTS are set; of $OURS, $REMADE, $SLIM what was brought."""
    needs: tuple[str, ...] = ()
    """Wheels that must have been brought."""
    compiles: bool = False
    """Whether its minutes grow with fewer cores."""


WHEELS = ("OURS", "REMADE", "SLIM")
ASKED = f"--tag $TAG --device h200 --torch existing --offline --without {WITHOUT}"
UNPACK = 'for one in {}; do [ -d ../$one ] || python3 -m zipfile -e "${{!one}}" ../$one; done; '
COPY = 'for file in "$VLLM_ARMORY_WHEELS"/*.qualify.json; do cp "$file" $RESULTS/$(basename "$file" .qualify.json)'


def fa2(other: str) -> Step:
    """FlashAttention 2 that was made from PTX, beside another wheel's."""
    name = f"fa2-{other.lower()}"
    measure = f"python3 benchmarks/specialise_fa2.py ../REMADE ../{other} --json $RESULTS/{name}.shapes"
    return Step(
        name, 3, UNPACK.format(f"REMADE {other}") + f"{measure} --most-seconds 240", ("REMADE", other)
    )


STEPS = [
    Step("machine", 1, "nvidia-smi; nproc; free -g; uname -a; python3 -m pip list; nvcc --version; ./inv doctor"),
    Step("bundle", 1, "./inv mirror --from ../bundle.tar.zst"),
    # ours against plain ninja in a tree of their own: 133 of v0.26.0's 185 units
    Step(
        "plain-ninja", 11,
        f"./inv --version; .venv/bin/python benchmarks/plain_ninja.py {ASKED} --into ../benchmarks --most 120",
        compiles=True,
    ),
    Step("build", 15, f'[ "$OURS" ] || ./inv build {ASKED} --cache off --time-box 18m', compiles=True),
    Step(
        "qualify", 9,
        'ours=${OURS:-$(ls -t "$VLLM_ARMORY_WHEELS"/vllm-*h200*.whl | grep -v -e remade -e slim | head -1)};'
        f' [ "$ours" ] || exit 1; ./inv qualify "$ours" --with $WITH; code=$?; {COPY}.json; done; exit $code',
    ),
    fa2("OURS"),
    fa2("SLIM"),
    *(
        Step(
            f"first-start-{word.lower()}", minutes,
            'export HOME=$(mktemp -d); export CUDA_CACHE_PATH=$HOME/driver TORCHINDUCTOR_CACHE_DIR=$HOME/inductor;'
            f' mkdir $CUDA_CACHE_PATH; ./inv qualify "${word}" --tiers 3,4 --with $WITH;'
            f" code=$?; {COPY}.first-start.json; done; du -sh $CUDA_CACHE_PATH; exit $code",
            (word,),
        )
        for word, minutes in (("REMADE", 7), ("SLIM", 20))
    ),
]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """What the steps run with."""
    told = json.loads((folder / "stay.json").read_text())
    env = {
        key: value for key, value in os.environ.items() if key not in ("TORCH_CUDA_ARCH_LIST", "VIRTUAL_ENV")
    }
    places = {"CACHE": "cache", "BUILD": "build", "WHEELS": "wheels", "WHEELHOUSE": "wheelhouse"}
    env |= {f"VLLM_ARMORY_{key}": str(folder / place) for key, place in places.items()}
    wheels = {key: str(folder / "wheels" / told[key]) for key in WHEELS if key in told}
    more = {"TAG": told["tag"], "WITH": str(folder / "with"), "RESULTS": str(folder / "results")}
    return {**env, **wheels, **more}


def pack(asked: argparse.Namespace) -> None:
    """Fill the folder that travels."""
    folder = asked.folder.resolve()
    for name in ("wheels", "with", "wheelhouse", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "armory", ignore_errors=True)
    subprocess.run(["git", "clone", "-q", f"file://{HERE}", folder / "armory", "--depth", "1"], check=True)
    bundle = folder / "bundle.tar.zst"
    mirror = [
        "./inv",
        "mirror",
        "--tag",
        asked.tag,
        "--requirements",
        "--to",
        bundle,
        *(f"--mirror={one}" for one in asked.mirror),
    ]
    subprocess.run(mirror, cwd=HERE, check=True)
    subprocess.run(["./inv", "mirror", "--wheelhouse", folder / "wheelhouse"], cwd=HERE, check=True)
    for one in asked.needs:
        shutil.copytree(one, folder / "with", dirs_exist_ok=True)
    wheels = {key: getattr(asked, key.lower()) for key in WHEELS if getattr(asked, key.lower())}
    for wheel in wheels.values():
        for path in wheel.parent.glob(f"{wheel.stem}*"):
            shutil.copy2(path, folder / "wheels")
    told = {"tag": asked.tag, **{key: wheel.name for key, wheel in wheels.items()}}
    (folder / "stay.json").write_text(json.dumps(told))
    sizes = {
        one.name: sum(p.stat().st_size for p in [one, *one.rglob("*")] if p.is_file())
        for one in folder.iterdir()
    }
    for name, size in sorted(sizes.items(), key=lambda pair: -pair[1]):
        print(f"{size / 1e6:8.1f} MB  {name}")


def run(asked: argparse.Namespace) -> None:
    """Do the steps that are left and fit."""
    folder, began = asked.folder.resolve(), time.monotonic()
    env, results, cores = environment(folder), folder / "results", len(os.sched_getaffinity(0))
    results.mkdir(exist_ok=True)
    if unknown := set(filter(None, asked.only.split(","))) - {step.name for step in STEPS}:
        raise SystemExit(
            f"no step {', '.join(sorted(unknown))}; there are {', '.join(step.name for step in STEPS)}"
        )
    for step in STEPS:
        kept = results / f"{step.name}.json"
        if (asked.only and step.name not in asked.only.split(",")) or kept.exists():
            continue
        if lacking := [word for word in step.needs if not Path(env.get(word, "")).is_file()]:
            print(f"{step.name}: no {' and no '.join(lacking)} here", flush=True)
            continue
        wanted = step.minutes * (max(1.0, 64 / cores) if step.compiles else 1)
        left = asked.most_minutes - (time.monotonic() - began) / 60
        if wanted > left:
            print(f"{step.name}: about {wanted:.0f} min, {left:.0f} are left: not begun", flush=True)
            continue
        print(f"{step.name}: begun, about {wanted:.0f} min", flush=True)
        start = time.monotonic()
        with (results / f"{step.name}.log").open("wb") as log:
            code = subprocess.run(
                ["bash", "-c", step.command], cwd=folder / "armory", env=env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, check=False,
            ).returncode  # fmt: skip
        row = {
            "step": step.name,
            "command": step.command,
            "exit": code,
            "seconds": round(time.monotonic() - start, 1),
        }
        with (results / "steps.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        if not code:
            kept.write_text(json.dumps(row))
        print(f"{step.name}: exit {code} after {row['seconds']} s", flush=True)
    for path in (folder / "build").glob("*/units.jsonl"):
        shutil.copy2(path, results / f"{path.parent.name}.units.jsonl")
    for path in (folder / "wheels").glob("*.json"):
        shutil.copy2(path, results)
    shutil.make_archive(str(folder / "results"), "gztar", folder, "results")


def look(asked: argparse.Namespace) -> None:
    """What was done, and the last lines of what is running."""
    results = asked.folder.resolve() / "results"
    rows = (
        [json.loads(line) for line in (results / "steps.jsonl").open()]
        if (results / "steps.jsonl").exists()
        else []
    )
    for row in rows:
        print(f"{row['step']:24} exit {row['exit']:3} {row['seconds']:8.1f} s")
    logs = sorted(results.glob("*.log"), key=lambda path: path.stat().st_mtime)
    if logs:
        print(f"--- {logs[-1].name}")
        sys.stdout.write("".join(logs[-1].read_text(errors="replace").splitlines(keepends=True)[-15:]))


def main() -> None:
    """Do what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = parser.add_subparsers(required=True)
    one = words.add_parser("pack")
    one.add_argument("--tag", required=True)
    one.add_argument("--with", dest="needs", type=Path, action="append", default=[])
    for word in WHEELS:
        one.add_argument(f"--{word.lower()}", type=Path)
    one.add_argument("--mirror", action="append", default=[], help="URL=DIR, as of ./inv mirror")
    one.set_defaults(do=pack)
    two = words.add_parser("run")
    two.add_argument("--most-minutes", type=float, default=28)
    two.add_argument("--only", default="", help="steps, comma separated")
    two.set_defaults(do=run)
    words.add_parser("look").set_defaults(do=look)
    for word in words.choices.values():
        word.add_argument("folder", type=Path)
    asked = parser.parse_args()
    asked.do(asked)


if __name__ == "__main__":
    main()
