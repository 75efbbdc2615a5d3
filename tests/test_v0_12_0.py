"""v0.12.0 stays what it is: what Thor's built wheel compiled, and Spark's plan (no Spark wheel of it was built).

Thor's plan and modules are held by test_modules.
"""

from __future__ import annotations

import json
from pathlib import Path

from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.units import surveyed
from build_recipes.kit.paths import Places

BUILT = Path(__file__).resolve().parent.parent / "docs/evidence/thor-v0.12.0"


def test_sparks_plan_is_that_of_thors_wheel_with_sparks_patches() -> None:
    then = json.loads((BUILT / "plan.json").read_text())
    plan = make_plan(Request(tag="v0.12.0", device="spark"), Places.from_environment())
    now = plan.as_dict()
    for key in ("tag", "version", "torch", "source", "build_type", "only", "without", "smoke"):
        assert now[key] == then[key], key
    assert (now["wheel_version"], now["arch_list"]) == ("0.12.0+cu130.spark", "12.1")
    pins = {tree["name"]: tree["commit"] for tree in then["trees"]}
    assert all(pins[tree.name] == tree.commit for tree in plan.lock.trees if tree.commit)
    ours = set(then["patches"])
    assert {text for text in plan.patches if text.partition("@")[0] != "P10"} == ours, (
        "P10: QuTLASS loads on 12.1"
    )


def test_thor_compiles_the_units_of_the_built_wheel() -> None:
    known = surveyed.units_of("v0.12.0", "11.0")
    assert known is not None
    units = {unit for names in known.values() for unit in names or ()}
    assert units == {json.loads(line)["unit"] for line in (BUILT / "units.jsonl").read_text().splitlines()}
    made = json.loads((BUILT / "manifest.json").read_text())
    compiled = {name.rpartition(".")[2] for name in made["modules"]} - {"triton_kernels"}
    assert {target for target, names in known.items() if names} == compiled
    assert {name.rpartition(".")[2] for name in made["left_out"]} <= {
        t for t, names in known.items() if not names
    }
