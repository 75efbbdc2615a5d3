"""The ptxas that goes with a PTX: the one of the toolkit that wrote it, from NVIDIA's wheel, by hash.

nvcc takes the comments out of the PTX that it embeds, and with them the toolkit's version; the SASS beside it has
the version in a note.
"""

from __future__ import annotations

import functools
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from build_recipes.audit.families import family_table
from build_recipes.kit import process
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import ToolchainMismatch, ToolFailed
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.once import filled
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import FilePin
from build_recipes.toolchain.unpack import unpack_wheel

_BIN = "nvidia/cu13/bin"
_PROGRAMS = ("ptxas", "fatbinary")
_WRITTEN_BY = re.compile(rb"Cuda compilation tools, release \d+\.\d+, V(\d+\.\d+\.\d+)")


class Row(Model, frozen=True):
    """One wheel of toolkits.toml."""

    machine: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Assembler:
    """ptxas and fatbinary of one toolkit."""

    version: str
    """``13.0.88``."""
    ptxas: Path
    fatbinary: Path
    sha256: str
    """Of ptxas."""
    wheel: FilePin | None
    """Where they come from; None for a toolkit that was there."""


@functools.cache
def known() -> dict[str, list[Row]]:
    """The wheels by toolkit version."""
    return load_toml(Path(__file__).with_name("toolkits.toml"), dict[str, list[Row]])


def written_by(image: bytes | memoryview) -> str:
    """Version of the toolkit that made a cubin, as its note says (``13.0.88``); empty where it says nothing."""
    found = _WRITTEN_BY.search(image)
    return found[1].decode() if found else ""


def version_for(isa: tuple[int, int], told: str) -> str:
    """The toolkit whose ptxas assembles PTX of an ISA version.

    :param told: the toolkit that made the SASS beside it; empty where there is none.
    :raises ToolchainMismatch: that toolkit is older than the PTX, or none is known for it.
    """
    least = family_table().ptx.get(".".join(map(str, isa)), "")
    of_isa = [one for one in known() if least and one.startswith(f"{least}.")]
    chosen = told or max(of_isa, key=_number, default="")
    if not chosen or not least or _number(chosen)[:2] < _number(least):
        raise ToolchainMismatch(
            f"PTX ISA {isa[0]}.{isa[1]} needs ptxas of CUDA {least or 'of an unknown version'} or newer,"
            f" and {f'the wheel was made with {told}' if told else 'none such is known here'}",
            "take the wheel without assembling: --slim",
        )
    return chosen


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def pin(version: str) -> FilePin:
    """The wheel of a toolkit for this machine.

    :raises ToolchainMismatch: none is known: ptxas of another version would not give what NVIDIA's own does.
    """
    for row in known().get(version, ()):
        if row.machine == platform.machine():
            name = row.url.rsplit("/", 1)[1]
            return FilePin(
                project="nvidia-cuda-nvcc", version=version, filename=name, url=row.url,
                sha256=row.sha256, size=row.size, group="cuda",
            )  # fmt: skip
    raise ToolchainMismatch(
        f"its device code was made with CUDA {version}, whose ptxas is not known here"
        f" (known: {', '.join(known())}, on {platform.machine()})",
        "take the wheel without assembling: --slim",
    )


def of_toolkit(home: Path, version: str) -> Assembler | None:
    """ptxas and fatbinary of a toolkit that is there, where they are of that version."""
    ptxas, fatbinary = home / "bin/ptxas", home / "bin/fatbinary"
    try:
        said = process.capture([ptxas, "--version"])
    except (OSError, ToolFailed):
        return None
    if not fatbinary.is_file() or written_by(said.encode()) != version:
        return None
    return Assembler(version, ptxas, fatbinary, file_sha256(ptxas), None)


def assembler(version: str, places: Places, *, offline: bool = False) -> Assembler:
    """ptxas and fatbinary of a toolkit, fetched once.

    :raises ToolchainMismatch: no wheel is known for it, or the wheel has no ptxas.
    :raises NetworkError, HashMismatch, OfflineError: see `fetch_files`.
    """
    wheel = pin(version)

    def fill(into: Path) -> None:
        path = fetch_files([wheel], places.downloads, offline=offline)[wheel.filename]
        unpack_wheel(path, into, lambda name: name.rpartition("/")[2] in _PROGRAMS)
        for name in _PROGRAMS:
            if not (into / _BIN / name).is_file():
                raise ToolchainMismatch(f"{wheel.filename} has no {name}", "report this; or add --slim")
            (into / _BIN / name).chmod(0o755)

    folder = filled(places.toolkits / f"ptxas-{version}-{wheel.sha256[:12]}", fill) / _BIN
    return Assembler(version, folder / "ptxas", folder / "fatbinary", file_sha256(folder / "ptxas"), wheel)
