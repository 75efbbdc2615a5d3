"""Libraries to close against: torch's from a package index, a wheel, an installed copy, or any folder.

What a library inside of a wheel exports is read once and kept in the cache under the wheel's hash.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from pathlib import Path

import msgspec
import zstandard

from build_recipes.audit.closure import Library, Listed, shared_libraries
from build_recipes.audit.subject import wheel_tags
from build_recipes.formats.elf import Elf, mapped
from build_recipes.formats.wheel import Wheel, is_module
from build_recipes.kit.data import Model, write_atomic
from build_recipes.kit.errors import BadData, CouldNotCheck
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places, user_path
from build_recipes.sources.download import fetch_files
from build_recipes.sources.registry import file_pins

_MOST = 1 << 30
"""Bytes of a list in the cache, unpacked."""


class _Exported(Model, frozen=True):
    soname: str
    needed: list[str]
    names: list[str]


class _Cached(Model, frozen=True):
    libraries: list[_Exported]


def libraries(what: str, machine: str, places: Places, stack: contextlib.ExitStack) -> list[Library]:
    """The libraries that ``what`` names.

    :param what: a torch version on PyPI (``2.11.0``), ``installed`` (this Python's torch), a wheel, a
        library, or a folder of libraries.
    :param machine: ``uname -m`` of the machine whose torch is wanted.
    :param stack: keeps files mapped while it is open.
    :raises CouldNotCheck: there is no such torch, or the folder holds no library.
    """
    if re.fullmatch(r"\d+(\.\w+)+(\+\w+)?", what) and not Path(what).exists():
        return list(of_wheel(torch_wheel(what, machine, places), places))
    if what == "installed":
        found = importlib.util.find_spec("torch")
        if found is None or not found.origin:
            raise CouldNotCheck("this Python has no torch", "name one: --torch 2.11.0")
        what = str(Path(found.origin).parent / "lib")
    place = user_path(what)
    if not place.exists():
        raise CouldNotCheck(
            f"{place} does not exist", "give a torch version, a wheel or a folder of libraries"
        )
    if place.suffix == ".whl":
        return list(of_wheel(place, places))
    files = shared_libraries(place)
    if not files:
        raise CouldNotCheck(f"{place} holds no shared library", "give the folder torch/lib")
    return [stack.enter_context(mapped(path)) for path in files]


def torch_wheel(version: str, machine: str, places: Places) -> Path:
    """The torch wheel of a version for a machine, in the cache; fetched once, by hash.

    :raises CouldNotCheck: the index has none.
    """
    pins = file_pins("torch", version, "torch", wheel_tags(machine))
    if not pins:
        raise CouldNotCheck(
            f"PyPI has no torch {version} for {machine}",
            "give the wheel of another index: --torch torch-....whl",
        )
    there = [pin for pin in pins if (places.downloads / pin.sha256 / pin.filename).exists()]
    pin = (there or sorted(pins, key=lambda pin: ("-cp312-cp312-" not in pin.filename, pin.filename)))[0]
    return fetch_files([pin], places.downloads)[pin.filename]


def of_wheel(wheel: Path, places: Places) -> list[Listed]:
    """Libraries inside of a wheel, by what they export; read once, then from the cache.

    :raises NotAWheel: it is none.
    """
    parent = wheel.parent.name
    digest = parent if re.fullmatch(r"[0-9a-f]{64}", parent) else file_sha256(wheel)
    kept = places.cache / "exports" / f"{digest}.json.zst"
    with contextlib.suppress(OSError, BadData, msgspec.MsgspecError, zstandard.ZstdError):
        stored = kept.read_bytes()
        frame = zstandard.get_frame_parameters(stored)
        if not frame.has_checksum or frame.content_size > _MOST:
            raise BadData(f"{kept} cannot tell whether it is whole", "it is made again")
        raw = zstandard.ZstdDecompressor().decompress(stored)
        known = msgspec.json.decode(raw, type=_Cached).libraries
        return [Listed(one.soname, tuple(one.needed), frozenset(one.names)) for one in known]
    found = []
    with Wheel(wheel) as opened:
        for name in opened.members:
            if is_module(name) and "/lib/" in name:
                elf = Elf(opened.content(name).data, name)
                soname = elf.soname or Path(name).name
                found.append(Listed(soname, elf.needed, elf.symbols.defined))
    rows = [_Exported(soname=one.soname, needed=list(one.needed), names=sorted(one.names)) for one in found]
    packed = zstandard.ZstdCompressor(level=6, write_checksum=True).compress(
        msgspec.json.encode(_Cached(libraries=rows))
    )
    with contextlib.suppress(OSError):  # a read-only cache is slower, not wrong
        write_atomic(kept, packed)
    return found
