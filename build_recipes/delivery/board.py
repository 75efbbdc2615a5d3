# mypy: ignore-errors
"""Run on a board, by its own python3: what the board is, and which files it has.

Its one argument is a JSON list of paths whose sizes and SHA-256 are wanted. Standard library alone, Python 3.8 or
newer; it reads, and writes nothing.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path


def text(path):
    try:
        with Path(path).open(errors="replace") as stream:
            return stream.read(4096).replace("\0", "\n").strip()
    except OSError:
        return ""


def release():
    rows = (line.partition("=") for line in text("/etc/os-release").splitlines())
    return {key: value.strip('"') for key, _, value in rows}


def memory():
    rows = (line.split() for line in text("/proc/meminfo").splitlines())
    found = {row[0].rstrip(":"): int(row[1]) << 10 for row in rows if len(row) > 1}
    return {"total": found.get("MemTotal"), "available": found.get("MemAvailable")}


def models():
    """Of the GPUs, as the driver names them."""
    told = (text(path) for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")))
    rows = (line.partition(":") for one in told for line in one.splitlines())
    return [value.strip() for key, _, value in rows if key == "Model"]


def digest(path):
    try:
        found = hashlib.sha256()
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                found.update(block)
        return {"size": path.stat().st_size, "sha256": found.hexdigest()}
    except OSError:
        return None


def main(files):
    home = str(Path.home())
    system = release()
    driver = text("/proc/driver/nvidia/version").splitlines()
    print(
        json.dumps(
            {
                "machine": platform.machine(),
                "system": system.get("PRETTY_NAME", ""),
                "kernel": platform.release(),
                "glibc": platform.libc_ver()[1],
                "python": platform.python_version(),
                "l4t": (text("/etc/nv_tegra_release").splitlines() or [""])[0],
                "compatible": text("/proc/device-tree/compatible").splitlines(),
                "gpus": models(),
                "driver": driver[0] if driver else "",
                "memory": memory(),
                "disk_free": shutil.disk_usage(home).free,
                "home": home,
                "root": os.geteuid() == 0,
                "cores": os.cpu_count(),
                "files": {path: digest(Path(path)) for path in files},
            }
        )
    )


main(json.loads(sys.argv[1]))
