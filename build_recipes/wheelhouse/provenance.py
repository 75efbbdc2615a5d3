"""Where a wheel came from: a CycloneDX 1.6 document inside of it, a SLSA v1 statement beside it.

Both name what went into the wheel and nothing else: the trees, files and patches that were used. The document goes
into ``dist-info/sboms`` (PEP 770); it is the same bytes for the same build (identifiers come from the plan's
fingerprint, times from SOURCE_DATE_EPOCH) and also keeps the request and the plan, so that `rebuild` can recreate the
plan from the wheel alone. The statement tells when and by whom: the workflow that ran, or nobody that could be asked.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from build_recipes.kit import ourselves
from build_recipes.kit.data import parse_json, write_atomic
from build_recipes.kit.hashing import file_sha256
from build_recipes.sources.lockfile import FilePin, Lock

MEMBER = "{dist_info}/sboms/vllm-armory.cdx.json"
"""Where the document goes; a path for `rewrite.Edits.put`."""
STATEMENT = ".intoto.json"
"""What the statement's file name adds to the wheel's, less ``.whl``."""
_NAMES = uuid.UUID("6f0e3d5c-9a1f-5d7c-8a34-2f1f0f6b6b11")
_PREFIX = "vllm-armory:"
_BUILD_TYPE = "urn:vllm-armory:build:v1"


@dataclass(frozen=True)
class Inputs:
    """What a build knows of itself, as plain data."""

    lock: Lock
    plan: Mapping[str, Any]
    """`Plan.as_dict`."""
    request: Mapping[str, Any]
    """`plan.request_as_dict`."""
    patches: Sequence[Mapping[str, Any]]
    """Applied patches: ``id``, ``variant`` (file name), ``sha256``, ``files``."""
    toolchain: Mapping[str, str]
    """Name to version: nvcc, gcc, cmake, ninja, python..."""
    torch: str
    """Version of the torch it was built with."""
    commit: str = ""
    """vLLM's commit, 40 digits; empty where only a part of it is known."""
    trees: Sequence[str] = ()
    """External trees that went into it, as far as they came out of a repository."""
    tree_wheels: Mapping[str, FilePin] = field(default_factory=dict)
    """External trees that came out of the official wheel instead, with that wheel."""
    files: Sequence[FilePin] = ()
    """Downloads that went into it: torch, the CUDA toolkit, build requirements."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Reference of a part (``tree:NAME``, ``file:NAME``, ``vllm``) to its licence."""
    epoch: int = 0
    """SOURCE_DATE_EPOCH."""
    word: str = ""
    """``whole`` or ``partial``; empty where that is not known yet."""
    version: str = ""
    """Version of the wheel, where it is not the plan's."""
    taken: Mapping[str, str] = field(default_factory=dict)
    """Members taken from the official wheel, with their SHA-256."""
    taken_from: FilePin | None = None
    """That wheel."""
    started: float = 0
    """Seconds since 1970: when the build of this wheel began, maybe nights ago."""

    @property
    def fingerprint(self) -> str:
        """The plan's fingerprint."""
        return str(self.plan["fingerprint"])

    def downloads(self) -> tuple[FilePin, ...]:
        """Files from package indexes that the build read, vLLM's sdist first."""
        sdist = self.lock.vllm.sdist
        first = [sdist] if sdist and self.request.get("source", "sdist") == "sdist" else []
        found = [*first, *self.tree_wheels.values(), *self.files]
        if self.taken and self.taken_from:
            found.append(self.taken_from)
        return tuple({pin.filename: pin for pin in found}.values())


def sbom(inputs: Inputs) -> bytes:
    """The CycloneDX 1.6 document (JSON)."""
    version = inputs.version or str(inputs.plan["wheel_version"])
    product = Component(
        name="vllm",
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref="vllm",
        purl=PackageURL("pypi", None, "vllm", version),
        licenses=_licence(inputs.licences.get("vllm", "")),
        properties=[
            Property(name=_PREFIX + "plan", value=_plain(inputs.plan)),
            Property(name=_PREFIX + "request", value=_plain(inputs.request)),
            Property(name=_PREFIX + "lock", value=inputs.lock.digest),
            *([Property(name=_PREFIX + "completeness", value=inputs.word)] if inputs.word else []),
        ],
    )
    return document(product, list(_parts(inputs)), inputs.fingerprint, inputs.epoch)


def document(product: Component, parts: Sequence[Component], name: str, epoch: int) -> bytes:
    """A CycloneDX 1.6 document (JSON) on what went into a wheel.

    :param name: what its serial number is made from; the same for the same wheel.
    :param epoch: seconds since 1970.
    """
    bom = Bom(
        serial_number=uuid.uuid5(_NAMES, name),
        version=1,
        metadata=BomMetaData(
            component=product,
            timestamp=datetime.fromtimestamp(epoch, timezone.utc),
            tools=ToolRepository(
                components=[
                    Component(
                        name="vllm-armory",
                        version=ourselves.version(),
                        type=ComponentType.APPLICATION,
                        bom_ref="vllm-armory",
                    )
                ]
            ),
        ),
        components=parts,
    )
    bom.register_dependency(product, parts)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    return (json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n").encode()


def file_part(pin: FilePin, licence: str = "") -> Component:
    """A file of a package index, as a part of a document."""
    return Component(
        name=pin.project,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"file:{pin.filename}",
        purl=PackageURL("pypi", None, pin.project, pin.version, {"file_name": pin.filename}),
        licenses=_licence(licence),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=pin.sha256)],
        external_references=[_reference(ExternalReferenceType.DISTRIBUTION, pin.url)],
    )


def patch_part(patch: Mapping[str, Any]) -> Component:
    """An applied patch, as a part of a document."""
    return Component(
        name=str(patch["variant"]),
        type=ComponentType.FILE,
        bom_ref=f"patch:{patch['id']}:{patch['variant']}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=str(patch["sha256"]))],
        properties=[
            Property(name=_PREFIX + "patch", value=str(patch["id"])),
            *(Property(name=_PREFIX + "changes", value=str(name)) for name in patch.get("files", ())),
        ],
    )


def _parts(inputs: Inputs) -> Iterator[Component]:
    vllm, licences = inputs.lock.vllm, inputs.licences
    for name in inputs.trees:
        tree = inputs.lock.tree(name)
        yield Component(
            name=tree.name,
            version=tree.commit,
            type=ComponentType.LIBRARY,
            bom_ref=f"tree:{tree.name}",
            licenses=_licence(licences.get(f"tree:{tree.name}", "")),
            external_references=[_reference(ExternalReferenceType.VCS, tree.repository)],
            properties=[
                Property(name=_PREFIX + "revision", value=tree.revision),
                *(
                    Property(name=_PREFIX + f"submodule:{one.path}", value=f"{one.repository}@{one.commit}")
                    for one in tree.submodules
                    if not one.skip
                ),
            ],
        )
    for name, pin in sorted(inputs.tree_wheels.items()):
        tree = inputs.lock.tree(name)
        yield Component(
            name=name,
            version=tree.revision,
            type=ComponentType.LIBRARY,
            bom_ref=f"tree:{name}",
            licenses=_licence(licences.get(f"tree:{name}", "")),
            external_references=[_reference(ExternalReferenceType.DISTRIBUTION, pin.url)],
            properties=[Property(name=_PREFIX + "from", value=pin.filename)],
        )
    yield Component(
        name="vllm-source",
        version=inputs.commit or inputs.lock.version,
        type=ComponentType.LIBRARY,
        bom_ref="tree:vllm",
        licenses=_licence(licences.get("vllm", "")),
        external_references=[_reference(ExternalReferenceType.VCS, vllm.repository)],
        properties=[] if inputs.commit else [Property(name=_PREFIX + "commit-begins", value=vllm.commit)],
    )
    for pin in inputs.downloads():
        yield file_part(pin, licences.get(f"file:{pin.filename}", ""))
    if not any(pin.project == "torch" for pin in inputs.files):
        yield Component(
            name="torch",
            version=inputs.torch,
            type=ComponentType.LIBRARY,
            bom_ref="torch",
            properties=[Property(name=_PREFIX + "from", value="the machine that built it")],
        )
    for member, digest in sorted(inputs.taken.items()):
        yield Component(
            name=member,
            version=inputs.lock.version,
            type=ComponentType.FILE,
            bom_ref=f"member:{member}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            external_references=[_reference(ExternalReferenceType.DISTRIBUTION, inputs.taken_from.url)]
            if inputs.taken_from
            else [],
        )
    yield from map(patch_part, inputs.patches)
    for name, version in sorted(inputs.toolchain.items()):
        yield Component(
            name=name, version=str(version), type=ComponentType.APPLICATION, bom_ref=f"tool:{name}"
        )


def _licence(text: str) -> list[License]:
    """A licence as the document has it: by its SPDX identifier, else by its name."""
    return [LicenseFactory().make_from_string(text)] if text else []


def _reference(kind: ExternalReferenceType, url: str) -> ExternalReference:
    return ExternalReference(type=kind, url=XsUri(url))


def _plain(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def statement(inputs: Inputs, wheel: Path) -> bytes:
    """The in-toto v1 statement with a SLSA v1 provenance predicate, for a finished wheel."""
    internal = {
        "plan": json.loads(_plain(inputs.plan)),
        "lock": inputs.lock.digest,
        "toolchain": dict(sorted(inputs.toolchain.items())),
    }
    definition = {
        "buildType": _BUILD_TYPE,
        "externalParameters": json.loads(_plain(inputs.request)),
        "internalParameters": internal,
        "resolvedDependencies": list(_dependencies(inputs)),
    }
    return slsa(wheel, definition, inputs.fingerprint, started=inputs.started)


def slsa(wheel: Path, definition: Mapping[str, Any], name: str, *, started: float = 0) -> bytes:
    """An in-toto v1 statement with a SLSA v1 provenance predicate.

    The builder is the workflow that this process is a step of, and its run the invocation.

    :param definition: ``buildDefinition`` of the predicate.
    :param name: the invocation where it is no workflow's.
    :param started: seconds since 1970; this process's own start where it is 0.
    """
    run = ourselves.invocation()
    said = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": wheel.name, "digest": {"sha256": file_sha256(wheel)}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": definition,
            "runDetails": {
                "builder": {"id": run.builder, "version": {"vllm-armory": ourselves.version()}},
                "metadata": {
                    "invocationId": run.url or f"urn:vllm-armory:build:{name}",
                    "startedOn": _when(started or ourselves.STARTED),
                    "finishedOn": _when(time.time()),
                },
            },
        },
    }
    if run.commit:
        source = {"uri": f"git+{run.repository}", "digest": {"gitCommit": run.commit}, "name": "vllm-armory"}
        definition = {**definition, "resolvedDependencies": [*definition["resolvedDependencies"], source]}
        said["predicate"] = {**said["predicate"], "buildDefinition": definition}  # type: ignore[dict-item]
    return (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dependencies(inputs: Inputs) -> Iterator[dict[str, Any]]:
    vllm = inputs.lock.vllm
    if inputs.commit:
        yield {"name": "vllm", "uri": f"git+{vllm.repository}", "digest": {"gitCommit": inputs.commit}}
    else:  # a digest is whole or none
        yield {"name": "vllm", "uri": f"git+{vllm.repository}", "annotations": {"commitBegins": vllm.commit}}
    for name in inputs.trees:
        tree = inputs.lock.tree(name)
        yield {"name": tree.name, "uri": f"git+{tree.repository}", "digest": {"gitCommit": tree.commit}}
        for one in tree.submodules:
            if not one.skip:
                where = f"{tree.name}/{one.path}"
                yield {"name": where, "uri": f"git+{one.repository}", "digest": {"gitCommit": one.commit}}
    for pin in inputs.downloads():
        yield {"name": pin.filename, "uri": pin.url, "digest": {"sha256": pin.sha256}}
    for patch in inputs.patches:
        uri = f"urn:vllm-armory:patch:{patch['id']}:{patch['variant']}"
        yield {"name": str(patch["variant"]), "uri": uri, "digest": {"sha256": str(patch["sha256"])}}


def write_statement(inputs: Inputs, wheel: Path) -> Path:
    """Write the statement beside a finished wheel."""
    path = wheel.with_name(wheel.name.removesuffix(".whl") + STATEMENT)
    write_atomic(path, statement(inputs, wheel))
    return path


@dataclass(frozen=True)
class Recorded:
    """What a wheel says of its own build."""

    plan: dict[str, Any]
    request: dict[str, Any]
    lock: str
    """Digest of the lock it was built from."""
    sha256: str
    """Of the document."""


def read(document: bytes) -> Recorded:
    """The request and plan in a document of ours.

    :raises ValueError: it is no such document.
    """
    try:
        said = parse_json(document)["metadata"]["component"]["properties"]
        values = {row["name"].removeprefix(_PREFIX): row["value"] for row in said}
        plan, request = parse_json(values["plan"]), parse_json(values["request"])
        return Recorded(plan, request, values["lock"], hashlib.sha256(document).hexdigest())
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no document of a build: {error!r}") from error
