"""What a specialised wheel says of the wheel it was made from: which kernel families that one had."""

from __future__ import annotations

import json
from collections.abc import Mapping

from build_recipes.audit.families import family_table
from build_recipes.formats.wheel import Distribution
from build_recipes.kit.data import parse_json

SBOM = "{dist_info}/sboms/vllm-armory-specialise.cdx.json"
"""The member that says it; a path for `rewrite.Edits.put`."""
FAMILIES = "vllm-armory:families of the source"
"""Property of the product in it: family to the number of its kernels, as JSON."""


def told(families: Mapping[str, int]) -> str:
    """The property's value."""
    return json.dumps(dict(families))


def families(opened: Distribution) -> dict[str, int]:
    """Kernels of each family in the source wheel; nothing where a wheel is not specialised, or does not say it.

    Only names of families.toml are taken, in its order: the text comes from outside.
    """
    name = SBOM.format(dist_info=opened.dist_info)
    if name not in opened.members:
        return {}
    try:
        rows = parse_json(opened.text(name))["metadata"]["component"]["properties"]
        value = next(row["value"] for row in rows if row["name"] == FAMILIES)
        found = parse_json(value)
        return {family: int(found[family]) for family in family_table().family if family in found}
    except (KeyError, TypeError, ValueError, StopIteration):
        return {}
