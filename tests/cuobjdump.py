"""NVIDIA's cuobjdump from its wheel on PyPI: the peer that the reader of device code is checked against."""

from __future__ import annotations

import platform
import re
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from build_recipes.kit import process
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import tags_for
from build_recipes.sources.registry import file_pins

VERSION = "13.2.78"


def cuobjdump() -> Path:
    """The program, unpacked beside its wheel in the cache."""
    downloads = Places.from_environment().downloads
    tags = frozenset(tags_for(platform.machine(), (3, 12), (2, 39)))
    pins = file_pins("nvidia-cuda-cuobjdump", VERSION, "cuda", tags)
    if not pins:
        pytest.skip(f"no cuobjdump for {platform.machine()}")
    wheel = fetch_files(pins[:1], downloads, progress=False)[pins[0].filename]
    program = wheel.parent / "cuobjdump"
    if not program.exists():
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/bin/cuobjdump"))
            beside = program.with_suffix(".part")
            beside.write_bytes(archive.read(name))
            beside.chmod(0o755)
            beside.replace(program)
    return program


def listing(program: Path, module: Path) -> Counter[tuple[str, str]]:
    """(kind, architecture) of every entry that cuobjdump sees in a file."""
    found: Counter[tuple[str, str]] = Counter()
    kind = ""
    lines: list[str] = []
    done = process.run([program, module], on_line=lines.append)
    if not done.ok and any("does not contain device code" in line for line in lines):
        return found
    assert done.ok, "\n".join(done.tail)
    for line in lines:
        if heading := re.match(r"Fatbin (elf|ptx|\w+)[ \w-]* code:", line):
            kind = {"elf": "sass", "ptx": "ptx"}.get(heading[1], "lto")
        elif arch := re.match(r"arch = (sm_\w+)", line):
            found[kind, arch[1]] += 1
    return found
