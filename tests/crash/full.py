"""Fill the disk at each stage of a real smoke build, and go on with room: evidence on demand (needs root, to mount).

    python tests/crash/full.py FOLDER [ROOM [STAGES]]

FOLDER gets a cache of its own (or a link to a filled one) and a disk image of 12 GiB, mounted, on which the tree and
the wheels are made; an image that a killed run left is gone on with. A run is cut in each stage (STAGES is a regular
expression on their names): when the output says that the stage before it has ended, everything but ROOM bytes (default
100 kB) of the disk is taken. A cut is right when the command ends with exit code 44 in a few lines. (In the compile
stage ccache is off, so that it is the compiler that meets the full disk.) Then the disk has room again and the same
command is typed; at the end the wheel must have the members of a build without a cut, byte for byte. One line a cut
goes to stdout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tear import COMMAND, PROJECT, members

GIB = 1 << 30
CUTS = {
    "fetch": "plan ",
    "provision": "patch ",
    "configure": "provision ",
    "compile": " to compile, ",
    "link": "[1/",
    "package": "compile ",
    "publish": "audit ",
}
"""Stage that is cut, and what the output says just before it."""


def build(folder: Path, mount: Path, cut: str, room: int) -> tuple[int, str]:
    """Type the command; the disk is full from the moment at which the output has a line with ``cut``."""
    blocker = mount / "blocker"
    places = {"CACHE": folder / "cache", "BUILD": mount / "build", "WHEELS": mount / "wheels"}
    environment = {**os.environ, **{f"VLLM_ARMORY_{name}": str(path) for name, path in places.items()}}
    if cut == CUTS["compile"]:
        environment["CCACHE_DISABLE"] = "1"
    said: list[str] = []
    with subprocess.Popen(
        COMMAND, cwd=PROJECT, env={**environment, "COLUMNS": "200"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        assert child.stdout
        for line in child.stdout:
            said.append(line)
            if cut and cut in line and not blocker.exists():
                with blocker.open("wb") as stream:
                    left = max(1, shutil.disk_usage(mount).free - room)
                    os.posix_fallocate(stream.fileno(), 0, left)
    blocker.unlink(missing_ok=True)
    return child.returncode, "".join(said)


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    room = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    mount, image = folder / "mount", folder / "image"
    mount.mkdir(parents=True, exist_ok=True)
    if not image.exists():
        with image.open("wb") as stream:
            stream.truncate(12 * GIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    if not mount.is_mount():
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    only = re.compile(sys.argv[3] if len(sys.argv) > 3 else "")
    cuts = {stage: mark for stage, mark in CUTS.items() if only.search(stage)}
    wrong, same = 0, False
    try:
        for stage, mark in cuts.items():
            for wheel in mount.glob("wheels/*.whl"):
                wheel.unlink()  # so that there is something to do
            started = time.monotonic()
            code, said = build(folder, mount, mark, room)
            error = said[said.find("error ") :] if "error " in said else said[-2000:]
            right = code == 44 and "Traceback" not in said and len(error) < 2000
            wrong += not right
            words = " | ".join(line.strip() for line in error.splitlines()[:3])
            print(
                f"{'ok ' if right else 'BAD'} {stage}: exit {code}, {time.monotonic() - started:.0f} s  {words}",
                flush=True,
            )
            if not right:
                print(said[-3000:])
        code, said = build(folder, mount, "", 0)
        found = members(mount / "wheels") if code == 0 else {}
        shutil.rmtree(mount / "build")
        (mount / "wheels").rename(mount / "first")
        again, _ = build(folder, mount, "", 0)
        same = code == again == 0 and found == members(mount / "wheels")
        print(
            f"{'ok ' if same else 'BAD'} whole after all that: exit {code}, {len(found)} members, as in a fresh tree"
        )
    finally:
        subprocess.run(["umount", mount], check=False)
        image.unlink()
    print(f"{len(cuts)} cuts, {wrong} wrong")
    return 1 if wrong or not same else 0


if __name__ == "__main__":
    sys.exit(main())
