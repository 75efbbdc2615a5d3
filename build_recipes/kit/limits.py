"""What this process may use of the machine: memory, swap and cores, by the kernel's own word.

A container's share is a limit of a control group: of the group that the process is in or of any group above it, in
either version of cgroups (v1 and v2 may be there side by side). The smallest counts. ``memory.high`` counts like
``memory.max``: above it the kernel slows a process down until it seems to hang (kernel docs, admin-guide/cgroup-v2).

On boards whose GPU shares the memory, what the GPU holds is no memory for compilers; the L4T kernel tells it in
``/proc/meminfo`` (``NvMapMemUsed``), and ``MemAvailable`` leaves it out in any case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NONE = 1 << 60
"""A v1 limit this large is none (the kernel shows a page less than 2^63)."""


@dataclass(frozen=True)
class Group:
    """A control group that this process is in, with one controller."""

    folder: Path
    version: int
    """1 or 2."""

    def number(self, name: str) -> int | None:
        """A file's number; None where there is no such file, or it says ``max``."""
        text = _text(self.folder / name).strip()
        return int(text) if re.fullmatch(r"\d+", text) and int(text) < NONE else None

    def row(self, name: str, key: str) -> int | None:
        """The number behind a key of a file of rows (``memory.stat``)."""
        found = re.search(rf"^{key} (\d+)$", _text(self.folder / name), re.MULTILINE)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Limits:
    """What this process may use. Memory in bytes."""

    memory: int
    """Physical memory, or the smallest limit of a control group; less what the GPU of a shared memory holds."""
    swap: int
    cores: int
    """Cores by affinity and CPU quota, at least 1."""
    gpu: int
    """Of the machine's memory, what its GPU holds."""
    source: str
    """Where the memory's number comes from, for people."""

    @property
    def memory_gib(self) -> float:
        """`memory` in GiB."""
        return round(self.memory / 2**30, 1)

    @property
    def swap_gib(self) -> float:
        """`swap` in GiB."""
        return round(self.swap / 2**30, 1)


class Machine:
    """The kernel's files below a root: the running machine, or a copy of one."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.memory_groups = tuple(self._groups("memory"))
        self.cpu_groups = tuple(self._groups("cpu"))

    def limits(self) -> Limits:
        """What may be used, now."""
        meminfo = _meminfo(self.root)
        gpu = meminfo.get("NvMapMemUsed", 0)
        memory, source = meminfo.get("MemTotal", 0) - gpu, "physical memory"
        if gpu:
            source += f" less {gpu / 2**30:.1f} GiB that the GPU holds"
        swap = meminfo.get("SwapTotal", 0)
        for group in self.memory_groups:
            limit = _smallest(_limits(group))
            if limit is not None and limit < memory:
                memory, source = limit, str(group.folder)
            swap = min(swap, _swap(group, swap))
        return Limits(memory, swap, self.cores(), gpu, source)

    def available(self) -> int:
        """Bytes that can be taken now without pressing on anybody: of the machine, and of each group's limit."""
        free = _meminfo(self.root).get("MemAvailable", 0)
        for group in self.memory_groups:
            limit = _smallest(_limits(group))
            if limit is not None:
                free = min(free, limit - _held(group))
        return max(0, free)

    def cores(self) -> int:
        """Cores that may be used."""
        count = len(os.sched_getaffinity(0))
        for group in self.cpu_groups:
            if group.version == 2:
                quota, _, period = _text(group.folder / "cpu.max").strip().partition(" ")
            else:
                quota = _text(group.folder / "cpu.cfs_quota_us").strip()
                period = _text(group.folder / "cpu.cfs_period_us").strip()
            if quota.isdigit() and period.isdigit() and int(period):
                count = min(count, max(1, int(quota) // int(period)))
        return count

    def oom_kills(self) -> int | None:
        """Processes that the kernel ended for want of memory: in this process's group, else on the machine.

        None where the kernel does not count (before 4.13).
        """
        for (
            group
        ) in self.memory_groups:  # the innermost; a kill is counted in the victim's group whatever the cause
            name = "memory.events" if group.version == 2 else "memory.oom_control"
            count = group.row(name, "oom_kill")
            if count is not None:
                return count
        found = re.search(r"^oom_kill (\d+)$", _text(self.root / "proc/vmstat"), re.MULTILINE)
        return int(found[1]) if found else None

    def _groups(self, controller: str) -> Iterator[Group]:
        """The groups with a controller that this process is in, from its own to the topmost that can be seen."""
        paths = _own_paths(_text(self.root / "proc/self/cgroup"))
        for mount, top, kind, options in _mounts(_text(self.root / "proc/self/mountinfo")):
            version = {"cgroup": 1, "cgroup2": 2}.get(kind)
            path = paths.get("" if version == 2 else controller)
            if version is None or path is None or (version == 1 and controller not in options):
                continue
            place = self.root / mount.lstrip("/")
            inside = os.path.relpath(path, top) if path.startswith(top) else "."
            folder = place if inside.startswith("..") else place / inside
            while True:
                if folder.is_dir():
                    yield Group(folder, version)
                if folder == place or place not in folder.parents:
                    break
                folder = folder.parent


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _meminfo(root: Path) -> dict[str, int]:
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(number) * 1024 for name, number in rows}


def _own_paths(text: str) -> dict[str, str]:
    """Controller to path; v2's path is under an empty name."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _mounts(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Mount point, root in the file system, kind and super options of each mount (proc(5), mountinfo)."""
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kinds = head.split(), tail.split()
        if len(fields) >= 5 and len(kinds) >= 3:
            yield _unescaped(fields[4]), _unescaped(fields[3]), kinds[0], kinds[2].split(",")


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _limits(group: Group) -> list[int | None]:
    if group.version == 2:
        return [group.number("memory.max"), group.number("memory.high")]
    return [group.number("memory.limit_in_bytes")]


def _smallest(numbers: list[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _swap(group: Group, machine: int) -> int:
    """Swap that a group may use."""
    if group.version == 2:
        limit = group.number("memory.swap.max")
        return machine if limit is None else limit
    both, memory = group.number("memory.memsw.limit_in_bytes"), group.number("memory.limit_in_bytes")
    return machine if both is None or memory is None else max(0, both - memory)


def _held(group: Group) -> int:
    """Bytes of a group that are no cache of files: what the kernel cannot just drop."""
    if group.version == 2:
        used, prefix = group.number("memory.current"), ""
    else:
        used, prefix = group.number("memory.usage_in_bytes"), "total_"
    cache = sum(group.row("memory.stat", f"{prefix}{kind}_file") or 0 for kind in ("active", "inactive"))
    return max(0, (used or 0) - cache)
