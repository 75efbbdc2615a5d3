"""What a user can give or have that is not a file, no folder and no home: told in words, at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from build_recipes.kit import paths
from build_recipes.kit.errors import UsageError
from build_recipes.kit.hashing import file_sha256

LONG = "a" * 5000


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    here = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_ARMORY")}
    done = subprocess.run(
        [sys.executable, str(paths.PACKAGE / "__main__.py"), *words],
        env=here | environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "next" in done.stderr
    return done


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("audit", "FIFO"), 61),
        (("retag", "FIFO", "--version", "1"), 61),
        (("rebuild", "FIFO", "--plan"), 61),
        (("verify-omni", "--vllm", "FIFO", "--omni", "FIFO"), 63),
        (("mirror", "--from", "FIFO"), 28),
        (("audit", LONG), 2),
        (("plan", "--tag", "v0.12.0", "--source", LONG), 2),
        (("audit", "~nobody-of-this-name/x.whl"), 2),
        (("audit", "LOOP"), 61),
    ],
)
def test_a_path_that_is_no_file(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    os.mkfifo(tmp_path / "fifo.whl")
    (tmp_path / "loop.whl").symlink_to(tmp_path / "loop.whl")
    names = {"FIFO": str(tmp_path / "fifo.whl"), "LOOP": str(tmp_path / "loop.whl")}
    assert run(*(names.get(word, word) for word in words), VLLM_ARMORY_CACHE=str(tmp_path)).returncode == code


@pytest.mark.parametrize("variable", ["VLLM_ARMORY_WHEELS", "VLLM_ARMORY_CACHE"])
def test_a_file_where_a_folder_is_to_be(tmp_path: Path, variable: str) -> None:
    (tmp_path / "file").write_text("x")
    words = ["index"] if variable == "VLLM_ARMORY_WHEELS" else ["mirror", "--from", str(tmp_path / "no")]
    assert run(*words, **{variable: str(tmp_path / "file")}).returncode in (26, 46)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    for name in ("VLLM_ARMORY_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no home folder"):
        paths.Places.from_environment()
    assert [path.name for path in paths.configuration_files()] == ["armory.toml"]
    monkeypatch.setenv("VLLM_ARMORY_CACHE", "/somewhere")
    assert paths.Places.from_environment().cache == Path("/somewhere")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        file_sha256(tmp_path / "fifo")
