"""Shared fixtures: every test has its own cache, build and wheels folders, and no configuration of the user."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sdists import PACKED
from untar import untar

from build_recipes.kit.console import PROGRAM
from build_recipes.kit.paths import Places

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a background shell has Ctrl-C ignored, and what we start would inherit that; the tests press it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# however the tests were called (CI gives a path), what they call is called by its own name
os.environ.pop(PROGRAM, None)


@pytest.fixture(scope="session", autouse=True)
def no_configuration_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's own mirrors do not decide what a test sees; what the user's compiler cache holds may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
        yield


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Empty places, also seen by child processes through the environment."""
    for name in ("cache", "build", "wheels"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"VLLM_ARMORY_{name.upper()}", str(tmp_path / name))
    return Places.from_environment()


@pytest.fixture(scope="session")
def sdists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per release (`VERSIONS`) with the files of its sdist that say what it builds."""
    into = tmp_path_factory.mktemp("sdists")
    untar(PACKED, into)
    return into
