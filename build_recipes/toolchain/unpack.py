"""Unpacking many wheels into one folder, once.

The folder is named after the hashes of what is in it (see `kit.once`): a second build of the same lock finds it.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from build_recipes.kit.errors import UnsafeArchive

Select = Callable[[str], bool]


def digest_of(names: Sequence[str]) -> str:
    """Twelve hex digits that name a set of inputs, in any order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


def unpack_wheel(wheel: Path, into: Path, select: Select = lambda name: True) -> None:
    """Unpack the members of a wheel that ``select`` takes.

    :raises UnsafeArchive: a member would land outside ``into``; nothing of it was written.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                pure = PurePosixPath(member.filename)
                if pure.is_absolute() or ".." in pure.parts:
                    raise UnsafeArchive(
                        f"{wheel.name} has a member that climbs out of its folder: {member.filename}",
                        f"remove {wheel} and fetch it again; if it stays, report it",
                    )
                if member.is_dir() or not select(member.filename):
                    continue
                target = into / pure
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                if member.external_attr >> 16 & 0o111:
                    target.chmod(0o755)
    except zipfile.BadZipFile as error:
        raise UnsafeArchive(
            f"{wheel} is no whole zip archive: {error}", f"remove {wheel} and run again"
        ) from error
