"""What must stay cheap: listing the tasks, showing a plan, and saying 'up to date' import nothing that builds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheel_maker import make_wheel

from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages.published import sealed
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.wheelhouse.index import write_index

TAG = "cp38-abi3-manylinux_2_35_aarch64"
HEAVY = {"git", "requests", "cyclonedx", "pypi_simple", "build_recipes.build.pipeline"}
SCRIPT = """
import json, sys
from invoke.main import program
try:
    program.run(["invoke", *sys.argv[1:]], exit=False)
finally:
    print("MODULES", json.dumps(sorted(sys.modules)), sys.dont_write_bytecode)
"""


def run(*words: str) -> tuple[set[str], str]:
    """Modules that a command imported, and what it said."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    modules, _, flag = done.stdout.rpartition("MODULES ")[2].strip().rpartition(" ")
    assert flag == "False", (
        "Invoke's switch keeps every module without bytecode, so each start compiles them all"
    )
    return set(json.loads(modules)), done.stderr


@pytest.fixture
def published(places: Places) -> Path:
    """A wheel in wheels/, in the index, whose manifest has the fingerprint of the plan."""
    plan = make_plan(Request(tag="v0.12.0", device="thor"), places)
    name = f"vllm-{plan.wheel_version}-{TAG}"
    wheel = make_wheel(places.wheels, {}, version=plan.wheel_version, tag=TAG)
    said = {"size": wheel.stat().st_size, "sha256": file_sha256(wheel)}
    manifest = sealed({"schema": 2, "plan": plan.as_dict(), "wheel": said})
    (places.wheels / f"{name}.manifest.json").write_text(json.dumps(manifest))
    write_index(places.wheels)
    return wheel


def test_a_list_of_commands_imports_nothing_heavy() -> None:
    modules, _ = run("--list")
    assert not modules & HEAVY


def test_a_plan_imports_what_it_takes_to_look_into_git_mirrors_and_no_more(places: Places) -> None:
    modules, _ = run("plan", "--tag", "v0.12.0", "--device", "thor")
    assert not modules & (HEAVY - {"git", "requests"})


def test_a_build_with_nothing_to_do_imports_nothing_heavy(published: Path) -> None:
    modules, said = run("build", "--tag", "v0.12.0", "--device", "thor")
    assert f"up to date: {published}" in said
    assert not modules & HEAVY
