"""Where things are kept. Nothing else in the program spells a folder.

Three places are written: the cache (``$VLLM_ARMORY_CACHE``, else ``$XDG_CACHE_HOME/vllm-armory``, else
``~/.cache/vllm-armory``), the build trees (``$VLLM_ARMORY_BUILD``, else ``build/`` in the project) and
the finished wheels (``$VLLM_ARMORY_WHEELS``, else ``wheels/`` in the project).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
PACKAGE = Path(__file__).resolve().parent.parent
LOCKS = PACKAGE / "locks"
PATCHES = PROJECT / "patches"


def _place(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default


@dataclass(frozen=True)
class Places:
    """The three folders this program writes to."""

    cache: Path
    build: Path
    wheels: Path

    @classmethod
    def from_environment(cls) -> Places:
        """The places of this process, read from the environment once."""
        xdg = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(
            cache=_place("VLLM_ARMORY_CACHE", xdg / "vllm-armory"),
            build=_place("VLLM_ARMORY_BUILD", PROJECT / "build"),
            wheels=_place("VLLM_ARMORY_WHEELS", PROJECT / "wheels"),
        )

    @property
    def downloads(self) -> Path:
        """Files fetched from package indexes, one folder per SHA-256."""
        return self.cache / "downloads"

    @property
    def git(self) -> Path:
        """Bare mirrors of git repositories."""
        return self.cache / "git"

    @property
    def toolkits(self) -> Path:
        """CUDA toolkits assembled from wheels, one folder per set of hashes."""
        return self.cache / "toolkits"
