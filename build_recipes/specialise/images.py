"""Images that have to be made: PTX to assemble, SASS to pack. Made once for each content, kept by its hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.formats import cubin, fatbin
from build_recipes.formats.elf import Elf, Malformed
from build_recipes.formats.fatbin import Entry
from build_recipes.kit.console import counted
from build_recipes.kit.data import Model, decoded, write_atomic
from build_recipes.kit.errors import CompileFailed, NotAWheel
from build_recipes.specialise.toolkit import Assembler

ASSEMBLE_S, PACK_S = 2.5, 0.33
"""CPU seconds a MB: ptxas on PTX, fatbinary on SASS (measured on 0.33.0's FlashAttention 2 and Marlin)."""
GIB = 1.0
"""Memory of ptxas, GiB; 0.9 was the most that was seen (FlashAttention 2 to sm_110)."""
_OPTION = re.compile(
    r"-{1,2}(maxrregcount[= ]\d{1,3}|v|O[0-4]|opt-level[= ][0-4]|lineinfo|generate-line-info)"
)


@dataclass(frozen=True)
class Job:
    """One image to make."""

    name: str
    """Module, unit and target, for people: ``_vllm_fa2_C/12.sm_110``."""
    kind: str
    """``assemble`` (PTX) or ``pack`` (a cubin that is stored uncompressed)."""
    arch: str
    """What ptxas is asked for: ``sm_110``."""
    options: tuple[str, ...]
    """ptxas options that the PTX was compiled with."""
    assembler: Assembler
    source: bytes
    """SHA-256 of the PTX or cubin."""
    size: int
    """Its bytes."""
    kernels: frozenset[str] | None = None
    """Kernels that the image has to hold; None where the code itself stays the same."""

    @property
    def key(self) -> str:
        """What the result depends on, as 64 hex digits: content, target, options, ptxas."""
        words = (self.kind, self.arch, *self.options, self.assembler.sha256, self.source.hex())
        return hashlib.sha256("\0".join(words).encode()).hexdigest()

    @property
    def seconds(self) -> float:
        """Expected CPU seconds."""
        return (ASSEMBLE_S if self.kind == "assemble" else PACK_S) * self.size / 1e6


class Made(Model, frozen=True):
    """What is kept beside a finished image."""

    entry: str
    """SHA-256 of the entry."""
    cubin: str
    """SHA-256 of the cubin in it."""
    source: str
    """SHA-256 of what it was made from."""
    kind: str
    arch: str
    ptxas: str
    """Version."""
    size: int
    """Bytes of the cubin."""


Assemble = Callable[[Sequence[Job], "Store"], None]
"""Makes images: reads `Store.input`, writes `Store.output`, calls `Store.put` for each."""


class Store:
    """Finished images, below the cache, and the inputs of those that are to be made, below the work folder."""

    def __init__(self, cache: Path, work: Path) -> None:
        self.cache, self.work = cache / "images", work
        self._shown: set[str] = set()
        """Keys of the jobs whose image was held against what is said of it."""

    def input(self, job: Job) -> Path:
        """Where a job's PTX or cubin lies while it waits."""
        return self.work / "in" / f"{job.key}.{'ptx' if job.kind == 'assemble' else 'cubin'}"

    def output(self, job: Job) -> Path:
        """Where the fat binary with the image alone is to be written."""
        return self.work / "out" / f"{job.name.replace('/', '.')}.{job.key[:12]}.o"

    def _place(self, job: Job) -> Path:
        return self.cache / job.key[:2] / job.key

    def get(self, job: Job) -> tuple[bytes, Made] | None:
        """A finished image's entry; None where there is none, or not what was put there."""
        place = self._place(job)
        try:
            entry = place.with_suffix(".entry").read_bytes()
            made = decoded(place.with_suffix(".json").read_bytes(), Made)
        except (OSError, ValueError):
            return None
        if hashlib.sha256(entry).hexdigest() != made.entry:
            return None
        if job.key not in self._shown:  # that what is said of the entry is so
            try:
                (container,) = fatbin.containers(memoryview(fatbin.packed([entry])), place.name)
                (found,) = container.entries
                shown = _made(job, found, bytes(found.decode()))
            except (Malformed, ValueError):
                return None
            if made != shown:
                return None
            self._shown.add(job.key)
        return entry, made

    def put(self, job: Job) -> Made:
        """Take a finished image in from `output`.

        :raises CompileFailed: it is not what was asked for.
        """
        path = self.output(job)
        try:
            (container,) = fatbin.containers(memoryview(path.read_bytes()), path.name)
            (entry,) = container.entries
            code = bytes(entry.decode())
            found = {one.name for one in cubin.kernels(Elf(code, path.name))}
        except (Malformed, ValueError, OSError) as error:
            raise CompileFailed(f"{job.name}: no image was made: {error}", "run it again") from error
        if (
            entry.kind != "sass"
            or entry.name != job.arch
            or (job.kernels is not None and found != job.kernels)
        ):
            raise CompileFailed(
                f"{job.name}: the image is for {entry.name} and has {counted(len(found), 'kernel')}",
                "report it",
            )
        if job.kind == "pack" and hashlib.sha256(code).digest() != job.source:
            raise CompileFailed(f"{job.name}: packing changed the code", "report it")
        made = _made(job, entry, code)
        write_atomic(self._place(job).with_suffix(".entry"), bytes(entry.raw))
        write_atomic(self._place(job).with_suffix(".json"), msgspec.json.encode(made))
        return made


def _made(job: Job, entry: Entry, code: bytes) -> Made:
    return Made(
        entry=hashlib.sha256(entry.raw).hexdigest(),
        cubin=hashlib.sha256(code).hexdigest(),
        source=job.source.hex(),
        kind=job.kind,
        arch=job.arch,
        ptxas=job.assembler.version,
        size=len(code),
    )


def options_of(entry: Entry) -> tuple[str, ...]:
    """ptxas options of a PTX entry that decide its code.

    :raises NotAWheel: one that is not known: it comes from the wheel and is not handed to a program unseen.
    """
    found = []
    for word in entry.options.split():
        if not _OPTION.fullmatch(word):
            raise NotAWheel(
                f"its PTX was compiled with the ptxas option {word[:40]!r}, which is not known here",
                "take the wheel without assembling: --slim",
            )
        if word not in ("-v", "--v"):
            found.append(word)
    return tuple(found)


def entry_points(ptx: bytes | memoryview) -> frozenset[str]:
    """Names of the kernels in PTX."""
    return frozenset(name.decode() for name in re.findall(rb"\.entry\s+([\w$]+)", ptx))


def as_document(made: Made) -> dict[str, Any]:
    """A finished image as plain data."""
    document: dict[str, Any] = json.loads(msgspec.json.encode(made))
    return document
