"""Sources that are no release: own version, own lock, own name; a release's lock is never written for them.

The source is a real release's, unpacked; git is real.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import setuptools_scm
from packaging.version import Version
from untar import untar

from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.kit import paths
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import LockEdited, LockMissing, NotATag, UsageError
from build_recipes.kit.paths import Places
from build_recipes.sources import own
from build_recipes.sources.checkout import checkout
from build_recipes.sources.lockfile import digest_of, load_lock, lock_text
from build_recipes.sources.scm import describe, next_version

SDISTS = Path(__file__).parent / "data/cmake/sdists-0.11.1-0.33.0.tar.xz"
REQUIREMENTS = (
    "cmake>=3.26.1\nninja\npackaging>=24.2\nsetuptools>=77.0.3\ntorch==2.11.0\nwheel\njinja2>=3.1.6\n"
)
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@e.org", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run([*GIT, "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    for name in ("CACHE", "BUILD", "WHEELS"):
        monkeypatch.setenv(f"VLLM_ARMORY_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr(paths, "configuration_files", list)
    return Places.from_environment()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """vLLM 0.26.0's CMake files and setup.py, as somebody's folder without git."""
    untar(SDISTS, tmp_path / "x")  # one file of several releases is there once, and linked
    folder = tmp_path / "x/0.26.0"
    for name, text in {"vllm/__init__.py": "", "requirements/build/cuda.txt": REQUIREMENTS}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Path(shutil.move(folder, tmp_path / "my-vllm"))


@pytest.fixture
def repository(tree: Path) -> Path:
    """The same as a git repository: v0.26.0, then two commits."""
    subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "release")
    git(tree, "tag", "v0.26.0")
    for number in (1, 2):
        (tree / "vllm/__init__.py").write_text(f"x = {number}\n")
        git(tree, "commit", "-qam", f"change {number}")
    return tree


def plan_of(places: Places, tag: str = "", source: str = "sdist") -> Plan:
    return make_plan(Request(device="thor", tag=tag, source=source), places)


def test_a_folder_has_its_own_version_and_name_and_the_release_lock_stays(places: Places, tree: Path) -> None:
    before = (paths.LOCKS / "v0.26.0.toml").read_bytes()
    with pytest.raises(UsageError, match="nothing says which version") as caught:
        plan_of(places, source=str(tree))
    assert "SETUPTOOLS_SCM_PRETEND_VERSION=" in caught.value.advice
    made = plan_of(places, tag="v0.26.0", source=str(tree))
    release = plan_of(places, tag="v0.26.0")
    assert made.version == "0.26.0"
    assert made.wheel_version.startswith("0.26.0+s")
    assert made.wheel_version != release.wheel_version
    assert made.tree != release.tree
    assert made.fingerprint != release.fingerprint
    assert [t.commit for t in made.lock.trees] == [t.commit for t in release.lock.trees], (
        "the same pins stand in"
    )
    assert (paths.LOCKS / "v0.26.0.toml").read_bytes() == before
    (tree / "vllm/__init__.py").write_text("changed = 1\n")
    later = plan_of(places, tag="v0.26.0", source=str(tree))
    assert later.wheel_version != made.wheel_version
    assert later.fingerprint != made.fingerprint
    assert later.tree == made.tree, "one build tree, which follows its source"


def test_a_lock_of_a_folder_without_git_can_be_read_again(places: Places, tree: Path) -> None:
    source = own.own_source("v0.26.0", str(tree), places)
    assert source
    assert source.commit == ""
    lock = msgspec.structs.replace(
        load_lock("v0.26.0"), tag=source.name, vllm=source.pin, official=[], digest=""
    )
    where = own.own_lock_path(source, places)
    write_atomic(where, lock_text(msgspec.structs.replace(lock, digest=digest_of(lock))))
    assert own.own_lock(source, places).official == [], "its own, not the release's that stands in"


def test_the_version_is_setuptools_scms(repository: Path, tmp_path: Path, places: Places) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    version, found = own.version_of(repository)
    theirs = setuptools_scm.get_version(repository, local_scheme="no-local-version")
    assert (version, found) == (theirs, commit) == ("0.26.1.dev2", commit)
    made = plan_of(places, source=str(repository))
    assert made.wheel_version.startswith(f"0.26.1.dev2+g{commit[:9]}.s")
    for tag in ("v0.27.0rc1", "v0.27.0", "v0.27.0.post1", "v1.0"):
        git(repository, "tag", "-f", tag)
        assert own.version_of(repository)[0] == setuptools_scm.get_version(
            repository, local_scheme="no-local-version"
        )
        (repository / "more").write_text(tag)
        git(repository, "add", "-A")
        git(repository, "commit", "-qm", tag)
        theirs = setuptools_scm.get_version(repository, local_scheme="no-local-version")
        assert Version(next_version(describe(repository))) == Version(theirs), tag


def test_a_branch_a_commit_and_a_candidate_are_brought_and_pinned(places: Places, repository: Path) -> None:
    mirror = {"github.com/vllm-project/vllm": repository}
    git(repository, "tag", "v0.26.1rc1")
    for ref in ("main", git(repository, "rev-parse", "HEAD~1"), "v0.26.1rc1"):
        with pytest.raises(LockMissing) as caught:
            plan_of(places, tag=ref)
        assert caught.value.advice.endswith(f"./inv lock --tag {ref}")
        checkout(ref, str(own.folder_of(ref, places)), places, mirrors=mirror)
        made = plan_of(places, tag=ref)
        assert made.version == {"main": "0.26.1rc1", "v0.26.1rc1": "0.26.1rc1"}.get(ref, "0.26.1.dev1")
        assert f"+g{git(repository, 'rev-parse', ref)[:9]}.cu130.thor" in made.wheel_version
        assert made.words == f"--tag {ref}"
    with pytest.raises(UsageError, match="part of a commit"):
        plan_of(places, tag="4fd9d6a85")
    with pytest.raises(NotATag):
        plan_of(places, tag="0.12.0")
    with pytest.raises(UsageError):
        plan_of(places, tag="../main")


def test_a_folder_that_asks_for_other_pins_needs_its_own_lock(places: Places, repository: Path) -> None:
    path = repository / "cmake/external_projects/qutlass.cmake"
    path.write_text(path.read_text().replace("830d2c4537c7396e14a02a46fbddd18b5d107c65", "1" * 40))
    with pytest.raises(LockMissing, match=r"qutlass: .*1111") as caught:
        plan_of(places, source=str(repository))
    assert caught.value.advice.endswith(f"./inv lock --source {repository}")
    source = own.own_source("", str(repository), places)
    assert source
    base = load_lock("v0.26.0")
    trees = [
        msgspec.structs.replace(t, revision="1" * 40, commit="1" * 40) if t.name == "qutlass" else t
        for t in base.trees
    ]
    lock = msgspec.structs.replace(base, tag=source.name, version=source.version, trees=trees, digest="")
    where = own.own_lock_path(source, places)
    write_atomic(where, lock_text(msgspec.structs.replace(lock, digest=digest_of(lock))))
    made = plan_of(places, source=str(repository))
    assert made.lock.tree("qutlass").commit == "1" * 40
    where.write_text(where.read_text().replace("1" * 40, "2" * 40))
    with pytest.raises(LockEdited):
        plan_of(places, source=str(repository))
    (repository / "requirements/build/cuda.txt").write_text(REQUIREMENTS + "no-such-project>=1\n")
    where.unlink()
    with pytest.raises(LockMissing, match="no-such-project"):
        plan_of(places, source=str(repository))


def test_the_links_of_a_folder_count_by_where_they_point(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "l").symlink_to("a")
    first = own.content_of(tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    assert own.content_of(tmp_path) == first, "a time is no content"
    (tmp_path / "l").unlink()
    (tmp_path / "l").symlink_to("b")
    assert own.content_of(tmp_path) != first
