"""Locks: the ones in the project are whole, an edit is noticed, the right wheels are picked."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from build_recipes.facts import versions
from build_recipes.kit import paths
from build_recipes.kit.errors import BadData, LockEdited, LockMissing, NotATag, UnknownTag, UnsupportedPair
from build_recipes.sources import parts
from build_recipes.sources.lockfile import Lock, diff_locks, load_lock, pick_wheels, save_lock

TAGS = sorted(path.stem for path in paths.LOCKS.glob("v*.toml"))


def test_every_release_from_0_11_1_on_has_its_lock() -> None:
    releases = {f"v{one}" for one in versions.facts().releases if Version(one) >= Version("0.11.1")}
    assert set(TAGS) == releases - {"v0.15.0"}, "0.15.0 has wheels on PyPI and no source distribution"


def test_locks_keep_what_they_have_in_common_once_and_nothing_is_left_over() -> None:
    there = {path.stem for path in (paths.LOCKS / "parts").glob("*.toml")}
    assert there == parts.used(paths.LOCKS)
    locks = [*paths.LOCKS.glob("*.toml"), *(paths.LOCKS / "parts").glob("*.toml")]
    assert sum(path.stat().st_size for path in locks) < 1_000_000


@pytest.mark.parametrize("tag", TAGS)
def test_a_lock_pins_everything_and_says_what_it_could_not(tag: str) -> None:
    lock = load_lock(tag)
    known = versions.for_version(lock.version)
    assert lock.vllm.sdist is not None
    assert lock.vllm.commit
    for file in lock.files():
        assert file.url.startswith("https://files.pythonhosted.org/packages/"), file.url
        assert len(file.sha256) == 64
        assert file.size > 0
        assert file.url.endswith(file.filename)
        assert not any(word in file.filename for word in ("macosx", "win_", "win32", "musllinux"))
    for tree in lock.trees:
        assert tree.commit or tree.unresolved, tree.name
        assert len(tree.commit) in (0, 40), tree.name
        if re.fullmatch(r"[0-9a-f]{40}", tree.revision):
            assert tree.commit == tree.revision, "the commit asked for is kept, also where nobody had it"
        for sub in tree.submodules:
            assert len(sub.commit) == 40
    assert bool(lock.cargo) == bool(known.rust)
    text = (paths.LOCKS / f"{tag}.toml").read_text()
    assert "/work" not in text
    assert "file://" not in text


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_each_python_and_machine_gets_one_wheel_of_each_project(tag: str, machine: str) -> None:
    lock = load_lock(tag)
    for python in versions.for_version(lock.version).pythons():
        for group in ("torch", "torch-deps", "cuda", "build"):
            picked = pick_wheels(lock, group, machine=machine, python=python, glibc=(2, 39))
            pool = lock.torch_pin().files if group.startswith("torch") else lock.wheels
            projects = {pin.project for pin in pool if pin.group == group}
            assert {pin.project for pin in picked} == projects, f"{group} {python} {machine}"
            for pin in picked:
                platforms = {tag.platform for tag in parse_wheel_filename(pin.filename)[3]}
                assert any(platform == "any" or platform.endswith(machine) for platform in platforms)
    cuda = {pin.project for pin in lock.wheels if pin.group == "cuda"}
    assert {
        "nvidia-cuda-nvcc",
        "nvidia-nvvm",
        "nvidia-cuda-crt",
        "nvidia-cuda-runtime",
        "nvidia-cuda-cccl",
    } <= cuda


def test_an_older_glibc_gets_fewer_wheels() -> None:
    lock = load_lock("v0.12.0")
    new = pick_wheels(lock, "torch", machine="aarch64", python=(3, 12), glibc=(2, 36))
    assert [pin.filename for pin in new] == ["torch-2.11.0-cp312-cp312-manylinux_2_28_aarch64.whl"]
    assert pick_wheels(lock, "torch", machine="aarch64", python=(3, 12), glibc=(2, 27)) == []


def test_the_lock_of_0_12_0_says_what_is_known_of_it() -> None:
    lock = load_lock("v0.12.0")
    assert lock.vllm.commit.startswith("4fd9d6a85")
    assert lock.tree("cutlass").revision == "v4.2.1"
    assert lock.tree("cutlass").commit == "f3fde58372d33e9a5650ba7b80fc48b3b49d40c8"
    flash = {sub.path: sub for sub in lock.tree("vllm-flash-attn").submodules}
    assert flash["csrc/cutlass"].commit == "62750a2b75c802660e4894434dc55e839f322277"
    assert flash["csrc/cutlass"].skip == ""
    assert flash["csrc/composable_kernel"].skip
    assert [pin.version for pin in lock.torch] == ["2.9.0", "2.11.0"]
    assert lock.torch[1].cuda == "13.0"
    triton = lock.tree("triton_kernels")
    assert triton.commit or (triton.from_wheel and len(triton.from_wheel.members) == 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(paths.LOCKS / "v0.12.0.toml", tmp_path)
    return tmp_path


def test_a_lock_is_the_same_after_it_was_written_again(folder: Path) -> None:
    before = (folder / "v0.12.0.toml").read_text()
    save_lock(load_lock("v0.12.0", folder), folder)
    assert (folder / "v0.12.0.toml").read_text() == before


def test_an_edited_lock_is_refused(folder: Path) -> None:
    path = folder / "v0.12.0.toml"
    path.write_text(path.read_text().replace("f3fde58372d33e", "f3fde58372d33f", 1))
    with pytest.raises(LockEdited, match="was changed") as caught:
        load_lock("v0.12.0", folder)
    assert "./inv lock --tag v0.12.0" in caught.value.advice
    path.rename(folder / "v0.13.0.toml")
    shutil.copy(paths.LOCKS / "v0.12.0.toml", folder / "v0.14.0.toml")
    with pytest.raises(LockEdited):
        load_lock("v0.14.0", folder)  # another tag's lock under this name


def test_an_edited_or_absent_part_is_noticed(folder: Path) -> None:
    save_lock(load_lock("v0.12.0", folder), folder)
    assert load_lock("v0.12.0", folder) == load_lock("v0.12.0")
    part = next((folder / "parts").glob("torch-*.toml"))
    part.write_text(part.read_text().replace('sha256 = "', 'sha256 = "0', 1))
    with pytest.raises(LockEdited, match="was changed"):
        load_lock("v0.12.0", folder)
    lock = folder / "v0.12.0.toml"
    for other in ("torch-2.11.0-0000000000000000", "../parts/x"):
        lock.write_text(lock.read_text().replace(part.stem, other))
        with pytest.raises(BadData, match="part"):
            load_lock("v0.12.0", folder)
        lock.write_text(lock.read_text().replace(other, part.stem))


def test_a_broken_lock_is_bad_data(folder: Path) -> None:
    (folder / "v0.12.0.toml").write_text("schema = [")
    with pytest.raises(BadData):
        load_lock("v0.12.0", folder)


def test_no_lock_is_another_error_than_no_tag(tmp_path: Path) -> None:
    with pytest.raises(LockMissing, match=r"v0\.13\.0") as caught:
        load_lock("v0.13.0", tmp_path)
    assert "./inv lock --tag v0.13.0" in caught.value.advice
    with pytest.raises(LockMissing):
        load_lock("v99.0.0", tmp_path)  # newer than all we know: it may well be there
    with pytest.raises(UnknownTag, match=r"nearest are v0\.12\.0, v0\.13\.0"):
        load_lock("v0.12.7", tmp_path)
    for wrong in ("main", "releases/v0.12.0", "4fd9d6a85", "0.12.0", "../v0.12.0", "v0.12/../../x"):
        with pytest.raises(NotATag):
            load_lock(wrong, tmp_path)


def test_diff_says_what_moved_and_nothing_else() -> None:
    a = load_lock("v0.12.0")
    assert diff_locks(a, a) == []
    moved = [
        msgspec.structs.replace(tree, commit="1" * 40) if tree.name == "cutlass" else tree for tree in a.trees
    ]
    b: Lock = msgspec.structs.replace(a, trees=moved)
    (change,) = diff_locks(a, b)
    assert change.what == "tree cutlass"
    assert "f3fde58372d33" in change.before
    assert "1111111" in change.after
    assert {change.what for change in diff_locks(a, load_lock("v0.14.0"))} >= {"vllm", "tree vllm-flash-attn"}


def test_ranges_of_versions_do_not_overlap_and_have_no_gap() -> None:
    entries = versions.facts().ranges
    for older, newer in itertools.pairwise(entries):
        assert older.before == newer.since
    assert versions.for_version("0.13.5").torch == "2.9.0"
    assert versions.for_version("0.22.1").rust == "1.95"
    with pytest.raises(UnknownTag):
        versions.for_version("0.9.0")
    with pytest.raises(UnsupportedPair, match=r"no 11\.0"):
        versions.for_version("0.11.0").check_device("v0.11.0", "thor")
    versions.for_version("0.12.0").check_device("v0.12.0", "thor")
