"""Programs that travel: uv for another machine."""

from __future__ import annotations

from pathlib import Path

from build_recipes.formats.inflate import Archive
from build_recipes.kit.data import write_atomic
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files
from build_recipes.sources.tool_wheels import uv_wheel


def uv_program(machine: str, places: Places) -> Path:
    """The uv program for a machine, out of its wheel, which is checked against uv.lock.

    :raises NetworkError: it cannot be fetched.
    """
    pin = uv_wheel(machine)
    archive = fetch_files([pin], places.downloads)[pin.filename]
    program = places.cache / "uv" / pin.sha256[:16] / "uv"
    if not program.exists():
        with Archive(archive) as opened:
            member = next(name for name in opened.members if name.endswith("/scripts/uv"))
            write_atomic(program, opened.read(member, most=opened.bounds.member))
    return program
