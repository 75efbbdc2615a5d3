"""Source archives that try to write where they must not: refused, and nothing is left behind."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_recipes.formats.archive import unpack_sdist
from build_recipes.formats.bounds import is_plain, safe_member
from build_recipes.kit.errors import UnsafeArchive

Entry = tuple[str, bytes, str]
"""Name, type (a `tarfile` constant), content or link target."""


def write(path: Path, entries: list[Entry]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, text in entries:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = text
                tar.addfile(member)
            else:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
    return path


FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "entries",
    [
        [("v/../../evil", FILE, "x")],
        [("../evil", FILE, "x")],
        [("/evil", FILE, "x")],
        [("v/a\\..\\evil", FILE, "x")],
        [("v/link", LINK, "/etc"), ("v/link/evil", FILE, "x")],
        [("v/link", LINK, "../../evil")],
        [("v/link", LINK, ".."), ("v/link/evil", FILE, "x")],
        [("v/d/up", LINK, ".."), ("v/d/up/evil", FILE, "x")],
        [("v/hard", HARD, "../evil")],
        [("v/hard", HARD, "/etc/passwd")],
        [("v/hard", HARD, "v/none")],
        [("v/l", LINK, "a"), ("v/l", FILE, "x")],
        [("v/pipe", tarfile.FIFOTYPE, "")],
        [("v/device", tarfile.CHRTYPE, "")],
        [("v/a", FILE, "x"), ("w/a", FILE, "x")],
        [("a", FILE, "x")],
    ],
)
def test_a_member_that_leaves_is_refused(tmp_path: Path, entries: list[Entry]) -> None:
    inside = tmp_path / "inside"
    archive = write(tmp_path / "a.tar.gz", entries)
    with pytest.raises(UnsafeArchive):
        unpack_sdist(archive, inside / "tree")
    assert list(inside.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_good_archive_keeps_its_links_and_modes(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, mode in (("v/run.sh", 0o755), ("v/d/data", 0o600)):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, 2
            tar.addfile(member, io.BytesIO(b"ok"))
        link = tarfile.TarInfo("v/d/link")
        link.type, link.linkname = LINK, "../run.sh"
        tar.addfile(link)
        hard = tarfile.TarInfo("v/copy")
        hard.type, hard.linkname = HARD, "v/run.sh"
        tar.addfile(hard)
    tree = unpack_sdist(path, tmp_path / "tree")
    assert (tree / "d/link").read_text() == "ok"
    assert (tree / "copy").read_text() == "ok"
    assert (tree / "run.sh").stat().st_mode & 0o111
    assert (tree / "d/data").stat().st_mode & 0o777 == 0o644


def test_a_cut_archive_is_damaged_and_the_old_tree_stays(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar.gz", [("v/a", FILE, "old")])
    unpack_sdist(whole, tmp_path / "tree")
    big = write(tmp_path / "b.tar.gz", [(f"v/{n}", FILE, str(n) * 999) for n in range(99)])
    big.write_bytes(big.read_bytes()[:900])
    with pytest.raises(UnsafeArchive, match="damaged"):
        unpack_sdist(big, tmp_path / "tree")
    assert (tmp_path / "tree/a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "b.tar.gz", "tree"]


@given(st.text(alphabet="ab./\\\0", max_size=12))
def test_a_safe_member_stays_inside(name: str) -> None:
    try:
        path = safe_member(name, "archive")
    except UnsafeArchive:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert (Path("/root") / path).resolve().is_relative_to("/root")


@given(st.lists(st.text(alphabet="ab1._-\n:\\é", max_size=4), max_size=80).map("/".join))
def test_the_quick_way_past_it_takes_nothing_else(name: str) -> None:
    if is_plain(name):
        assert str(safe_member(name, "archive")) == name
