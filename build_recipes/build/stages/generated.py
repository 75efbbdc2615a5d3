"""What CMake's configure writes among the sources (Marlin's and Machete's generated kernels), kept from looking new.

Generators write their files at each configure. Where the content is what it was, the file gets the time it had, so
that a configure alone makes no unit compile again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from build_recipes.kit.data import parse_json, write_atomic
from build_recipes.kit.hashing import file_sha256


def keep_times(sources: Path, since_ns: int, table: Path) -> None:
    """Give back their time to files below ``sources`` that were written again with the same content.

    :param since_ns: when the configure began, nanoseconds since the epoch.
    :param table: JSON file, path to hash and time, of the last configure; it is written anew.
    """
    before = _read(table)
    now: dict[str, list[object]] = {}
    for folder, _, files in os.walk(sources):
        for name in files:
            path = Path(folder) / name
            stat = path.lstat()
            key = path.relative_to(sources).as_posix()
            if path.is_symlink() or (stat.st_mtime_ns < since_ns and key not in before):
                continue
            digest, time_ns = file_sha256(path), stat.st_mtime_ns
            old = before.get(key)
            if old and old[0] == digest and isinstance(old[1], int) and time_ns >= since_ns:
                time_ns = old[1]
                os.utime(path, ns=(stat.st_atime_ns, time_ns))
            now[key] = [digest, time_ns]
    write_atomic(table, json.dumps(now, indent=0, sort_keys=True))


def _read(table: Path) -> dict[str, list[object]]:
    try:
        found = parse_json(table.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    rows = found.items() if isinstance(found, dict) else ()
    return {key: row for key, row in rows if isinstance(row, list) and len(row) == 2}
