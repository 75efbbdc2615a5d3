"""Coverage-guided fuzzing of one reader with atheris; not part of the default test run.

    uv run --with atheris python tests/fuzz/fuzz_atheris.py elf -runs=200000 -max_len=40000
    uv run --with atheris python tests/fuzz/fuzz_atheris.py zip -runs=100000

Targets and seeds are those of targets.py; whatever else is given goes to libFuzzer.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent))

with atheris.instrument_imports(include=["build_recipes"]):
    import targets
    from target import taken


def main() -> None:
    """Run one target for as many inputs as libFuzzer is told."""
    which, *options = sys.argv[1:]
    target = targets.TARGETS[which]
    work = Path(tempfile.mkdtemp(prefix="armory-fuzz."))
    (work / "corpus").mkdir()
    for number, seed in enumerate(target.seeds()):
        (work / "corpus" / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        folder = work / "in"
        folder.mkdir()
        try:
            taken(target, data, folder)
        finally:
            shutil.rmtree(folder)

    atheris.Setup([sys.argv[0], *options, str(work / "corpus")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
