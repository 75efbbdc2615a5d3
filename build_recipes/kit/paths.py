"""Where things are kept. Nothing else in the program spells a folder.

Three places are written: the cache (``$VLLM_ARMORY_CACHE``, else ``$XDG_CACHE_HOME/vllm-armory``, else
``~/.cache/vllm-armory``), the build trees (``$VLLM_ARMORY_BUILD``) and the finished wheels
(``$VLLM_ARMORY_WHEELS``). A checkout keeps the last two in ``build/`` and ``wheels/``, and new locks beside its
own. An installed program keeps build trees and new locks under ``$XDG_STATE_HOME/vllm-armory``, else
``~/.local/state/vllm-armory``, and puts wheels into ``wheels/`` of the folder one stands in.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent
PROJECT = PACKAGE.parent
"""The folder of the package; the top of the repository in a checkout."""
CHECKOUT = (PROJECT / "inv").is_file() and (PROJECT / "pyproject.toml").is_file()
"""Whether this is a checkout and not an installed copy."""
LOCKS = PACKAGE / "locks"
"""The locks that came with the program."""
PATCHES = PROJECT / "patches" if CHECKOUT else PACKAGE / "patches"
REQUIREMENTS = PROJECT if CHECKOUT else PACKAGE / "project"
"""The folder of the program's own pyproject.toml and uv.lock (setup.py puts them into the package)."""
OURSELVES = (sys.executable, str(PACKAGE / "__main__.py"))
"""The words that run this program again, before the name of a command."""


def user_path(text: str | Path) -> Path:
    """A path as a user writes it, with ``~`` for a home folder; it need not be there.

    :raises UsageError: it cannot be one: too long, with a NUL, or ``~`` of nobody.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
            raise
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{str(text)[:100]!r} is not a path: {why}", "give the path of a file or folder"
        ) from error
    return path


def _place(variable: str, default: Callable[[], Path]) -> Path:
    value = os.environ.get(variable)
    try:
        return user_path(value).resolve() if value else default()
    except RuntimeError as error:  # nobody's home
        raise UsageError(
            "this user has no home folder (HOME is not set) to keep things in", f"export {variable}=/a/folder"
        ) from error


def _xdg(variable: str, default: str) -> Path:
    """A folder of the XDG Base Directory Specification, for this program. Raises RuntimeError: nobody's home."""
    return Path(os.environ.get(variable) or Path.home() / default) / "vllm-armory"


def state_folder() -> Path:
    """Where small facts about this machine are kept from run to run."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def lock_folders() -> list[Path]:
    """Where locks are read from, the strongest first; new ones are written into the first."""
    return [LOCKS] if CHECKOUT else [state_folder() / "locks", LOCKS]


def configuration_files() -> list[Path]:
    """Where configuration is read from, the strongest last: the user's, then ``armory.toml`` of the checkout, or
    of the folder that one stands in."""
    found = [(PROJECT if CHECKOUT else Path.cwd()) / "armory.toml"]
    with contextlib.suppress(RuntimeError):  # without a home there is no configuration in it
        found.insert(0, _xdg("XDG_CONFIG_HOME", ".config") / "config.toml")
    return found


@dataclass(frozen=True)
class Places:
    """The three folders this program writes to."""

    cache: Path
    build: Path
    wheels: Path

    @classmethod
    def from_environment(cls) -> Places:
        """The places of this process, read from the environment once."""
        return cls(
            cache=_place("VLLM_ARMORY_CACHE", lambda: _xdg("XDG_CACHE_HOME", ".cache")),
            build=_place("VLLM_ARMORY_BUILD", lambda: (PROJECT if CHECKOUT else state_folder()) / "build"),
            wheels=_place("VLLM_ARMORY_WHEELS", lambda: (PROJECT if CHECKOUT else Path.cwd()) / "wheels"),
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
