"""Headers of a tar that are read the quick way are what `tarfile` reads; all others go to `tarfile`."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from build_recipes.formats.archive import Entry, entries
from build_recipes.kit.errors import DamagedArchive

NAMES = [
    "a.py",
    "p/" + "n" * 100,
    "d" * 90 + "/" + "e" * 99,
    "f" * 80 + "/" + "g" * 200,
    "ä/ö.py",
    "./p/x.py",
    "p/.h",
]
TIMES = [0, 1, 1_700_000_000, 1_700_000_000.123456, 2**33, 9e11, -1.5]


def made(kind: int, **more: str) -> bytes:
    """A tar of files with names, times, modes and sizes of all kinds."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind, pax_headers=more) as tar:
        for number, name in enumerate(NAMES):
            for step, moment in enumerate(TIMES):
                member = tarfile.TarInfo(f"{name}.{step}")
                if kind != tarfile.PAX_FORMAT:
                    moment = max(int(moment), 0)
                member.mtime, member.mode, member.size = moment, (0o755, 0o640)[step % 2], number * 511
                member.uname, member.gname, member.uid = "root" * (step % 2), "wheel", 1000 * step
                try:
                    tar.addfile(member, io.BytesIO(bytes(member.size)))
                except ValueError:
                    assert kind == tarfile.USTAR_FORMAT  # the name or a number does not fit
        folder = tarfile.TarInfo("folder")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    return sink.getvalue()


def told(archive: Path) -> list[tuple[object, ...]]:
    """What our reader tells."""

    def row(entry: Entry) -> tuple[object, ...]:
        return (
            entry.name,
            entry.kind,
            entry.size,
            entry.mtime,
            entry.executable,
            len(b"".join(entry.pieces())),
        )

    return [row(entry) for entry in entries(archive)]


def by_tarfile(archive: Path) -> list[tuple[object, ...]]:
    """What the standard library tells."""
    with tarfile.open(archive) as tar:
        return [
            (
                m.name.removeprefix("./"), "folder" if m.isdir() else "file", m.size,
                min(max(float(m.mtime), 0.0), 2.0**33), bool(m.mode & 0o100), m.size,
            )
            for m in tar
        ]  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("more", [{}, {"comment": "of all that follow", "mtime": "7.5"}])
def test_all_kinds_of_headers(tmp_path: Path, kind: int, more: dict[str, str]) -> None:
    """Names, times, modes and sizes are the same, with headers for all that follows, too."""
    archive = tmp_path / "a.tar"
    archive.write_bytes(made(kind, **more))
    assert len(told(archive)) > 20
    assert told(archive) == by_tarfile(archive)


def test_a_header_of_time_before_the_end(tmp_path: Path) -> None:
    """An extended header with nothing behind it is damage, not the end of the archive."""
    member = tarfile.TarInfo("a.py")
    member.mtime = 1.5
    head = member.tobuf(tarfile.PAX_FORMAT)[:1024]
    for tail in (bytes(1024), b"", head[:100], b"x" * 512):
        (tmp_path / "a.tar").write_bytes(head + tail)
        with pytest.raises(DamagedArchive):
            told(tmp_path / "a.tar")


def test_one_wrong_byte_of_a_header_is_told(tmp_path: Path) -> None:
    """The checksum is asked for every byte of a common header."""
    good = made(tarfile.PAX_FORMAT)
    for place in range(0, 1536, 13):
        if 512 <= place < 1024:
            continue  # the content of the extended header has no checksum
        (tmp_path / "a.tar").write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(DamagedArchive):
            told(tmp_path / "a.tar")
