"""Small wheels for tests, made the plain way (zipfile, hashlib): they check our own reader and writer."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

DATA = Path(__file__).parent / "data" / "inspect"


def digest(content: bytes) -> str:
    """SHA-256 as RECORD spells it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def make_wheel(
    folder: Path,
    members: Mapping[str, bytes],
    *,
    project: str = "vllm",
    version: str = "0.12.0",
    tag: str = "cp38-abi3-manylinux_2_31_aarch64",
    wheel_tag: str = "",
    requires: tuple[str, ...] = ("torch==2.11.0",),
    record: Mapping[str, str] | None = None,
) -> Path:
    """A wheel of some members; ``record`` replaces rows of RECORD (empty text drops one)."""
    info = f"{project}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nRequires-Python: >=3.10\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires) + "\nA body.\n\nVersion: not this\n"
    content = dict(members)
    content[f"{info}/METADATA"] = metadata.encode()
    content[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {wheel_tag or tag}\n"
    ).encode()
    rows = {name: f"{name},{digest(data)},{len(data)}" for name, data in content.items()}
    rows[f"{info}/RECORD"] = f"{info}/RECORD,,"
    rows |= record or {}
    content[f"{info}/RECORD"] = "".join(f"{row}\n" for row in rows.values() if row).encode()
    path = folder / f"{project}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def thor_wheel(folder: Path, **options: object) -> Path:
    """A wheel with one module that holds SASS for sm_110."""
    members = {"vllm/__init__.py": b"x = 1\n", "vllm/_C.abi3.so": (DATA / "thor.so").read_bytes()}
    return make_wheel(folder, members, **options)  # type: ignore[arg-type]
