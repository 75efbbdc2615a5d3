"""What a specialised wheel says of itself: SBOM, notice of changed files, provenance."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.component import Component, ComponentType
from packageurl import PackageURL

from build_recipes.audit import origin
from build_recipes.kit.data import write_atomic
from build_recipes.specialise.images import Made
from build_recipes.specialise.toolkit import Assembler
from build_recipes.wheelhouse import provenance

NOTICE = "{dist_info}/licenses/NOTICE.vllm-armory"
_BUILD_TYPE = "urn:vllm-armory:specialise:v1"
_PREFIX = "vllm-armory:"
_YEAR_1980 = 315532800


@dataclass(frozen=True)
class Story:
    """What is told of one specialised wheel."""

    source: str
    """File name of the wheel it was made from."""
    sha256: str
    """Of that wheel."""
    version: str
    device: str
    native: bool
    keep_ptx: bool
    toolkits: Sequence[Assembler]
    """NVIDIA's wheels that were used, with the SHA-256 of the ptxas in them."""
    images: Mapping[str, Made]
    """Module and unit to the image that was made for it."""
    patches: Sequence[Mapping[str, Any]]
    """As `provenance.patch_part` takes them."""
    changed: Sequence[str]
    """Members that differ from the source wheel's, by path."""
    families: Mapping[str, int] = field(default_factory=dict)
    """Kernel families of the source wheel, with their kernels; nothing where no family can have gone."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked for."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "device": self.device,
            "native": self.native,
            "keep_ptx": self.keep_ptx,
        }

    @property
    def fingerprint(self) -> str:
        """64 hex digits: the same for the same source, device, images and patches."""
        words = [
            self.parameters,
            {name: made.cubin for name, made in sorted(self.images.items())},
            [patch["sha256"] for patch in self.patches],
        ]
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def epoch() -> int:
    """SOURCE_DATE_EPOCH, else the first second of 1980, as in the archive."""
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(told) if told.isdigit() else _YEAR_1980


def sbom(story: Story) -> bytes:
    """The CycloneDX document: the source wheel, ptxas, every image that was made, patches."""
    product = Component(
        name="vllm",
        version=story.version,
        type=ComponentType.LIBRARY,
        bom_ref="vllm",
        purl=PackageURL("pypi", None, "vllm", story.version),
        properties=[
            Property(name=_PREFIX + "specialise", value=json.dumps(story.parameters, sort_keys=True)),
            *([Property(name=origin.FAMILIES, value=origin.told(story.families))] if story.families else []),
        ],
    )
    source = Component(
        name=story.source,
        type=ComponentType.FILE,
        bom_ref=f"source:{story.source}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=story.sha256)],
    )
    images = [
        Component(
            name=f"{name} {made.arch}",
            type=ComponentType.FILE,
            bom_ref=f"image:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=made.cubin)],
            properties=[
                Property(name=_PREFIX + "from", value=f"sha256:{made.source}"),
                Property(name=_PREFIX + "by", value=f"{made.kind}, CUDA {made.ptxas}"),
            ],
        )
        for name, made in sorted(story.images.items())
    ]
    tools = [
        Component(
            name="ptxas",
            version=one.version,
            type=ComponentType.APPLICATION,
            bom_ref=f"ptxas:{one.version}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one.sha256)],
        )
        for one in story.toolkits
    ]
    pins = [provenance.file_part(one.wheel) for one in story.toolkits if one.wheel]
    patches = [provenance.patch_part(patch) for patch in story.patches]
    return provenance.document(
        product, [source, *pins, *tools, *images, *patches], story.fingerprint, epoch()
    )


def notice(story: Story) -> bytes:
    """The notice that the Apache License 2.0, section 4(b), asks for in works whose files were changed."""
    lines = [
        "This wheel was made by vllm-armory from",
        f"  {story.source}",
        f"  sha256 {story.sha256}",
        f"for {story.device}. It is not the wheel that the vLLM project released.",
        "",
        "Modules (.so) were changed in their device code alone: images for other GPUs were taken out"
        + (", PTX was assembled." if story.native else "."),
        "Files that were changed:",
        *(f"  {name}" for name in story.changed),
        "",
    ]
    return "\n".join(lines).encode()


def write_statement(story: Story, wheel: Path) -> Path:
    """Write the SLSA statement beside a finished wheel."""
    dependencies: list[dict[str, Any]] = [{"name": story.source, "digest": {"sha256": story.sha256}}]
    for pin in filter(None, (one.wheel for one in story.toolkits)):
        dependencies.append({"name": pin.filename, "uri": pin.url, "digest": {"sha256": pin.sha256}})
    for patch in story.patches:
        dependencies.append({"name": patch["variant"], "digest": {"sha256": patch["sha256"]}})
    definition = {
        "buildType": _BUILD_TYPE,
        "externalParameters": story.parameters,
        "internalParameters": {"ptxas": {one.version: one.sha256 for one in story.toolkits}},
        "resolvedDependencies": dependencies,
    }
    path = wheel.with_name(wheel.name.removesuffix(".whl") + provenance.STATEMENT)
    write_atomic(path, provenance.slsa(wheel, definition, story.fingerprint))
    return path
