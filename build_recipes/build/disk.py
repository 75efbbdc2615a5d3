"""What a build takes on which file system, and what becomes of it when one is full."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build.plan import TOOLKIT_GLIBC, Plan
from build_recipes.kit.console import size
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import ArmoryError, NotEnoughDisk, disk_is_full
from build_recipes.kit.host import existing, free_disk
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


@dataclass(frozen=True)
class Need:
    """Room that a build still takes in a folder."""

    folder: Path
    what: str
    octets: int


@functools.cache
def _sizes() -> _Sizes:
    return load_toml(Path(__file__).with_name("sizes.toml"), _Sizes)


def downloads(plan: Plan) -> list[FilePin]:
    """The files a build would read from package indexes."""
    host, device, python = plan.host.machine, plan.device.machine, plan.host.python

    def pick(group: str, machine: str, glibc: tuple[int, int], torch: str | None = None) -> list[FilePin]:
        return pick_wheels(plan.lock, group, machine=machine, python=python, glibc=glibc, torch=torch)

    wanted = pick("build", host, plan.host.glibc)
    if not own_toolkit(plan):
        wanted += pick("cuda", host, TOOLKIT_GLIBC)
    if plan.cross:
        wanted += pick("cuda", device, TOOLKIT_GLIBC)
    for group in ("torch",) if plan.cross else ("torch", "torch-deps"):
        if not plan.torch_existing:
            wanted += pick(group, device, plan.device_glibc, plan.torch.version)
    if plan.lock.vllm.sdist and plan.request.source == "sdist":
        wanted.append(plan.lock.vllm.sdist)
    return list({pin.sha256: pin for pin in wanted}.values())


def own_toolkit(plan: Plan) -> bool:
    """Whether a CUDA toolkit of this machine comes before one from wheels."""
    if plan.cross or plan.request.cuda == "wheels":
        return False
    return bool(plan.request.cuda or os.environ.get("CUDA_HOME") or any(system_toolkits()))


def here(plan: Plan, pin: FilePin) -> bool:
    """Whether a download is in the cache."""
    return (plan.places.downloads / pin.sha256 / pin.filename).exists()


def needs(plan: Plan) -> list[Need]:
    """What a build still takes, folder by folder: downloads, toolkits in the cache, the tree, the wheel."""
    files, sizes, places = downloads(plan), _sizes(), plan.places
    groups = {
        group: [pin for pin in files if pin.group.split("-")[0] == group]
        for group in ("build", "cuda", "torch", "source")
    }
    taken = {
        group: int(sum(pin.size for pin in pins) * sizes.unpacked[group]) for group, pins in groups.items()
    }
    kept = ("cuda", "torch") if plan.cross else ("cuda",)  # a native torch is installed into the tree
    names = {group: digest_of([pin.filename for pin in groups[group]]) for group in kept}
    assembled = {group: bool(list(places.toolkits.glob(f"{group}-*{names[group]}"))) for group in kept}
    linked = _device(places.cache) == _device(plan.tree)  # hard links take no room
    tree = sum(taken[group] for group in groups if group not in kept or not linked)
    tree += (sizes.tree_mb.smoke if plan.request.smoke else sizes.tree_mb.whole) * 10**6
    found = [
        Need(places.downloads, "downloads", sum(pin.size for pin in files if not here(plan, pin))),
        Need(places.toolkits, "toolkits", sum(taken[group] for group in kept if not assembled[group])),
        Need(plan.tree, "the build tree", max(0, tree - held(plan.tree))),
        Need(places.wheels, "the wheel", (5 if plan.request.smoke else sizes.tree_mb.wheel) * 10**6),
    ]
    return [need for need in found if need.octets]


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


def check_disk(plan: Plan) -> None:
    """Refuse a build that cannot end well, before the first byte: each file system by itself.

    :raises NotEnoughDisk: how much is missing where, and for what.
    """
    disks: dict[int, list[Need]] = {}
    for need in needs(plan):
        disks.setdefault(_device(need.folder), []).append(need)
    for own in disks.values():
        free, total = free_disk(own[0].folder), sum(need.octets for need in own)
        if free < total:
            parts = ", ".join(f"{need.what} {size(need.octets)} in {need.folder}" for need in own)
            raise NotEnoughDisk(
                f"{size(free)} are free and {size(total)} are needed: {parts}",
                "./inv clean shows what is kept and why; or move a folder: VLLM_ARMORY_CACHE, VLLM_ARMORY_BUILD, "
                "VLLM_ARMORY_WHEELS",
            )


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
        last = str(error.args[0] if isinstance(error, ArmoryError) else error).strip().splitlines() or [""]
        line = next((line for line in last if "space left" in line or "quota" in line), last[-1])
        raise NotEnoughDisk(
            f"a disk filled up: {line.strip()[:300]}\n"
            + "\n".join(f"  {path}: {size(free)} free now" for path, free in places.items()),
            "make room (./inv clean shows what is kept and why), then type the same again: what is finished is kept",
        ) from error
