"""What is to be audited: a wheel's path, ``pypi:0.33.0``, or an installed copy."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from packaging.tags import Tag
from packaging.version import Version

from build_recipes.audit.installed import Installed
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.errors import NotAWheel, UsageError
from build_recipes.kit.paths import Places, user_path

_PYTHONS = [(3, minor) for minor in range(10, 15)]
_GLIBC = (2, 39)
"""Newest glibc of the devices."""


def wheel_tags(machine: str) -> frozenset[Tag]:
    """Tags of every wheel that one of the devices with this CPU could install."""
    from build_recipes.sources.lockfile import tags_for

    return frozenset(tag for python in _PYTHONS for tag in tags_for(machine, python, _GLIBC))


def official(version: str, places: Places, machine: str = "aarch64") -> Path:
    """The official vLLM wheel of a version, in the cache; fetched once, by hash.

    :raises NotAWheel: PyPI has none for that machine.
    :raises NetworkError: PyPI does not answer.
    """
    from build_recipes.sources.download import fetch_files
    from build_recipes.sources.registry import file_pins

    try:
        wanted = str(Version(version))
    except ValueError as error:
        raise UsageError(f"'{version}' is not a version", "write pypi:0.33.0") from error
    pins = file_pins("vllm", wanted, "source", wheel_tags(machine))
    if not pins:
        raise NotAWheel(f"PyPI has no wheel of vLLM {wanted} for {machine}", "look at pypi.org/project/vllm")
    return fetch_files(pins[:1], places.downloads)[pins[0].filename]


def resolve(what: str, places: Places, machine: str = "aarch64") -> Path:
    """The wheel file or installation folder that a user named.

    :param what: a path, ``pypi:VERSION``, or ``installed`` for this Python's vLLM.
    :raises NotAWheel: there is no such thing.
    """
    if what.startswith("pypi:"):
        return official(what.removeprefix("pypi:"), places, machine)
    if what == "installed":
        found = importlib.util.find_spec("vllm")
        if found is None or not found.origin:
            raise NotAWheel("this Python has no vllm", "give a .whl file or a site-packages folder")
        return Path(found.origin).parent.parent
    path = user_path(what)
    if not path.exists():
        raise NotAWheel(f"{path} does not exist", "give a .whl file, pypi:VERSION or a site-packages folder")
    return path


def opened(path: Path) -> Wheel | Installed:
    """Open a wheel, or the copy of vLLM that is installed in a folder."""
    return Installed(path) if path.is_dir() else Wheel(path)
