"""Coverage-guided fuzzing of the readers with atheris; not part of the default test run.

    uv run --with atheris python tests/fuzz/fuzz_atheris.py elf -runs=200000 -max_len=40000
    uv run --with atheris python tests/fuzz/fuzz_atheris.py wheel -runs=100000

Seeds are the objects in tests/data/inspect; whatever else is given goes to libFuzzer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

with atheris.instrument_imports(include=["build_recipes"]):
    import targets
    from wheel_maker import DATA, thor_wheel


def main() -> None:
    """Run one target for as many inputs as libFuzzer is told."""
    which, *options = sys.argv[1:]
    work = Path(tempfile.mkdtemp(prefix="armory-fuzz."))
    corpus = work / "corpus"
    corpus.mkdir()
    if which == "elf":
        for seed in sorted(DATA.glob("*.o")) + sorted(DATA.glob("*.so*")):
            (corpus / seed.name).write_bytes(seed.read_bytes())
    else:
        thor_wheel(corpus)
    place = work / "vllm-0.12.0-cp38-abi3-linux_aarch64.whl"

    def one(data: bytes) -> None:
        if which == "elf":
            targets.read_elf(data)
            targets.read_module(data)
        else:
            targets.read_wheel(data, place)

    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
