"""The one gate for processes: what a failed tool looks like, and what a child sees of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_recipes.kit import process
from build_recipes.kit.errors import ToolFailed


def test_a_failed_tool_is_an_error_of_ours_with_its_command_code_and_last_words() -> None:
    with pytest.raises(ToolFailed) as caught:
        process.capture(["git", "no-such-word"])
    error = caught.value
    assert error.command == ("git", "no-such-word")
    assert error.code == 1
    assert "no-such-word" in error.words
    assert error.words.splitlines()[0] in error.args[0]
    assert error.advice == "run it by hand: git no-such-word"


def test_a_tool_that_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="does not start") as caught:
        process.capture([tmp_path / "nvcc"])
    assert caught.value.code is None
    with pytest.raises(ToolFailed):
        process.succeeds([tmp_path / "nvcc"])
    assert process.succeeds(["true"])
    assert not process.succeeds(["false"])


def test_a_child_gets_no_other_pythons_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    monkeypatch.setenv("CFLAGS", "-O0")
    plain = process.child_environment(X="1")
    assert plain.keys().isdisjoint(process.LEAKS)
    assert (plain["CUDA_HOME"], plain["CFLAGS"], plain["X"]) == ("/usr/local/cuda", "-O0", "1")
    assert process.child_environment("CFLAGS", prefixes=("CUDA",)).keys().isdisjoint({"CFLAGS", "CUDA_HOME"})
