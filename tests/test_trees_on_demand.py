"""A tree that cannot be fetched: who needs it is said at the plan, with a command that works. Real git."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest

from build_recipes.build.modules import parts
from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.preview import preview
from build_recipes.build.request import Request
from build_recipes.build.stages import trees
from build_recipes.build.units import surveyed
from build_recipes.kit import paths
from build_recipes.kit.paths import Places
from build_recipes.sources.lockfile import SubmodulePin, load_lock
from build_recipes.sources.modules import Kind, Makeup, Module


@pytest.fixture
def upstream(tmp_path: Path) -> dict[str, str]:
    """Two repositories, one with the other as submodule: name to commit."""
    commits = {}
    for name in ("fmt", "deepgemm"):
        folder = tmp_path / "up" / name
        folder.mkdir(parents=True)
        (folder / "CMakeLists.txt").write_text("# nothing\n")
        run = ["git", "-c", "user.name=t", "-c", "user.email=t@e.org", "-C", str(folder)]
        subprocess.run(["git", "init", "-q", folder], check=True)
        subprocess.run([*run, "add", "-A"], check=True)
        subprocess.run([*run, "commit", "-q", "-m", "one"], check=True)
        done = subprocess.run([*run, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        commits[name] = done.stdout.strip()
    return commits


@pytest.fixture
def plan(tmp_path: Path, upstream: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Plan:
    """v0.26.0 for Thor, offline with an empty cache; DeepGEMM and fmt are the repositories of `upstream`."""
    for name in ("CACHE", "BUILD", "WHEELS"):
        monkeypatch.setenv(f"VLLM_ARMORY_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr(paths, "configuration_files", list)
    made = make_plan(Request(tag="v0.26.0", device="thor", offline=True), Places.from_environment())
    deepgemm = msgspec.structs.replace(
        made.lock.tree("deepgemm"), repository=f"file://{tmp_path}/up/deepgemm", commit=upstream["deepgemm"],
        submodules=[SubmodulePin(path="fmt", repository=f"file://{tmp_path}/up/fmt", commit=upstream["fmt"])],
    )  # fmt: skip
    others = [
        deepgemm if tree.name == "deepgemm"
        else msgspec.structs.replace(tree, commit="", unresolved="nobody had it") if tree.name == "cutlass"
        else tree
        for tree in made.lock.trees
    ]  # fmt: skip
    return dataclasses.replace(made, lock=msgspec.structs.replace(made.lock, trees=others))


def with_units(monkeypatch: pytest.MonkeyPatch, **units: list[str] | None) -> None:
    monkeypatch.setattr(surveyed, "table", lambda: {"v0.26.0": {"11.0": units}})


def test_the_plan_says_what_is_missing_who_needs_it_and_what_to_type(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_units(monkeypatch, _vllm_fa2_C=["a.cu.o"], _flashmla_C=[], _flashmla_extension_C=[])
    lacks = {lack.tree.name: lack for lack in trees.foreseen(plan)}
    assert "triton_kernels" not in lacks, "its files come from the official wheel"
    assert lacks["vllm-flash-attn"].needed_by == ("_vllm_fa2_C",)
    assert lacks["flashmla"].needed_by == lacks["flashmla"].perhaps == (), "Thor compiles nothing of it"
    assert lacks["deepgemm"].perhaps == ("_deep_gemm_C",), "the survey does not know: CMake will tell"
    shown = {row["tree"]: row for row in preview(plan)["lacks"]}
    assert shown["cutlass"]["next"] == lacks["cutlass"].advice


def test_a_pin_that_the_lock_has_not_is_never_answered_with_a_mirror_for_the_build(plan: Plan) -> None:
    lack = next(lack for lack in trees.foreseen(plan) if lack.tree.name == "cutlass")
    assert re.findall(r"\./inv \w+ --tag v0\.26\.0", lack.advice) == ["./inv lock --tag v0.26.0"] * 2
    assert "--mirror https://github.com/nvidia/cutlass.git=/path/to/clone" in lack.advice


def test_the_advice_for_a_tree_brings_its_submodules_too(plan: Plan, tmp_path: Path) -> None:
    """What is typed as it is printed (but for the path) ends what is missing."""
    lack = next(lack for lack in trees.foreseen(plan) if lack.tree.name == "deepgemm")
    commands, options = lack.advice.removeprefix("where there is a network: ").split("; then add ")
    assert commands.count("git clone") == 2, "DeepGEMM, and fmt, which it does not compile without"
    for command in commands.replace("/path/to", str(tmp_path)).split(" && "):
        subprocess.run(shlex.split(command), check=True, capture_output=True)
    given = tuple(
        word for word in shlex.split(options.replace("/path/to", str(tmp_path))) if word != "--mirror"
    )
    better = dataclasses.replace(plan, request=dataclasses.replace(plan.request, mirrors=given))
    assert "deepgemm" not in {lack.tree.name for lack in trees.foreseen(better)}
    library = trees.library_of(better)
    assert library.with_commit(lack.tree.submodules[0].repository, lack.tree.submodules[0].commit)


def test_the_refusal_names_only_modules_that_there_are(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with_units(monkeypatch, _vllm_fa2_C=["a.cu.o"], _C_stable_libtorch=["b.cu.o"])
    text, advice = trees.refusal(plan, [lack for lack in trees.foreseen(plan) if lack.needed_by])
    names = advice.rpartition("--without ")[2].split(",")
    assert set(names) == {"_vllm_fa2_C", "_C_stable_libtorch"}
    assert set(names) <= {user for tree in load_lock("v0.26.0").trees for user in tree.users}
    assert "thor compiles" in text
    assert "partial" in advice


def test_a_module_that_only_a_missing_tree_defines_is_lost_and_not_without_code(tmp_path: Path) -> None:
    (tmp_path / "build.ninja").write_text("")
    module = Module("vllm._fa", Kind.KERNEL, ("flash",), "x.cmake:1", False, outside=True)
    for missing, lost in ((["flash"], True), ([], False)):
        (part,) = parts(
            Makeup((module,), (), {}),
            tmp_path,
            Path("/bin/false"),
            asked=["_fa"],
            missing=missing,
            capability="11.0",
        )
        assert part.lost is lost
        assert part.whole is not lost
