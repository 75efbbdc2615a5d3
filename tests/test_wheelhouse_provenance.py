"""Provenance: deterministic documents that other people's tools accept, and a plan that comes back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import pytest
from wheel_maker import thor_wheel

from build_recipes.build import rebuild
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request, request_as_dict
from build_recipes.kit import process
from build_recipes.kit.errors import CouldNotCheck
from build_recipes.kit.paths import Places
from build_recipes.wheelhouse.provenance import MEMBER, Inputs, read, sbom, statement, write_statement
from build_recipes.wheelhouse.rewrite import Edits, rewrite

PATCH = {"id": "P1", "variant": "p1-a.patch", "sha256": "ab" * 32, "files": ["vllm/setup.py"]}


@pytest.fixture
def inputs(places: Places) -> Inputs:
    """A real plan of v0.12.0 for Thor."""
    plan = make_plan(Request(tag="v0.12.0", device="thor", without=("_vllm_fa3_C",)), places)
    return Inputs(
        lock=plan.lock,
        plan=plan.as_dict(),
        request=request_as_dict(plan.request),
        patches=[PATCH],
        toolchain={"nvcc": "13.0.88", "gcc": "12.2.0"},
        torch=plan.torch.version,
        epoch=plan.epoch,
    )


def test_the_document_names_every_source_patch_and_tool(inputs: Inputs) -> None:
    document = json.loads(sbom(inputs))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["bom-ref"]: part for part in document["components"]}
    for tree in inputs.lock.trees:
        assert parts[f"tree:{tree.name}"]["version"] == (tree.commit or tree.revision)
        assert parts[f"tree:{tree.name}"]["externalReferences"][0]["url"] == tree.repository
    sdist = inputs.lock.vllm.sdist
    assert sdist is not None
    assert parts[f"file:{sdist.filename}"]["hashes"] == [{"alg": "SHA-256", "content": sdist.sha256}]
    assert parts["patch:P1:p1-a.patch"]["hashes"][0]["content"] == PATCH["sha256"]
    assert parts["tool:nvcc"]["version"] == "13.0.88"
    assert any(ref.startswith("file:torch-2.11.0") for ref in parts)
    depends = {row["ref"]: row.get("dependsOn", []) for row in document["dependencies"]}
    assert sorted(depends["vllm"]) == sorted(parts)


def test_the_same_build_gives_the_same_bytes_and_another_one_others(inputs: Inputs, tmp_path: Path) -> None:
    assert sbom(inputs) == sbom(dataclasses.replace(inputs))
    other = dataclasses.replace(inputs, plan={**inputs.plan, "fingerprint": "0" * 16})
    assert json.loads(sbom(other))["serialNumber"] != json.loads(sbom(inputs))["serialNumber"]
    wheel = thor_wheel(tmp_path)
    assert statement(inputs, wheel) == statement(inputs, wheel)


def test_the_statement_binds_the_wheel_to_its_sources(inputs: Inputs, tmp_path: Path) -> None:
    wheel = thor_wheel(tmp_path)
    path = write_statement(inputs, wheel)
    assert path == tmp_path / "vllm-0.12.0-cp38-abi3-manylinux_2_31_aarch64.intoto.json"
    said = json.loads(path.read_bytes())
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert said["subject"] == [{"name": wheel.name, "digest": {"sha256": digest}}]
    used = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    commits = {row["digest"].get("gitCommit") for row in used}
    assert {tree.commit for tree in inputs.lock.trees if tree.commit} <= commits
    assert all(row["uri"] and row["digest"] for row in used)


def test_the_plan_comes_back_from_the_wheel_alone(inputs: Inputs, tmp_path: Path, places: Places) -> None:
    wheel = rewrite(thor_wheel(tmp_path), tmp_path / "out", Edits(put={MEMBER: sbom(inputs)}))
    found = rebuild.compare(wheel, places)
    assert found.differs == {}
    assert found.then.plan["fingerprint"] == found.now["fingerprint"]
    assert found.command == "./inv build --tag v0.12.0 --device thor --without _vllm_fa3_C"


def test_what_differs_from_todays_plan_is_named(inputs: Inputs, tmp_path: Path, places: Places) -> None:
    then = dataclasses.replace(inputs, plan={**inputs.plan, "lock": "old", "patches": ["P1@old"]})
    wheel = rewrite(thor_wheel(tmp_path), tmp_path / "out", Edits(put={MEMBER: sbom(then)}))
    found = rebuild.compare(wheel, places)
    assert set(found.differs) == {"lock", "patches"}
    assert found.differs["lock"] == ("old", inputs.lock.digest)


@pytest.mark.parametrize(
    "document", [b"{}", b"[]", b"null", b'{"metadata": {"component": {"properties": 1}}}']
)
def test_a_wheel_that_was_not_built_here_says_so(tmp_path: Path, document: bytes, places: Places) -> None:
    with pytest.raises(CouldNotCheck, match="not built here"):
        rebuild.compare(thor_wheel(tmp_path), places)
    wheel = rewrite(thor_wheel(tmp_path), tmp_path / "out", Edits(put={MEMBER: document}))
    with pytest.raises(CouldNotCheck, match="damaged"):
        rebuild.compare(wheel, places)
    with pytest.raises(ValueError, match="no document"):
        read(document)


@pytest.mark.network
def test_cyclonedx_own_validator_accepts_the_document(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_bytes(sbom(inputs))
    code = (
        "import sys; from cyclonedx.schema import SchemaVersion; "
        "from cyclonedx.validation.json import JsonStrictValidator; "
        "found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()); "
        "print(found); sys.exit(bool(found))"
    )
    uv = Path(sys.executable).with_name("uv")
    extra = "cyclonedx-python-lib[json-validation]"
    run = [uv, "run", "--no-project", "--quiet", "--python", sys.executable, "--with", extra]
    done = process.run([*run, "python", "-c", code, tmp_path / "bom.json"])
    assert done.ok, "\n".join(done.tail)
