"""Requirements to pinned wheels: uv decides the versions, its pylock.toml (PEP 751) gives files and hashes.

One version of each project for all Pythons and both machines (``--universal --fork-strategy fewest``), so
that a wheel chosen by its tags alone is always right for the Python at hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from build_recipes.kit import process
from build_recipes.kit.data import parse_toml
from build_recipes.kit.errors import BadData, NetworkError, ToolFailed
from build_recipes.sources.lockfile import FilePin, tags_for
from build_recipes.sources.registry import PYPI, content_length

MACHINES = ("aarch64", "x86_64")
NEWEST_GLIBC = (2, 39)
"""The newest glibc of any device; which wheel fits a machine is chosen later, from those."""
Python = tuple[int, int]


def resolve(
    requirements: Sequence[str],
    group: str,
    pythons: Sequence[Python],
    *,
    index: str = PYPI,
    constraints: Sequence[str] = (),
) -> list[FilePin]:
    """Every Linux wheel that ``requirements`` and what they require may need.

    :param group: of the pins.
    :param pythons: minor versions, oldest first.
    :param index: asked first; PyPI second where it is another.
    :raises NetworkError: uv could not reach the index, or found no solution; its words are given.
    """
    packages = compile_requirements(requirements, constraints, pythons[0], index)
    tags = frozenset(
        tag for machine in MACHINES for python in pythons for tag in tags_for(machine, python, NEWEST_GLIBC)
    )
    wanted: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for package in packages:
        if not applies(package.get("marker", ""), pythons):
            continue
        wheels = [wheel for wheel in package.get("wheels", []) if fits(file_name(wheel), tags)]
        if not wheels:
            raise BadData(
                f"{package['name']} {package['version']} has no Linux wheel for {' or '.join(MACHINES)}",
                "pin another version in build_recipes/facts/vllm.toml",
            )
        wanted += [(package, wheel) for wheel in wheels]
    names = [package["name"] for package in packages]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadData(
            f"uv needs more than one version of {', '.join(sorted(twice))}", "narrow the Python range"
        )
    with ThreadPoolExecutor(8) as pool:
        pins = list(pool.map(lambda pair: _pin(pair[0], pair[1], group), wanted))
    return sorted(pins, key=lambda pin: (pin.project, pin.filename))


def compile_requirements(
    requirements: Sequence[str],
    constraints: Sequence[str],
    python: Python,
    index: str = PYPI,
    *,
    overrides: Sequence[str] = (),
    platform: str = "",
    more: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The packages table of the pylock.toml that uv makes. Errors as `resolve`.

    :param overrides: requirements that hold whatever the packages ask for.
    :param platform: resolve for one system alone, as uv names it (``aarch64-manylinux_2_39``); for all where empty.
    :param more: further indexes, asked before PyPI.
    """
    with tempfile.TemporaryDirectory(prefix="armory-resolve.") as folder:
        here = Path(folder)
        (here / "requirements.in").write_text("\n".join(requirements) + "\n")
        (here / "constraints.in").write_text("\n".join(constraints) + "\n")
        (here / "overrides.in").write_text("\n".join(overrides) + "\n")
        system = ["--python-platform", platform] if platform else ["--universal", "--fork-strategy", "fewest"]
        command = [
            uv(), "pip", "compile", "requirements.in", "--constraints", "constraints.in",
            "--overrides", "overrides.in", *system, "--python-version", f"{python[0]}.{python[1]}", "--no-header",
            "--no-python-downloads", "--no-config", "--quiet", "--default-index", PYPI,
            "--format", "pylock.toml", "--output-file", "pylock.toml",
        ]  # fmt: skip
        for other in (index, *more):
            command += ["--index", other] if other != PYPI else []
        try:
            process.capture(command, cwd=here)
        except ToolFailed as error:
            words = " ".join(error.words.split())
            if "dns error" in words:
                words = f"a host name of {index} cannot be resolved"
            raise NetworkError(
                f"uv could not resolve {', '.join(requirements[:3])}: {words[-600:]}",
                "check the network and the index",
            ) from error
        packages: list[dict[str, Any]] = parse_toml((here / "pylock.toml").read_text())["packages"]
    return packages


def pins_of(package: dict[str, Any], group: str, tags: frozenset[Tag]) -> list[FilePin]:
    """The wheels of a package that fit."""
    return [
        _pin(package, wheel, group) for wheel in package.get("wheels", []) if fits(file_name(wheel), tags)
    ]


def uv() -> str:
    """Path of the uv program that is one of our own dependencies."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def file_name(wheel: dict[str, Any]) -> str:
    """File name of a pylock entry: its own, or the last part of its address."""
    return str(wheel.get("name") or unquote(urlsplit(wheel["url"]).path.rpartition("/")[2]))


def fits(filename: str, tags: frozenset[Tag]) -> bool:
    """Whether a wheel's tags are among ``tags``."""
    try:
        return bool(parse_wheel_filename(filename)[3] & tags)
    except InvalidWheelFilename:
        return False


def applies(marker: str, pythons: Sequence[Python]) -> bool:
    """Whether a marker holds on any of our Linux machines and Pythons."""
    if not marker:
        return True
    parsed = Marker(marker)
    return any(
        parsed.evaluate(
            {
                "sys_platform": "linux",
                "platform_system": "Linux",
                "os_name": "posix",
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
                "implementation_name": "cpython",
                "python_version": f"{major}.{minor}",
                "python_full_version": f"{major}.{minor}.99",
                "extra": "",
            }
        )
        for machine in MACHINES
        for major, minor in pythons
    )


def _pin(package: dict[str, Any], wheel: dict[str, Any], group: str) -> FilePin:
    size = wheel.get("size")
    return FilePin(
        project=canonicalize_name(package["name"]),
        version=package["version"],
        filename=file_name(wheel),
        url=wheel["url"],
        sha256=wheel["hashes"]["sha256"],
        size=size if isinstance(size, int) else content_length(wheel["url"]),
        group=group,
    )
