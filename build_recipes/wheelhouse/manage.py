"""`./inv index` and `./inv retag`: from what was typed to what is shown."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from build_recipes.audit.run import check_named
from build_recipes.kit import console
from build_recipes.kit.errors import NotAWheel, UsageError
from build_recipes.kit.paths import Places
from build_recipes.wheelhouse.index import write_index
from build_recipes.wheelhouse.rewrite import Edits, rewrite
from build_recipes.wheelhouse.serve import server


def index(*, serve: bool, port: int, json: bool) -> None:
    """Write the index of wheels/, show it, serve it where that is asked.

    :raises ArmoryError: see `write_index` and `server`.
    """
    wheels = Places.from_environment().wheels
    entries = write_index(wheels)
    if json:
        console.emit_json([dataclasses.asdict(entry) for entry in entries])
    else:
        rows = [[one.project, one.version, console.size(one.size), one.file, one.sha256] for one in entries]
        console.table(f"{wheels}", ["project", "version", "size", "file", "sha256"], rows)
    if serve:
        running = server(wheels, port)
        address = f"http://127.0.0.1:{running.server_address[1]}/simple/"
        console.say(f"serving {address} (Ctrl-C ends it)")
        console.say(f"next  pip install --index-url {address} vllm")
        with running:
            running.serve_forever()


def retag(wheel: str, *, platform: str, version: str, requires: tuple[str, ...], to: str) -> None:
    """Rewrite a wheel.

    :raises ArmoryError: see `rewrite`.
    """
    check_named(wheel, "retag")
    path = Path(wheel).expanduser()
    if not path.is_file():
        raise NotAWheel(f"{path} does not exist", "give a .whl file")
    lines = {}
    for line in requires:
        try:
            lines[Requirement(line).name] = line
        except InvalidRequirement as error:
            raise UsageError(f"'{line}' is no requirement", "write it as torch==2.11.0") from error
    started = time.monotonic()
    done = rewrite(
        path,
        Path(to).expanduser() if to else path.parent,
        Edits(version=version, platform=platform, requires=lines),
    )
    console.say(
        f"{done} ({console.size(done.stat().st_size)}, {console.duration(time.monotonic() - started)})"
    )
