"""Options of `audit`."""

from __future__ import annotations

from dataclasses import dataclass

from build_recipes.kit.options import JSON, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was typed."""

    wheel: str = option("", "a .whl file, pypi:VERSION, a site-packages folder, or installed")
    devices: tuple[str, ...] = option(
        (), "judge it for this device (repeatable); all devices where none is named", name="device"
    )
    torch: str = option(
        "",
        "resolve symbols against a torch: a version on PyPI, a wheel, a folder of libraries, or installed",
    )
    libraries: tuple[str, ...] = option(
        (), "more libraries to resolve against: a file or a folder (repeatable)"
    )
    against: str = option("", "compare it with this wheel")
    allow: tuple[str, ...] = option((), "accept the finding with this id (repeatable)")
    machine: str = option("aarch64", "CPU of the wheel that pypi:VERSION means")
    html: str = option("", "write one HTML page to this file")
    json: bool = option(False, JSON)
