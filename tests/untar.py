"""Unpack a tar of our own, on each Python: 3.11.2 of Debian 12 has no ``filter`` yet, 3.14 wants one."""

from __future__ import annotations

import tarfile
from pathlib import Path


def untar(archive: Path, into: Path) -> None:
    """Unpack everything into a folder.

    An older Python passes the attribute over: tarfile, "Supporting older Python versions".
    """
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        tar.extractall(into)  # noqa: S202 (our own files)
