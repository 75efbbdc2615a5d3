"""What a build takes on which file system, and what becomes of it when one is full."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build.plan import TOOLKIT_GLIBC, Plan
from build_recipes.kit.console import say, size, warn
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import ArmoryError, NotEnoughDisk
from build_recipes.kit.host import existing, free_disk
from build_recipes.kit.once import remove_tree
from build_recipes.kit.system_errors import disk_is_full
from build_recipes.sources.lockfile import FilePin, pick_wheels
from build_recipes.toolchain.cuda import system_toolkits
from build_recipes.toolchain.unpack import digest_of


class _Tree(Model, frozen=True):
    smoke: int
    whole: int
    wheel: int


class _Sizes(Model, frozen=True):
    unpacked: dict[str, float]
    tree_mb: _Tree
    own_mb: int


@dataclass(frozen=True)
class Need:
    """Room that a build still takes in a folder."""

    folder: Path
    what: str
    octets: int


@dataclass(frozen=True)
class Disk:
    """A file system, and what a build still takes on it."""

    needs: tuple[Need, ...]
    free: int

    @property
    def needed(self) -> int:
        """Bytes of all needs."""
        return sum(need.octets for need in self.needs)

    def __str__(self) -> str:
        """One line: what is free, what is needed, and for what."""
        parts = ", ".join(f"{need.what} {size(need.octets)} in {need.folder}" for need in self.needs)
        return f"{size(self.free)} are free and {size(self.needed)} are needed: {parts}"


MORE_ROOM = (
    "./inv clean  # shows what is kept and why; or move a folder: VLLM_ARMORY_CACHE, VLLM_ARMORY_BUILD, "
    "VLLM_ARMORY_WHEELS"
)


@functools.cache
def _sizes() -> _Sizes:
    return load_toml(Path(__file__).with_name("sizes.toml"), _Sizes)


def picked(plan: Plan, *, toolkit: bool = True) -> dict[str, list[FilePin]]:
    """The files a build would read from package indexes, by what they become: ``build``, ``cuda``, ``torch``,
    ``torch-deps`` and ``source``. A wheel that a toolkit and torch both take is unpacked for each.

    :param toolkit: whether a toolkit that this machine has counts.
    """
    host, device, python = plan.host.machine, plan.device.machine, plan.host.python

    def pick(group: str, machine: str, glibc: tuple[int, int], torch: str | None = None) -> list[FilePin]:
        return pick_wheels(plan.lock, group, machine=machine, python=python, glibc=glibc, torch=torch)

    groups: dict[str, list[FilePin]] = {"build": pick("build", host, plan.host.glibc)}
    groups |= {group: [] for group in ("cuda", "torch", "torch-deps", "source")}
    if not toolkit or not own_toolkit(plan):
        groups["cuda"] += pick("cuda", host, TOOLKIT_GLIBC)
    if plan.cross:
        groups["cuda"] += pick("cuda", device, TOOLKIT_GLIBC)
    for group in ("torch",) if plan.cross else ("torch", "torch-deps"):
        if not plan.torch_existing:
            groups[group] += pick(group, device, plan.device_glibc, plan.torch.version)
    if plan.lock.vllm.sdist and plan.request.source == "sdist":
        groups["source"].append(plan.lock.vllm.sdist)
    return groups


def downloads(plan: Plan) -> list[FilePin]:
    """The files a build would read from package indexes, each once."""
    return list({pin.sha256: pin for pins in picked(plan).values() for pin in pins}.values())


def own_toolkit(plan: Plan) -> bool:
    """Whether a CUDA toolkit of this machine comes before one from wheels."""
    if plan.cross or plan.request.cuda == "wheels":
        return False
    return bool(plan.request.cuda or os.environ.get("CUDA_HOME") or any(system_toolkits()))


def here(plan: Plan, pin: FilePin) -> bool:
    """Whether a download is in the cache."""
    return (plan.places.downloads / pin.sha256 / pin.filename).exists()


def needs(plan: Plan, *, drop: bool = False) -> list[Need]:
    """What a build still takes, folder by folder: downloads, toolkits in the cache, the tree, the wheel.

    :param drop: downloads go once they are unpacked, and what is compiled takes their room.
    """
    groups, sizes, places = picked(plan), _sizes(), plan.places
    taken = {
        group: int(sum(pin.size for pin in pins) * sizes.unpacked[group]) for group, pins in groups.items()
    }
    kept = ("cuda", "torch") if plan.cross else ("cuda",)  # a native torch is installed into the tree
    names = {group: digest_of([pin.filename for pin in groups[group]]) for group in kept}
    assembled = {group: bool(list(places.toolkits.glob(f"{group}-*{names[group]}"))) for group in kept}
    linked = _device(places.cache) == _device(plan.tree)  # hard links take no room
    unpacked = sum(taken[group] for group in groups if group not in kept or not linked)
    made = (sizes.tree_mb.smoke if plan.request.smoke else sizes.tree_mb.whole) * 10**6
    wheel = (5 if plan.request.smoke else sizes.tree_mb.wheel) * 10**6
    fetched = sum(pin.size for pin in downloads(plan) if not here(plan, pin))
    tree = max(0, unpacked + made - held(plan.tree))
    found = [
        Need(places.downloads, "downloads", max(0, fetched - min(made, tree) - wheel) if drop else fetched),
        Need(places.toolkits, "toolkits", sum(taken[group] for group in kept if not assembled[group])),
        Need(plan.tree, "the build tree", tree),
        Need(places.wheels, "the wheel", wheel),
    ]
    return [need for need in found if need.octets]


def from_nothing(plan: Plan, *, drop: bool) -> int:
    """Bytes that a build takes at most on a machine with nothing but this program, all on one file system."""
    groups, sizes = picked(plan, toolkit=False), _sizes()
    fetched = sum({pin.sha256: pin.size for pins in groups.values() for pin in pins}.values())
    unpacked = sum(
        int(sum(pin.size for pin in pins) * sizes.unpacked[group]) for group, pins in groups.items()
    )
    made = (
        sizes.tree_mb.smoke + 5 if plan.request.smoke else sizes.tree_mb.whole + sizes.tree_mb.wheel
    ) * 10**6
    return unpacked + (max(fetched, made) if drop else fetched + made)


def own_bytes() -> int:
    """What this program and its environment take."""
    return _sizes().own_mb * 10**6


def held(folder: Path, *, links: bool = False) -> int:
    """Bytes on disk below a folder that nothing else links to.

    :param links: count files with more than one hard link, too.
    """
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                status = os.lstat(f"{place}/{name}")
                total += status.st_blocks * 512 if links or status.st_nlink == 1 else 0
    return total


def _device(folder: Path) -> int:
    return existing(folder).stat().st_dev


def disks(plan: Plan, *, drop: bool = False) -> list[Disk]:
    """What a build still takes, file system by file system; plan, build and doctor judge by this.

    :param drop: without the downloads that it fetches itself and can remove once they are unpacked.
    """
    found: dict[int, list[Need]] = {}
    for need in needs(plan, drop=drop):
        found.setdefault(_device(need.folder), []).append(need)
    return [Disk(tuple(own), free_disk(own[0].folder)) for own in found.values()]


def short(plan: Plan) -> tuple[Disk, bool] | None:
    """The first file system without the room for a build, and whether the build fits where downloads go early."""
    for disk in disks(plan):
        if disk.free < disk.needed:
            fits = all(one.free >= one.needed for one in disks(plan, drop=True))
            return disk, fits and not plan.request.offline
    return None


DROPPED = "what was downloaded is removed once it is unpacked"


def check_disk(plan: Plan) -> list[FilePin]:
    """Refuse a build that cannot end well, before the first byte: each file system by itself.

    :returns: downloads to remove once they are unpacked, because the build does not fit beside them: those that it
        fetches itself. None where there is room, or without a network to fetch them again.
    :raises NotEnoughDisk: how much is missing where, and for what.
    """
    found = short(plan)
    if found is None:
        return []
    lacking, fits = found
    if not fits:
        raise NotEnoughDisk(str(lacking), MORE_ROOM)
    warn(f"{lacking}: {DROPPED}")
    return [pin for pin in downloads(plan) if not here(plan, pin)]


def drop_downloads(plan: Plan, pins: Sequence[FilePin]) -> None:
    """Remove downloads that are unpacked."""
    gone = [pin for pin in pins if here(plan, pin)]
    for pin in gone:
        remove_tree(plan.places.downloads / pin.sha256)
    if gone:
        say(f"      disk  {size(sum(pin.size for pin in gone))} of downloads removed: they are unpacked")


@contextlib.contextmanager
def told_when_full(*folders: Path) -> Iterator[None]:
    """Whatever a stage or a tool says when a disk fills up becomes the one error for it.

    :raises NotEnoughDisk: naming the folders and what is free there now.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, NotEnoughDisk) or not disk_is_full(error):
            raise
        places = {path: free_disk(path) for path in folders}
        said = error.args[0] if isinstance(error, ArmoryError) else error
        if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
            said = error.args[0][0][-1]  # of source, target and reason, of every file that was not copied
        last = str(said).strip().splitlines() or [""]
        line = next((line for line in last if "space left" in line or "quota" in line), last[-1])
        raise NotEnoughDisk(
            f"a disk filled up: {line.strip()[:300]}\n"
            + "\n".join(f"  {path}: {size(free)} free now" for path, free in places.items()),
            "make room (./inv clean shows what is kept and why), then run the same command again: what "
            "is finished is kept",
        ) from error
