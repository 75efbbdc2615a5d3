"""Provenance: deterministic documents that other people's tools accept, and a plan that comes back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from datetime import datetime
from email import message_from_string
from pathlib import Path

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from wheel_maker import make_wheel, thor_wheel

from build_recipes.build import rebuild
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request, request_as_dict, without_places
from build_recipes.formats.licences import of_metadata, of_text, of_tree, of_wheel
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import ourselves, process
from build_recipes.kit.errors import CouldNotCheck
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.sources.fetch import _full_commit
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import load_lock
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
        commit="ab" * 20,
        trees=[tree.name for tree in plan.lock.trees if tree.commit][:2],
        files=[pin for pin in plan.torch.files if pin.group == "torch"][:1],
        licences={"vllm": "Apache-2.0", f"tree:{plan.lock.trees[0].name}": "BSD-3-Clause"},
        epoch=plan.epoch,
    )


def test_the_document_names_every_source_patch_and_tool(inputs: Inputs) -> None:
    document = json.loads(sbom(inputs))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["bom-ref"]: part for part in document["components"]}
    assert {ref for ref in parts if ref.startswith("tree:")} == {
        f"tree:{name}" for name in (*inputs.trees, "vllm")
    }
    for name in inputs.trees:
        tree = inputs.lock.tree(name)
        assert parts[f"tree:{tree.name}"]["version"] == tree.commit
        assert parts[f"tree:{tree.name}"]["externalReferences"][0]["url"] == tree.repository
    assert parts["tree:vllm"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert document["metadata"]["tools"]["components"][0]["version"] == ourselves.version()
    sdist = inputs.lock.vllm.sdist
    assert sdist is not None
    assert parts[f"file:{sdist.filename}"]["hashes"] == [{"alg": "SHA-256", "content": sdist.sha256}]
    assert parts["patch:P1:p1-a.patch"]["hashes"][0]["content"] == PATCH["sha256"]
    assert parts["tool:nvcc"]["version"] == "13.0.88"
    assert [ref for ref in parts if ref.startswith("file:torch-")] == [f"file:{inputs.files[0].filename}"]
    depends = {row["ref"]: row.get("dependsOn", []) for row in document["dependencies"]}
    assert sorted(depends["vllm"]) == sorted(parts)


def test_the_same_build_gives_the_same_bytes_and_another_one_others(inputs: Inputs, tmp_path: Path) -> None:
    assert sbom(inputs) == sbom(dataclasses.replace(inputs))
    other = dataclasses.replace(inputs, plan={**inputs.plan, "fingerprint": "0" * 16})
    assert json.loads(sbom(other))["serialNumber"] != json.loads(sbom(inputs))["serialNumber"]
    wheel = thor_wheel(tmp_path)
    one, other = (json.loads(statement(inputs, wheel)) for _ in range(2))
    one["predicate"]["runDetails"]["metadata"].pop("finishedOn")
    other["predicate"]["runDetails"]["metadata"].pop("finishedOn")
    assert one == other, "but for the time it was made"


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
    assert commits - {None} >= {inputs.commit, *(inputs.lock.tree(name).commit for name in inputs.trees)}
    assert all(row["uri"] and row["digest"] for row in used)
    part = json.loads(statement(dataclasses.replace(inputs, commit=""), wheel))
    (vllm,) = (
        row for row in part["predicate"]["buildDefinition"]["resolvedDependencies"] if row["name"] == "vllm"
    )
    assert "digest" not in vllm, "part of a hash is no digest"
    assert vllm["annotations"] == {"commitBegins": inputs.lock.vllm.commit}


def test_the_builder_is_the_workflow_that_ran(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = thor_wheel(tmp_path)
    workflow = "owner/armory/.github/workflows/nightly.yml@refs/heads/main"
    for name, value in {
        "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "owner/armory", "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "1", "GITHUB_WORKFLOW_REF": workflow, "GITHUB_SHA": "cd" * 20,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    began = time.time() - 86400
    said = json.loads(statement(dataclasses.replace(inputs, started=began), wheel))["predicate"]
    run = said["runDetails"]
    assert run["builder"] == {
        "id": f"https://github.com/{workflow}", "version": {"vllm-armory": ourselves.version()}
    }  # fmt: skip
    assert run["metadata"]["invocationId"] == "https://github.com/owner/armory/actions/runs/7/attempts/1"
    times = [datetime.fromisoformat(run["metadata"][key].replace("Z", "+00:00")).timestamp()
             for key in ("startedOn", "finishedOn")]  # fmt: skip
    assert times[0] == int(began)
    assert abs(times[1] - time.time()) < 60, "the real time, not SOURCE_DATE_EPOCH"
    source = said["buildDefinition"]["resolvedDependencies"][-1]
    assert source == {"name": "vllm-armory", "uri": "git+https://github.com/owner/armory",
                      "digest": {"gitCommit": "cd" * 20}}  # fmt: skip
    for name in ("GITHUB_REPOSITORY", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name)
    assert json.loads(statement(inputs, wheel))["predicate"]["runDetails"]["builder"]["id"] == ourselves.LOCAL


def test_licences_are_read_where_they_are_told(tmp_path: Path) -> None:
    for text, licence in {
        "License-Expression: apache-2.0 OR mit": "Apache-2.0 OR MIT",
        "License: Apache 2.0": "Apache-2.0",
        "License: NVIDIA Proprietary Software": "NVIDIA Proprietary Software",
        "License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License": "MIT",
        "Classifier: License :: OSI Approved :: BSD License": "",
    }.items():
        assert of_metadata(message_from_string(text)) == licence, text
    text = (PROJECT / "LICENSE").read_text()
    (tmp_path / "LICENSE.txt").write_text(text)
    assert of_tree(tmp_path) == of_text(text) == "Apache-2.0"
    wheel = make_wheel(tmp_path, {"vllm-0.12.0.dist-info/licenses/LICENSE": text.encode()})
    with Wheel(wheel) as opened:
        assert of_wheel(opened) == "Apache-2.0", "its metadata says nothing"
    assert of_text("All rights reserved.") == ""


def test_no_folder_of_the_builder_is_told() -> None:
    request = Request(tag="v0.12.0", device="thor", source="/home/me/vllm", cuda="/usr/local/cuda",
                      torch="existing:/home/me/python", mirrors=("https://github.com/a/b=/home/me/b",))  # fmt: skip
    told = without_places(request_as_dict(request))
    assert (told["source"], told["cuda"], told["torch"]) == ("folder", "given", "existing")
    assert told["mirrors"] == ["https://github.com/a/b"]
    plan = {
        "tree": "/home/me/build",
        "torch": {"version": "existing:/home/me/python"},
        "source": "/home/me/vllm",
    }
    assert "/home/me" not in json.dumps(without_places(plan))


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


def valid(bom: bytes, said: bytes) -> None:
    """Other people's readers take both documents."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom.decode()) is None
    document = json.loads(said)
    predicate = document.pop("predicate")
    read_back = Statement([ResourceDescriptor(**row).pb for row in document["subject"]],
                          document["predicateType"], predicate)  # fmt: skip
    read_back.validate()
    assert document["_type"] == read_back.pb.type
    provenance = json_format.ParseDict(predicate, Provenance())
    assert provenance.run_details.builder.id
    for row in provenance.build_definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(row).validate()


def test_other_peoples_validators_take_the_documents(inputs: Inputs, tmp_path: Path) -> None:
    """cyclonedx-python-lib's strict one (the JSON schema of 1.6), and the in-toto project's own bindings."""
    valid(sbom(inputs), statement(inputs, thor_wheel(tmp_path)))
    broken = json.loads(sbom(inputs))
    broken["components"][0]["type"] = "thing"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_a_short_commit_is_completed_where_the_repository_can_be_asked(
    places: Places, tmp_path: Path
) -> None:
    repository = tmp_path / "vllm"
    git: list[str | Path] = ["git", "-C", repository, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    process.capture(["git", "init", "-q", "-b", "main", repository])
    process.capture([*git, "commit", "-q", "--allow-empty", "-m", "release"])
    process.capture([*git, "tag", "v0.12.0"])
    head = process.capture([*git, "rev-parse", "HEAD"])
    lock = load_lock("v0.12.0")
    asked = {lock.vllm.repository: repository}
    for short, whole in ((head[:9], head), ("0" * 9, ""), ("a" * 40, "a" * 40)):
        pinned = msgspec.structs.replace(lock, vllm=msgspec.structs.replace(lock.vllm, commit=short))
        assert _full_commit(pinned, Library(places.git, asked, offline=True)) == whole
    assert _full_commit(lock, Library(places.git, {}, offline=True)) in ("", lock.vllm.commit)
