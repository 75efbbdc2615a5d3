"""The floors of the house: imports point down only (the contract is in pyproject.toml)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def test_imports_point_down_only(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--cache-dir", tmp_path],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_a_file_that_is_named_by_its_place_is_there() -> None:
    from build_recipes.build.stages.configure import LAUNCHER
    from build_recipes.build.units.assemble import _HERE

    assert [path.is_file() for path in (LAUNCHER, _HERE / "unit.py", _HERE / "one_image.py")] == [True] * 3
