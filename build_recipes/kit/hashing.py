"""Hashes of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from build_recipes.kit.data import open_regular


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex; the file is read once, in blocks, whatever its size.

    :raises OSError: it cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
