"""What a tree of vLLM asks for, over the real files of every release, and how vllm.toml follows it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from untar import untar

from build_recipes.facts import versions
from build_recipes.kit.data import parse_toml
from build_recipes.kit.errors import BadData
from build_recipes.kit.paths import PACKAGE
from build_recipes.sources.derive import derive, differs, new_range, new_release

PACKED = Path(__file__).parent / "data/cmake/asks-0.10.2-0.33.0.tar.xz"
"""CMakeLists.txt, build requirements, envs.py and rust-toolchain.toml of the source distributions."""
FACTS = PACKAGE / "facts/vllm.toml"


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("asks")
    untar(PACKED, into)
    return into


def test_every_release_says_what_the_table_has(trees: Path) -> None:
    """Found when it was first run: 0.17's torch, 0.21's C++ and 0.27's torch stood wrong in the table."""
    seen = sorted(path.name for path in trees.iterdir())
    assert set(seen) >= set(versions.facts().releases) - {"0.15.0"}, (
        "0.15.0 has no source distribution at hand"
    )
    for version in seen:
        assert differs(derive(trees / version), versions.for_version(version)) == {}, version


def test_a_newer_tree_that_asks_for_more_gets_a_range_of_its_own(trees: Path, tmp_path: Path) -> None:
    for name in ("CMakeLists.txt", "requirements/build/cuda.txt", "vllm/envs.py", "rust-toolchain.toml"):
        text = (trees / "0.33.0" / name).read_text()
        for old, new in (("torch==2.14.0", "torch==2.15.0"), ('"3.11" "3.12"', '"3.12"'), ('or "13.0"', 'or "13.2"'),
                         ("CMAKE_CXX_STANDARD 20", "CMAKE_CXX_STANDARD 23"), ('"1.95"', '"1.99"')):  # fmt: skip
            text = text.replace(old, new)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found, known = derive(tmp_path), versions.for_version("0.33.0")
    moved = differs(found, known)
    assert set(moved) == {"torch", "nvcc_main", "python", "cxx", "rust"}
    assert moved["torch"] == (known.torch, "2.15.0")
    text = new_release(new_range(FACTS.read_text(), "0.34.0", found, known), "0.34.0")
    made = msgspec.convert(parse_toml(text), versions.VllmFacts)
    assert made.releases == [*versions.facts().releases, "0.34.0"]
    assert made.ranges[:-2] == versions.facts().ranges[:-1], "the ranges before stay as they are"
    assert made.ranges[-2] == msgspec.structs.replace(known, before="0.34.0")
    assert differs(found, made.ranges[-1]) == {}
    assert made.ranges[-1].torch_index == known.torch_index, "what a tree does not say is taken over"
    assert new_release(text, "0.34.0") == text
    with pytest.raises(BadData, match="not an open one"):
        new_range(text.rstrip() + '\nbefore = "1"\n', "0.35.0", found, known)


def test_a_folder_that_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"has no CMakeLists\.txt"):
        derive(tmp_path)
    (tmp_path / "CMakeLists.txt").write_text("project(vllm)\n")
    with pytest.raises(BadData, match="no build requirements"):
        derive(tmp_path)
