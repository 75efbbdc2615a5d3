"""Archives made to hurt: each ends in one family of errors, nothing lands outside, and little memory is used."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from build_recipes.formats.archive import entries, unpack, unpack_sdist
from build_recipes.formats.bounds import Bounds, Names
from build_recipes.formats.inflate import Archive
from build_recipes.kit.errors import DamagedArchive, UnsafeArchive

FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def tar(*members: tuple[str, bytes, str], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Plain bytes of a tar: name, type, content or target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind in (LINK, HARD):
                member.linkname = text
                archive.addfile(member)
            else:
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def raw(name: bytes, kind: bytes, size: int, body: bytes = b"") -> bytes:
    """One tar record, as a hostile hand writes it."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108], head[108:116], head[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    head[124:136], head[136:148] = b"%011o\0" % size, b"00000000000\0"
    head[156:157], head[257:265] = kind, b"ustar\x0000"
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + body + bytes(-len(body) % 512)


END = bytes(1024)


def links(*chain: tuple[str, str]) -> bytes:
    return tar(("v/f", FILE, "x"), *((name, LINK, target) for name, target in chain))


TARS = {
    "a chain of links that ends outside": links(
        ("v/a", "b/.."), ("v/b", "c/../.."), ("v/c", "."), ("v/d", "a/../x")
    ),
    "a link to a link outside": links(("v/sub/a", ".."), ("v/b", "sub/a/.."), ("v/c", "b/../../etc")),
    "a link to beside the top folder": links(("v/a", "../other")),
    "a circle": links(("v/a", "b"), ("v/b", "a")),
    "a link to itself": links(("v/a", "a/a")),
    "a link to nowhere at all": links(("v/a", "")),
    "a target that is too long": links(("v/a", "x/" * 600)),
    "a file, then a folder": tar(("v/a", FILE, "x"), ("v/a/b", FILE, "y")),
    "a folder, then a file": tar(("v/a/b", FILE, "x"), ("v/a", FILE, "y")),
    "a file below a link that comes later": tar(("v/a/b", FILE, "x"), ("v/a", LINK, "c")),
    "a file through a link": tar(("v/a", LINK, "c"), ("v/a/b", FILE, "x")),
    "300 characters": tar(("v/" + "n" * 300, FILE, "x")),
    "a path of 2000 folders": tar(("v/" + "d/" * 2000 + "x", FILE, "x")),
    "a name of control characters": tar(("v/\x1b[2J", FILE, "x")),
    "a name that is no UTF-8": raw(b"v/\xff\xfe", b"0", 0) + END,
    "a hard link outside": tar(("v/a", HARD, "/etc/passwd")),
    "a pipe": tar(("v/a", tarfile.FIFOTYPE, "")),
    "a device": tar(("v/a", tarfile.CHRTYPE, "")),
    "a sparse file": raw(b"v/a", b"S", 0) + END,
    "two top folders": tar(("v/a", FILE, "x"), ("w/a", FILE, "x")),
    "no top folder": tar(("a", FILE, "x")),
    "nothing": END,
    "a file for its top folder": tar(("v", FILE, "x")),
    "more than it has": raw(b"v/a", b"0", 1 << 33),
    "a negative size": raw(b"v/a", b"0", 0)[:124] + b"\xff" * 12 + raw(b"v/a", b"0", 0)[136:] + END,
    "no end": raw(b"v/a", b"0", 0),
    "damage after the first member": tar(("v/a", FILE, "x"))[:1024] + b"no header" * 57 + END,
    "an extended header of 8 GiB": raw(b"v/a", b"x", 1 << 33),
    "a long name of 8 GiB": raw(b"v/a", b"L", 1 << 33),
    "extended headers for ever": raw(b"v/a", b"x", 0) * 5000 + raw(b"v/a", b"0", 0) + END,
    "long names for ever": raw(b"././@LongLink", b"L", 1, b"x") * 5000 + END,
    "text": b"no archive at all\n" * 99,
    "an empty file": b"",
}


@pytest.mark.parametrize("name", TARS)
def test_hostile_tars(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(TARS[name]))
    (tmp_path / "in").mkdir()
    with pytest.raises(UnsafeArchive) as caught:
        unpack_sdist(tmp_path / "a.tar.gz", tmp_path / "in/tree")
    assert str(caught.value).replace("\n", "").isprintable()
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize("packer", PACKERS)
def test_every_packing_is_read_and_every_cut_is_told(tmp_path: Path, packer: str) -> None:
    body = os.urandom(3000)
    plain = raw(b"v/data", b"0", len(body), body) + raw(b"v/run", b"0", 2, b"ok") + END
    packed = PACKERS[packer](plain)
    path = tmp_path / "a"
    path.write_bytes(packed)
    assert {str(entry.path): entry.read() for entry in entries(path)} == {"v/data": body, "v/run": b"ok"}
    for cut in range(0, len(packed) - 1024 if packer == "tar" else len(packed), 97):
        path.write_bytes(packed[:cut])
        with pytest.raises(DamagedArchive):
            for entry in entries(path):
                entry.read()


@pytest.mark.parametrize("packer", [name for name in PACKERS if name != "tar"])
@pytest.mark.parametrize("kind", ["0", "x", "zeros"])
def test_bombs_end_early_and_small(tmp_path: Path, packer: str, kind: str) -> None:
    head = b"" if kind == "zeros" else raw(b"v/a", kind.encode(), 100 << 20)
    path = tmp_path / "bomb"
    path.write_bytes(PACKERS[packer](head + bytes(100 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "into").mkdir()
    with pytest.raises(UnsafeArchive):
        unpack(path, tmp_path / "into", top=True)
    assert sum(file.stat().st_size for file in (tmp_path / "into").rglob("*")) <= 64 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_copies_by_hard_links_count_as_what_they_write(tmp_path: Path) -> None:
    body = bytes(10 << 20)
    plain = raw(b"v/a", b"0", len(body), body)
    linked = b"".join(
        raw(b"v/%d" % number, b"1", 0)[:157] + b"v/a".ljust(100, b"\0") + raw(b"v", b"1", 0)[257:]
        for number in range(99)
    )
    fixed = bytearray()
    for at in range(0, len(linked), 512):
        head = bytearray(linked[at : at + 512])
        head[148:156] = b"        "
        head[148:156] = b"%06o\0 " % sum(head)
        fixed += head
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(plain + bytes(fixed) + END))
    (tmp_path / "into").mkdir()
    with pytest.raises(UnsafeArchive, match="copies"):
        unpack(path, tmp_path / "into", top=True)


def test_good_links_of_all_kinds_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(links(("v/d/up", "../f"), ("v/b", "d/up"), ("v/dangles", "not/there"), ("v/here", ".")))
    tree = unpack_sdist(path, tmp_path / "tree")
    assert (tree / "b").read_text() == (tree / "here/here/d/up").read_text() == "x"
    assert (tree / "dangles").readlink() == Path("not/there")


def test_a_tar_whose_first_member_begins_with_pk_is_a_tar(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(tar(("PKG-INFO", FILE, "x"), form=tarfile.USTAR_FORMAT))
    assert [str(entry.path) for entry in entries(tmp_path / "a")] == ["PKG-INFO"]


# -- zips ----------------------------------------------------------------------------------------


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def changed(at: int, layout: str, *values: int, base: bytes | None = None) -> bytes:
    """A zip whose row in the table is changed."""
    data = bytearray(base or zipped(("a/b", b"x" * 100)))
    struct.pack_into(layout, data, data.find(b"PK\1\2") + at, *values)
    return bytes(data)


GOOD = zipped(("a/b", b"x" * 100), ("c", b"y"))
ZIPS = {
    "encrypted": changed(8, "<H", 1),
    "strongly encrypted": changed(8, "<H", 0x41),
    "patched": changed(8, "<H", 0x20),
    "a masked table": changed(8, "<H", 0x2000),
    "an odd method": changed(10, "<H", 99),
    "bzip2 inside": zipped(("a", b"x" * 999), method=zipfile.ZIP_BZIP2),
    "an odd version": changed(6, "<H", 79),
    "another disk": changed(34, "<H", 7),
    "a name that is no UTF-8": changed(
        8, "<H", 0x800, base=zipped(("a/\u00ff", b"x")).replace(b"\xc3\xbf", b"\xff\xff")
    ),
    "another name in the header": GOOD.replace(b"a/b", b"a/c", 1),
    "a size that is not so": changed(24, "<L", 99),
    "a bomb by its word": changed(24, "<L", 0xFFFFFFF0),
    "a bomb": zipped(("a", bytes(80 << 20))),
    "a CRC that is not so": changed(16, "<L", 1),
    "an offset past the end": changed(42, "<L", 0x7FFFFFFF),
    "bytes before": b"#!/bin/sh\n" + GOOD,
    "bytes behind": GOOD + b"more",
    "a comment": GOOD[:-2] + b"\x04\0more" + b"x",
    "more rows than there are": GOOD[:-22] + GOOD[-22:].replace(b"\x02\0\x02\0", b"\x09\0\x09\0"),
    "fewer rows than there are": GOOD[:-22] + GOOD[-22:].replace(b"\x02\0\x02\0", b"\x01\0\x01\0"),
    "a file, then a folder": zipped(("a", b"x"), ("a/b", b"y")),
    "twice the same": zipped(("a", b"x"), ("a/", b"")),
    "an odd path": zipped(("a//b", b"x")),
    "a drive": zipped(("C:evil", b"x")),
    "climbs": zipped(("../evil", b"x")),
    "absolute": zipped(("/tmp/evil", b"x")),
    "a name of 300": zipped(("n" * 300, b"x")),
    "depth": zipped(("d/" * 500 + "x", b"x")),
    "control characters": zipped(("a\nb", b"x")),
    "no table": zlib.compress(b"x" * 99),
    "a large table far away": GOOD[:-22] + struct.pack("<4sLQL", b"PK\6\7", 0, 1 << 62, 1) + GOOD[-22:],
}


@pytest.mark.parametrize("name", ZIPS)
def test_hostile_zips(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(ZIPS[name])
    (tmp_path / "into").mkdir()
    with pytest.raises(UnsafeArchive) as caught:
        unpack(path, tmp_path / "into")
        with Archive(path) as archive:  # what is not a zip by its first bytes is none by its last ones
            archive.read("a/b")
    assert str(caught.value).replace("\n", "").isprintable()


def test_a_table_of_millions_of_rows_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    row = GOOD[GOOD.find(b"PK\1\2") : GOOD.find(b"PK\1\2") + 49]
    path.write_bytes(
        row * 2_000_000 + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 49 * 2_000_000, 0, 0)
    )
    with pytest.raises(DamagedArchive, match="table"):
        Archive(path)


def test_a_large_zip64_wheel_is_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(66_000):
            archive.writestr(f"d/{number}", b"")
        with archive.open("d/long", "w", force_zip64=True) as sink:
            sink.write(b"long")
    (tmp_path / "a.whl").write_bytes(out.getvalue())
    with Archive(tmp_path / "a.whl") as archive:
        assert len(archive.members) == 66_001
        assert archive.read("d/long") == b"long"


def test_pipes_folders_and_absent_files_are_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(DamagedArchive, match="cannot be read"):
            list(entries(path))
        with pytest.raises(DamagedArchive, match="cannot be read"):
            Archive(path)


def test_a_disk_that_takes_no_more_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar(("v/a", FILE, "x" * 9999)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            unpack(path, tmp_path, top=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_bounds_are_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar(*((f"v/{number}", FILE, "xx") for number in range(9))))
    for bounds in (Bounds(members=3), Bounds(member=1), Bounds(total=10)):
        with pytest.raises(UnsafeArchive):
            list(entries(path, bounds))
    assert Names("x", Bounds()).kinds == {}
