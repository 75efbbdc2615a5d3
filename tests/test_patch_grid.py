"""The whole grid on vLLM's own sources: no version from 0.10.2 to 0.33.0 is without an answer."""

from __future__ import annotations

import pytest

from build_recipes.patching import grid, states

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(3600)]
EXTERNAL = {"P5", "P7", "P9"}
"""Patches that also change flash-attention's tree, which is here only where a mirror or the cache has it."""


def test_the_grid_of_all_versions() -> None:
    document = grid.run("", True)
    found = {(cell["version"], cell["patch"]): cell for cell in document["cells"]}
    versions = document["versions"]
    assert len(versions) == 34
    for version in versions:
        for patch in ("P1", "P2", "P3", "P4", "P5", "P7", "P8", "P10", "P11", "P12"):
            cell = found[version, patch]
            allowed = {"applies", "upstream"} | ({"not here"} if patch in EXTERNAL else set())
            assert cell["state"] in allowed, cell
    upstream = {
        patch: [v for v in versions if found.get((v, patch), {}).get("state") == "upstream"]
        for _, patch in found
    }
    assert upstream["P1"] == upstream["P4"] == upstream["P8"] == []
    assert upstream["P2"] == ["0.33.0"]
    assert upstream["P3"] == versions[2:]
    assert upstream["P10"] == ["0.10.2", *versions[versions.index("0.19.0") :]]
    assert upstream["P11"] == versions[: versions.index("0.28.0")]
    assert upstream["P12"] == versions[: versions.index("0.32.0")]
    assert [v for v in versions if ("P6" in {p for w, p in found if w == v})] == ["0.10.2", "0.11.0"]
    assert not [cell for cell in document["cells"] if cell["state"] in states.BAD]
