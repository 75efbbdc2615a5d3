"""The faults that this project once fell for, each on a real smoke tree: what the next build says, evidence on demand.

    VLLM_ARMORY_CACHE=... VLLM_ARMORY_BUILD=... VLLM_ARMORY_WHEELS=... python tests/crash/faults.py [NAMES]

The three folders are used as they are (a cache that only this run uses, where ``download`` is among the faults: it is
torn, too). The first build is the reference. Each fault is put into the tree with the files' times kept, the wheel is
taken away, and the same command is typed; it must end with 0 and the reference's members, byte for byte. NAMES is a
regular expression on the names of faults. A row of a Markdown table a fault goes to stdout.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tear import COMMAND, PROJECT, members, tear

PLACES = {name: Path(os.environ[f"VLLM_ARMORY_{name}"]) for name in ("CACHE", "BUILD", "WHEELS")}
TREE = PLACES["BUILD"] / "v0.12.0-thor-smoke"
OBJECT = "cmake/CMakeFiles/cumem_allocator.dir/csrc/cumem_allocator.cpp.o"


def torn(name: str, way: str) -> Callable[[], object]:
    """A file of the tree, torn in one of the ways of `tear`."""
    return lambda: tear(TREE / name, way)


def outputs(value: object) -> Callable[[], object]:
    """A stage's record with other outputs."""

    def work() -> None:
        path = TREE / "stages/provision.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "outputs": value}))

    return work


def tail() -> None:
    """A binary tail in the journal of units."""
    with (TREE / "units.jsonl").open("ab") as stream:
        stream.write(b"\xff\xfe\x00\x80 torn")


def key() -> None:
    """A record of the journal that lacks a key, on top."""
    path = TREE / "units.jsonl"
    path.write_bytes(b'{"unit": "_C/x.cu.o"}\n' + path.read_bytes())


def download() -> None:
    """A byte of a download, flipped after it was checked; what was made of it is gone."""
    wheel = next(PLACES["CACHE"].glob("downloads/*/ninja-*.whl"))
    tear(wheel, "flipped")
    (TREE / "stages/provision.json").unlink()


FAULTS: dict[str, Callable[[], object]] = {
    "an empty object": torn(OBJECT, "empty"),
    "one byte of an object": torn(OBJECT, "flipped"),
    "a zero-length source, patched": torn("src/vllm/csrc/cumem_allocator.cpp", "empty"),
    "a zeroed envs.py": torn("src/vllm/vllm/envs.py", "empty"),
    "a zero-byte module": torn("cmake/cumem_allocator.abi3.so", "empty"),
    "one byte of a module": torn("cmake/cumem_allocator.abi3.so", "flipped"),
    "an empty build.ninja": torn("cmake/build.ninja", "empty"),
    "half a build.ninja": torn("cmake/build.ninja", "half"),
    "an empty CMakeCache": torn("cmake/CMakeCache.txt", "empty"),
    "a stage record with outputs null": outputs(None),
    "a stage record with outputs {}": outputs({}),
    "a binary tail in the journal of units": tail,
    "a row of the journal without its keys": key,
    "one byte of a download": download,
}


def build() -> tuple[int, str]:
    """Type the command; exit code and what it said."""
    done = subprocess.run(
        COMMAND,
        cwd=PROJECT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    only = re.compile(sys.argv[1] if len(sys.argv) > 1 else "")
    for path in PLACES["WHEELS"].glob("*.whl"):
        path.unlink()  # one of another version of this program has another bill of materials
    code, said = build()
    if code:
        print(said)
        return 1
    reference, wrong = members(PLACES["WHEELS"]), 0
    for name, fault in FAULTS.items():
        if not only.search(name):
            continue
        fault()
        for path in PLACES["WHEELS"].glob("*.whl"):
            path.unlink()
        code, said = build()
        same = code == 0 and members(PLACES["WHEELS"]) == reference
        wrong += not same
        lines = (line.strip() for line in said.splitlines())
        told = next(
            (line for line in lines if "again" in line or line.startswith("error")),
            "nothing: nobody reads it",
        )
        told = told.removeprefix("warning").strip()
        print(
            f"| {name} | {code}, {'the same wheel' if same else 'ANOTHER WHEEL'} | {told[:150]} |", flush=True
        )
        if not same:
            print(said[-3000:], file=sys.stderr)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
