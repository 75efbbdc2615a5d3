"""P1 proved by vLLM's own code, on every version: its detection under a real libnvidia-ml.so.1 that we compile.

60 situations (NVML absent, failing, without device, without memory, well; with and without marks of a Jetson; a
+cpu, a +cu130 and no distribution) on each version, without and with P1. Every cell is asserted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from build_recipes.kit import paths
from build_recipes.kit.paths import Places
from build_recipes.patching import git, series, trees

from . import environment
from .situations import (
    DEVICE_TYPE,
    EMPTY,
    SITUATIONS,
    Outcome,
    Situation,
    patched,
    without,
)

PLACES = Places.from_environment()
pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(3600)]
VERSIONS = tuple(trees.sdists())
Cells = dict[tuple[str, str], dict[str, Any]]


def described(situation: Situation, folder: Path, library: Path) -> dict[str, Any]:
    """A situation as the zygote takes it: environment, and a folder with distribution metadata."""
    root = folder / f"root-{situation.marks}"
    if situation.marks == "l4t":
        (root / "etc").mkdir(parents=True, exist_ok=True)
        (root / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    if situation.marks == "device-tree":
        (root / "proc/device-tree").mkdir(parents=True, exist_ok=True)
        (root / "proc/device-tree/compatible").write_bytes(b"nvidia,p3834-0008\0nvidia,tegra264\0")
    metadata = ""
    if situation.metadata != "none":
        site = folder / f"site{situation.metadata}"
        info = site / f"vllm-0.1.0{situation.metadata}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: vllm\nVersion: 0.1.0{situation.metadata}\n"
        )
        metadata = str(site)
    return {
        "name": situation.name,
        "metadata": metadata,
        "environment": {
            "ARMORY_NVML": "" if situation.nvml == "absent" else situation.nvml,
            "ARMORY_NVML_LIBRARY": str(library),
            "ARMORY_ROOT": str(root),
            "ARMORY_RELEASE": "6.8.12-tegra" if situation.marks == "kernel" else "6.8.0-generic",
        },
    }


def with_p1(version: str, into: Path) -> Path:
    """A copy of a tree with P1 of the series on it, and nothing else."""
    tree = trees.vllm_tree(version, PLACES)
    shutil.copytree(tree, into, copy_function=os.link)
    entry = next(entry for entry in series.load().patch if entry.id == "P1")
    (variant,) = (v for v in entry.variant if v.versions.holds(series.parse_version(version)))
    file = variant.path(paths.PATCHES)
    with git.scratch() as scratch:
        names = git.touched(file)
        scratch.take(tree, names)
        assert scratch.apply(file).outcome == "applies"
        for name in names:
            (into / name).unlink()
            shutil.copyfile(scratch.folder / name, into / name)
    return into


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """Every cell: (tree, situation) -> what the tree decided."""
    folder = tmp_path_factory.mktemp("proof")
    library, root = environment.libraries(folder)
    program = environment.python(PLACES.cache)
    trees.fetch(list(VERSIONS), PLACES)
    situations = [described(situation, folder, library) for situation in SITUATIONS]
    work = {f"{version} without": str(trees.vllm_tree(version, PLACES)) for version in VERSIONS}
    work |= {f"{version} patched": str(with_p1(version, folder / version / "tree")) for version in VERSIONS}
    parts = max(1, len(os.sched_getaffinity(0)))
    labels = list(work)

    def run(number: int) -> list[dict[str, Any]]:
        file = folder / f"work-{number}.json"
        chosen = {label: work[label] for label in labels[number::parts]}
        file.write_text(json.dumps({"trees": chosen, "situations": situations}))
        done = subprocess.run(
            [program, environment.HERE / "zygote.py", file],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "LD_PRELOAD": str(root),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    with ThreadPoolExecutor(parts) as pool:
        lines = [line for part in pool.map(run, range(parts)) for line in part]
    faults = [line["fault"] for line in lines if "fault" in line]
    assert not faults, faults[:3]
    return {(line["tree"], line["situation"]): line for line in lines}


def test_no_cell_is_missing(cells: Cells) -> None:
    wanted = {
        (f"{version} {state}", situation.name)
        for version in VERSIONS
        for state in ("without", "patched")
        for situation in SITUATIONS
    }
    assert len(wanted) == len(VERSIONS) * 2 * 60
    assert set(cells) == wanted


def fault(seen: dict[str, Any], wanted: Outcome, situation: Situation) -> str:
    """What is wrong with a cell; empty where nothing is."""
    if wanted.kind == "two":
        good = "Only one platform plugin can be activated" in seen.get("error", "")
        return "" if good else f"{seen}"
    if (seen["class"], seen.get("device_type")) != (wanted.kind, DEVICE_TYPE[wanted.kind]):
        return f"{seen}"
    engine = seen["engine"]
    if wanted.engine == "explained":
        parts = ["Failed to infer device type", "Tried", "no sign of a Jetson"]
        parts.append("vllm is 0.1.0+cu130" if situation.metadata == "+cu130" else "no distribution metadata")
        parts.append("reports 0 devices" if situation.starts else "libnvidia-ml.so.1) failed")
        return "" if all(part in engine for part in parts) and engine != EMPTY else engine
    return "" if engine == (EMPTY if wanted.engine == "empty" else "starts") else engine


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_patch_todays_failures_are_seen(cells: Cells, version: str) -> None:
    faults = {
        s.name: text
        for s in SITUATIONS
        if (text := fault(cells[f"{version} without", s.name], without(s), s))
    }
    assert not faults


@pytest.mark.parametrize("version", VERSIONS)
def test_with_the_patch_every_situation_is_right(cells: Cells, version: str) -> None:
    faults = {
        s.name: text
        for s in SITUATIONS
        if (text := fault(cells[f"{version} patched", s.name], patched(s), s))
    }
    assert not faults


def test_the_patch_changes_something_that_matters() -> None:
    changed = [s for s in SITUATIONS if without(s) != patched(s)]
    assert len(changed) == 30
    assert {without(s).kind for s in changed} == {"UnspecifiedPlatform", "two"}
