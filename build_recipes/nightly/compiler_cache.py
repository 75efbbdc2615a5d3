"""ccache's folder between nights: one cache a device, whichever of its jobs compiled what.

The jobs of a device run at the same time on machines that begin empty. Each reads the device's cache and hands over
what it gained; after them all, the gains are merged into the cache, which is cut to its size and saved where
something came in. Entries of ccache are files that are named by a hash of what was compiled (``R`` a result, ``M`` a
manifest, ``W`` a raw file), so the same name is the same thing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from build_recipes.kit.errors import UsageError

ENTRY = re.compile(r"[0-9a-z]{20,}(?:R|M|\.?\w*W)")
USED = "used.txt"
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
"""Of ccache's max_size: powers of ten; ``G`` where none is named."""


@dataclass(frozen=True)
class Merged:
    """What became of a cache."""

    gained: int
    """Entries that came in."""
    entries: int
    bytes: int
    removed: int
    """Entries that had to go, those that were not used for the longest time first."""


def entries(folder: Path) -> dict[str, os.stat_result]:
    """Entries of a cache by their path in it."""
    found = {}
    for place, _, files in os.walk(folder):
        for name in files:
            if ENTRY.fullmatch(name):
                path = Path(place, name)
                with contextlib.suppress(OSError):
                    found[path.relative_to(folder).as_posix()] = path.stat()
    return found


def hand_over(before: Mapping[str, os.stat_result], cache: Path, to: Path) -> int:
    """Copy what a cache gained into a folder, with a list of what else was used. Returns how many entries it gained.

    :param before: `entries` of it before the job.
    """
    to.mkdir(parents=True, exist_ok=True)
    gained, used = [], []
    for name, status in entries(cache).items():
        old = before.get(name)
        if old is None or old.st_size != status.st_size:
            gained.append(name)
        elif old.st_mtime_ns != status.st_mtime_ns:  # ccache touches what it takes
            used.append(name)
    for name in gained:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(cache / name, to / name)
    (to / USED).write_text("".join(f"{name}\n" for name in sorted(used)), encoding="utf-8")
    return len(gained)


def merge(cache: Path, gains: Iterable[Path], size: int) -> Merged:
    """Bring what jobs gained into a cache, and cut it to its size.

    :param gains: folders that `hand_over` made, or folders of them.
    :param size: bytes it may have.
    """
    gained = 0
    for folder in sorted({path.parent for gain in gains for path in gain.rglob(USED)}):
        there = entries(cache)
        for name, status in entries(folder).items():
            if name not in there or there[name].st_size != status.st_size:
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(folder / name, cache / name)
                gained += 1
        for name in (folder / USED).read_text(encoding="utf-8", errors="replace").splitlines():
            if name in there:
                os.utime(cache / name)
    kept = entries(cache)
    total, removed = sum(status.st_size for status in kept.values()), 0
    for name, status in sorted(kept.items(), key=lambda item: item[1].st_mtime_ns):
        if total <= size:
            break
        (cache / name).unlink()
        total, removed = total - status.st_size, removed + 1
    return Merged(gained, len(kept) - removed, total, removed)


def parse_size(text: str) -> int:
    """Bytes of ccache's ``1.25G``.

    :raises UsageError: it is none.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([kMGT]?)B?", text.strip())
    if not found:
        raise UsageError(f"'{text}' is not a size of a cache", "--size 1.25G")
    return int(float(found[1]) * UNITS[found[2] or "G"])
