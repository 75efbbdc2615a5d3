"""An installed copy of a project, read with the interface of a wheel."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.utils import canonicalize_name

from build_recipes.formats.bounds import safe_member
from build_recipes.formats.inflate import Content
from build_recipes.formats.wheel import Recorded, parse_record
from build_recipes.kit.errors import NotAWheel, UnsafeArchive

_ADVICE = "give a .whl file, or the site-packages folder that vllm is installed in"


@dataclass(frozen=True)
class InstalledFile:
    """One file of an installed copy."""

    file_size: int

    @property
    def compress_size(self) -> int:
        """Its size on disk: nothing is packed here."""
        return self.file_size


class Installed:
    """What pip unpacked: the files that RECORD names below a site-packages folder.

    :param folder: the site-packages folder, or the project's own folder in it.
    :raises NotAWheel: the project is not installed there.
    """

    def __init__(self, folder: Path, project: str = "vllm") -> None:
        root = folder.parent if (folder / "__init__.py").exists() else folder
        found = [path for path in root.glob("*.dist-info") if (path / "METADATA").is_file()]
        own = [path for path in found if canonicalize_name(path.name.split("-")[0]) == project]
        if not own:
            raise NotAWheel(f"{project} is not installed in {root}", _ADVICE)
        self.path, self.root, self.dist_info = own[0], root, own[0].name
        self.metadata = self._headers("METADATA")
        self.wheel = self._headers("WHEEL")
        self.name = str(canonicalize_name(self.metadata.get("Name", "")))
        self.version: str = self.metadata.get("Version", "")
        self.tags = tuple(sorted(self.wheel.get_all("Tag", [])))
        self.requires = tuple(self.metadata.get_all("Requires-Dist", []))
        self.members: dict[str, InstalledFile] = {}
        for name in self.record():
            with contextlib.suppress(
                UnsafeArchive, OSError
            ):  # pip's scripts are elsewhere; the rest is not there
                path = root / safe_member(name, str(root))
                if path.is_file():
                    self.members[name] = InstalledFile(path.stat().st_size)

    def __enter__(self) -> Installed:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _headers(self, name: str) -> Message:
        return HeaderParser().parsestr(self.text(f"{self.dist_info}/{name}"))

    def text(self, name: str) -> str:
        """A text file.

        :raises NotAWheel: it is not there or no text.
        """
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotAWheel(f"{self.root / name} cannot be read: {error}", _ADVICE) from error

    def file_tags(self) -> tuple[str, ...]:
        """Tags: an installed copy has only those of WHEEL."""
        return self.tags

    def record(self) -> dict[str, Recorded]:
        """RECORD by path, without what pip wrote itself (scripts, byte code, its own notes)."""
        rows = parse_record(self.text(f"{self.dist_info}/RECORD"), self.dist_info)
        own = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
        return {
            name: row
            for name, row in rows.items()
            if ".." not in name.split("/") and not name.endswith(".pyc") and name.split("/")[-1] not in own
        }

    def content(self, name: str) -> Content:
        """A file, mapped, with its digest."""
        with (self.root / name).open("rb") as stream:
            if not self.members[name].file_size:
                return Content(memoryview(b""), hashlib.sha256().digest())
            data = memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
        return Content(data, hashlib.sha256(data).digest())

    def head(self, name: str) -> bytes:
        """A file's first four bytes."""
        with (self.root / name).open("rb") as stream:
            return stream.read(4)

    def digest(self, name: str) -> bytes:
        """SHA-256 of a file."""
        return hashlib.sha256((self.root / name).read_bytes()).digest()
