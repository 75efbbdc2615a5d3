"""A bounded part of the fuzzing: each reader for a moment, and every input that once crashed one (corpus/).

fuzz.py goes on for as long as one likes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import targets
from target import taken

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
SECONDS = 0.5
"""For each target; the same inputs each time, as many as fit."""


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_reader_ends_in_a_result_or_in_words(name: str) -> None:
    assert all(targets.seeds_taken(name))
    count = targets.run(name, 0, 2000, within=SECONDS)
    assert count.inputs > 5
    assert not count.crashes


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_once_crashed_a_reader(path: Path, tmp_path: Path) -> None:
    (target,) = (
        value for key, value in targets.TARGETS.items() if path.name.startswith(f"{key.replace(' ', '-')}-")
    )
    taken(target, path.read_bytes(), tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"[" * 100_000, b"{" * 100_000, b'"' * 999, b"\xff" * 4096, b"\n" * 9999]
)
@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_is_nothing_at_all(name: str, data: bytes, tmp_path: Path) -> None:
    taken(targets.TARGETS[name], data, tmp_path)
