"""Retagging a 436 MB wheel: raw copy here, `wheel unpack` + `wheel pack`, and `cp` for the disk's share.

python benchmarks/audit_rewrite.py [0.12.0]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from build_recipes.audit.subject import official
from build_recipes.kit import process
from build_recipes.kit.paths import Places
from build_recipes.wheelhouse.rewrite import Edits, rewrite


def timed(what: str, work: Callable[[], object]) -> None:
    """Print how long a step takes, with its data on the disk."""
    os.sync()
    started, cpu = time.monotonic(), time.process_time()
    work()
    os.sync()
    print(f"{what:28} {time.monotonic() - started:6.2f} s wall, {time.process_time() - cpu:5.2f} s own CPU")


def main() -> None:
    """Measure the three."""
    wheel = official(sys.argv[1] if len(sys.argv) > 1 else "0.12.0", Places.from_environment())
    uv = Path(sys.executable).with_name("uv")
    tool = [str(uv), "run", "--no-project", "--quiet", "--python", sys.executable, "--with", "wheel", "wheel"]
    process.capture([*tool, "version"])
    with tempfile.TemporaryDirectory(dir=Places.from_environment().cache) as folder:
        work = Path(folder)
        edits = Edits(version="0.12.0+cu130.thor", platform="manylinux_2_39_aarch64")
        for _ in range(3):
            timed("cp", lambda: shutil.copyfile(wheel, work / "copy.whl"))
            timed("rewrite", lambda: rewrite(wheel, work / "out", edits))

        def unpack_and_pack() -> None:
            process.capture([*tool, "unpack", "--dest", work / "tree", wheel])
            process.capture([*tool, "pack", "--dest-dir", work, next((work / "tree").iterdir())])

        timed("wheel unpack + wheel pack", unpack_and_pack)


if __name__ == "__main__":
    main()
