"""The wheels that this program itself needs, as uv.lock pins them, for a machine without a network.

``./inv`` installs them there from the folder that ``VLLM_ARMORY_WHEELHOUSE`` names.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from build_recipes.kit import paths, process
from build_recipes.kit.data import parse_toml
from build_recipes.kit.errors import BadData, ToolFailed
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import FilePin, best_wheels, tags_for
from build_recipes.sources.registry import content_length
from build_recipes.sources.resolve import uv

REPLACEABLE = ("cmake", "ninja")
"""Programs that a machine may have of its own; ``./inv`` takes them from PATH where a wheelhouse lacks them."""


def tool_wheels(
    machine: str, python: tuple[int, int], glibc: tuple[int, int], leave_out: Collection[str] = ()
) -> list[FilePin]:
    """The best wheel for a machine of each project in uv.lock that a run without the tests needs.

    :raises BadData: uv.lock is not readable, or a project has no wheel for the machine.
    """
    versions = {name: version for name, version in exported(python, machine) if name not in leave_out}
    lock = parse_toml((paths.REQUIREMENTS / "uv.lock").read_text(encoding="utf-8"))
    pins = [
        _pin(package, wheel)
        for package in lock["package"]
        if versions.get(package["name"]) == package.get("version")
        for wheel in package.get("wheels", [])
    ]
    chosen = best_wheels(pins, tags_for(machine, python, glibc))
    if lacking := sorted(set(versions) - {pin.project for pin in chosen}):
        raise BadData(f"uv.lock has no wheel of {', '.join(lacking)} for {machine}", "run uv lock again")
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda pin: pin.size or content_length(pin.url), chosen))
    return [
        FilePin(**{**{key: getattr(pin, key) for key in pin.__struct_fields__}, "size": size})
        for pin, size in zip(chosen, sizes, strict=True)
    ]


def exported(python: tuple[int, int], machine: str) -> list[tuple[str, str]]:
    """Names and versions that ``uv export`` gives for a Linux machine.

    :raises BadData: uv refuses its lock; its words are given.
    """
    words = ["export", "--frozen", "--offline", "--quiet", "--no-dev", "--no-emit-project", "--no-hashes"]
    try:
        text = process.capture(
            [uv(), *words, "--no-annotate", "--no-header", "--project", paths.REQUIREMENTS]
        )
    except ToolFailed as error:
        raise BadData(f"uv cannot read uv.lock: {error.words}", "run uv lock again") from None
    here = {
        "python_version": "{}.{}".format(*python),
        "python_full_version": "{}.{}.99".format(*python),
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    found: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(here):
            version = re.sub(r"^==", "", str(requirement.specifier))
            found.append((canonicalize_name(requirement.name), version))
    return found


def uv_wheel(machine: str) -> FilePin:
    """The uv wheel for a machine, as uv.lock pins it. Raises `BadData` where it has none."""
    lock = parse_toml((paths.REQUIREMENTS / "uv.lock").read_text(encoding="utf-8"))
    package = next(package for package in lock["package"] if package["name"] == "uv")
    for wheel in package["wheels"]:
        if re.search(rf"manylinux[^/]*_{machine}[^/]*\.whl$", wheel["url"]):
            return _pin(package, wheel)
    raise BadData(f"uv.lock has no uv wheel for {machine}", "run uv lock again")


def fill(
    folder: Path, machine: str, python: tuple[int, int], glibc: tuple[int, int], downloads: Path,
    *, leave_out: Collection[str] = (), offline: bool = False,
) -> list[Path]:  # fmt: skip
    """Copy the tool's wheels for a machine into ``folder``. Errors as `tool_wheels` and `fetch_files`."""
    found = fetch_files(tool_wheels(machine, python, glibc, leave_out), downloads, offline=offline)
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, folder / name)) for name, path in sorted(found.items())]


def _pin(package: dict[str, Any], wheel: dict[str, Any]) -> FilePin:
    return FilePin(
        project=canonicalize_name(package["name"]),
        version=package["version"],
        filename=wheel["url"].rsplit("/", 1)[1],
        url=wheel["url"],
        sha256=wheel["hash"].removeprefix("sha256:"),
        size=wheel.get("size") or 0,
        group="tool",
    )
