"""setup.py and CMake of every release's source distribution on PyPI, 0.11.1 to 0.33.0."""

from __future__ import annotations

import tarfile
from pathlib import Path

PACKED = Path(__file__).parent / "data/cmake/sdists-0.11.1-0.33.0.tar.xz"
with tarfile.open(PACKED) as _tar:
    VERSIONS = sorted({name.split("/")[1] for name in _tar.getnames()})
