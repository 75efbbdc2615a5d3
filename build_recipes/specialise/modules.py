"""The modules of one wheel: unpacked once for all devices, their units chosen, their device code written."""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from build_recipes.audit.audit import Audit
from build_recipes.audit.scan import Unit
from build_recipes.facts.device import Device
from build_recipes.formats import fatbin
from build_recipes.formats.elf import Elf, mapped
from build_recipes.formats.fatbin import Container, Entry
from build_recipes.formats.inflate import Content
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.data import write_atomic
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.specialise import shrink, toolkit
from build_recipes.specialise.choose import MADE, Choice, choose, nothing_entry
from build_recipes.specialise.images import Job, Made, Store, entry_points, options_of
from build_recipes.specialise.toolkit import Assembler


class Unpacking(Wheel):
    """A wheel whose members are unpacked into a folder as they are read, and mapped from there.

    So each is inflated once, for the audit and for all devices, and memory is the system's to take back.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path)
        self.folder = folder
        self.views: dict[str, memoryview] = {}
        self._maps: list[mmap.mmap] = []

    def __enter__(self) -> Unpacking:
        return self

    def content(self, name: str) -> Content:
        """A member with its digest."""
        self.release()  # whoever asks for the next member is done with the last
        self.folder.mkdir(parents=True, exist_ok=True)
        digest, place = hashlib.sha256(), self.folder / str(len(self.views))
        with place.open("w+b") as stream:
            for piece in self.pieces(name):
                digest.update(piece)
                stream.write(piece)
            stream.flush()
            size = stream.tell()
            if size:
                self._maps.append(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
            self.views[name] = memoryview(self._maps[-1] if size else b"")
        return Content(self.views[name], digest.digest())

    def release(self) -> None:
        """Give back the memory that the members' content takes now; it is read again where it is wanted."""
        for one in self._maps:
            one.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Part:
    """One module with device code."""

    path: str
    units: tuple[Unit | None, ...]
    """What the audit knows of each container; None for one without entries."""
    layout: shrink.Layout | None
    """None where it is kept as it is."""
    kept: str
    """Why it is kept as it is; empty where it is not."""

    @property
    def containers(self) -> tuple[Container, ...]:
        """Its containers, one a unit; none where it is kept as it is."""
        return tuple(one.container for one in self.layout.wrappers) if self.layout else ()


@dataclass
class Chosen:
    """What is to become of the modules on one device."""

    device: Device
    choices: dict[str, list[Choice]] = field(default_factory=dict)
    """Module to its units, in the order of their containers."""
    jobs: dict[tuple[str, int], Job] = field(default_factory=dict)
    """Module and unit to the PTX to assemble, or the SASS to pack."""

    def tally(self) -> dict[str, int]:
        """How many units became what."""
        return dict(Counter(one.what for units in self.choices.values() for one in units))


def parts(wheel: Unpacking, audit: Audit) -> list[Part]:
    """The modules that hold device code, as the audit left them unpacked.

    :raises Malformed: one is damaged.
    """
    found: list[Part] = []
    for module in audit.modules:
        if not module.units:
            continue
        elf = Elf(wheel.views[module.path], module.path)
        try:
            layout = shrink.layout(elf)
        except shrink.Fixed as reason:
            found.append(Part(module.path, (), None, str(reason)))
            continue
        known = iter(module.units)
        containers = [one.container for one in layout.wrappers] if layout else []
        units = tuple(next(known, None) if one.entries else None for one in containers)
        found.append(Part(module.path, units, layout, ""))
    return found


def written_by(entries: Iterable[Entry]) -> str:
    """The toolkit that made the smallest SASS image of some; empty where none says it."""
    sass = (one for one in entries if one.kind == "sass")
    smallest = min(sass, key=lambda one: one.size, default=None)
    return toolkit.written_by(smallest.decode()) if smallest else ""


def cuda_of(found: Sequence[Part]) -> str:
    """The newest toolkit of the modules (``13.0.88``), by one image of each; empty where none says it."""
    told = filter(None, (written_by(one for row in part.containers for one in row.entries) for part in found))
    return max(told, key=lambda text: tuple(map(int, text.split("."))), default="")


@dataclass(frozen=True)
class Making:
    """What may be made anew, and from what."""

    places: Places
    store: Store
    native: bool = True
    """Assemble PTX that a driver would compile at first use."""
    pack: bool = True
    """Pack SASS that is stored plain; with `native` alone."""
    keep_ptx: bool = False
    """Keep the newest PTX of needed families, for GPUs to come."""
    remake: frozenset[str] = frozenset()
    """Families whose SASS is taken away first, so that it is made from PTX: a proof on a GPU."""
    offline: bool = False
    cuda_home: Path | None = None
    """A toolkit that is there; its ptxas is taken where it is of the version that is needed."""

    def assembler(self, version: str) -> Assembler:
        """ptxas of a version.

        :raises ArmoryError: see `toolkit.assembler`.
        """
        given = toolkit.of_toolkit(self.cuda_home, version) if self.cuda_home else None
        return given or toolkit.assembler(version, self.places, offline=self.offline)


def plan(found: Sequence[Part], device: Device, how: Making) -> Chosen:
    """Choose every unit's images for a device; what has to be made is a job, with its input in the store.

    :raises ToolchainMismatch: the ptxas that goes with some PTX is not known.
    """
    chosen, assemblers = Chosen(device), dict[str, Assembler]()
    for part in found:
        rows = chosen.choices[part.path] = []
        all_entries = [one for row in part.containers for one in row.entries]
        for number, (unit, row) in enumerate(zip(part.units, part.containers, strict=True)):
            one = choose(
                row.entries, unit, device, native=how.native, keep_ptx=how.keep_ptx, remake=how.remake
            )
            rows.append(one)
            name = f"{part.path.rpartition('/')[2].split('.')[0]}/{number}"
            for entry in _to_make(one) if how.native and (how.pack or one.make) else ():
                told = written_by(row.entries) or written_by(all_entries)
                version = toolkit.version_for(entry.version, told) if entry.kind == "ptx" else told
                if version not in assemblers and (entry.kind == "ptx" or version in toolkit.known()):
                    assemblers[version] = how.assembler(version)
                if version in assemblers:
                    job = chosen.jobs[part.path, number] = _job(name, entry, device, assemblers[version])
                    _offer(job, entry, how.store)
    return chosen


def _to_make(choice: Choice) -> list[Entry]:
    if choice.make is not None:
        return [choice.make]
    return [one for one in choice.keep if one.kind == "sass" and not one.compression][:1]


def _content(entry: Entry) -> bytes:
    """PTX (without the NUL that ends it in a fat binary: ptxas takes none) or a cubin."""
    return bytes(entry.decode()).rstrip(b"\0") if entry.kind == "ptx" else bytes(entry.decode())


def _job(name: str, entry: Entry, device: Device, assembler: Assembler) -> Job:
    content, ptx = _content(entry), entry.kind == "ptx"
    arch = f"sm_{device.number}{entry.suffix}" if ptx else entry.name
    return Job(
        name=f"{name}.{arch}",
        kind="assemble" if ptx else "pack",
        arch=arch,
        options=options_of(entry) if ptx else (),
        assembler=assembler,
        source=hashlib.sha256(content).digest(),
        size=len(content),
        kernels=entry_points(content) if ptx else None,
    )


def _offer(job: Job, entry: Entry, store: Store) -> None:
    """Put a job's input where it is read, unless the image is there already."""
    place = store.input(job)
    if store.get(job) is None and not (place.exists() and file_sha256(place) == job.source.hex()):
        write_atomic(place, _content(entry))


def write(
    part: Part, chosen: Chosen, images: Mapping[tuple[str, int], bytes], target: Path
) -> shrink.Written:
    """Write one module for a device, and compare it with its source.

    :param images: the entries that were made, by module and unit.
    :raises Differs: something else than the device code changed.
    """
    assert part.layout is not None
    entries = []
    for number, choice in enumerate(chosen.choices[part.path]):
        made = images.get((part.path, number))
        kept = [one.raw for one in choice.keep]
        if made is not None and choice.what != MADE:  # packed anew: it takes the place of the plain one
            plain = _to_make(choice)[0]
            kept = [memoryview(made) if one is plain.raw else one for one in kept]
        elif made is not None:
            kept.append(memoryview(made))
        entries.append(kept or [memoryview(nothing_entry())])
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as stream:
        done = shrink.write(part.layout, [fatbin.packed(row) for row in entries], stream)
    with mapped(target) as new:
        shrink.check(part.layout.elf, new, entries)
    return done


def missing(chosen: Iterable[Chosen], store: Store) -> list[Job]:
    """The jobs whose image is not in the store, each once."""
    jobs = {job.key: job for one in chosen for job in one.jobs.values() if store.get(job) is None}
    return list(jobs.values())


def made_images(chosen: Chosen, store: Store) -> tuple[dict[tuple[str, int], bytes], dict[str, Made]]:
    """The entries of all jobs from the store, and what is told of those that were assembled, by name.

    :raises KeyError: one was not made.
    """
    entries, told = {}, {}
    for place, job in chosen.jobs.items():
        found = store.get(job)
        if found is None:
            raise KeyError(job.name)
        entries[place], told[job.name] = found
    return entries, told


def rewritten(
    wheel: Unpacking,
    found: Sequence[Part],
    chosen: Chosen,
    images: Mapping[tuple[str, int], bytes],
    folder: Path,
) -> dict[str, bytes | Path]:
    """Write every module whose images change (see `write`), below a folder: member to file."""
    done: dict[str, bytes | Path] = {}
    for part in found:
        rows = zip(part.containers, chosen.choices[part.path], strict=True)
        stays = all([*map(id, row.entries)] == [*map(id, one.keep)] for row, one in rows)
        if part.layout is None or (stays and not any(path == part.path for path, _ in chosen.jobs)):
            continue
        target = folder / part.path
        write(part, chosen, images, target)
        target.chmod(wheel.members[part.path].external_attr >> 16 & 0o777 or 0o644)
        done[part.path] = target
        wheel.release()
    return done


def toolkits(chosen: Chosen) -> list[Assembler]:
    """The toolkits that the jobs use, by version."""
    used = {job.assembler.version: job.assembler for job in chosen.jobs.values()}
    return [one for _, one in sorted(used.items())]
