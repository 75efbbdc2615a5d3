"""Lock and fetch of a small vLLM: real repositories, a real sdist, and no network where none is allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from sources_help import Server, git, make_repository, make_sdist, serve, small_lock

from build_recipes.kit import paths
from build_recipes.kit.errors import HashMismatch, OfflineError, UnsafeArchive, UsageError
from build_recipes.kit.paths import Places
from build_recipes.sources import bundle
from build_recipes.sources.fetch import fetch, other_pins
from build_recipes.sources.library import Library
from build_recipes.sources.lock import lock_trees, make_lock
from build_recipes.sources.lockfile import FilePin, Lock, TreePin, load_lock, save_lock
from build_recipes.sources.mirrors import key

CMAKE = """
set(REV v1.0)
if(DEFINED ENV{THING_SRC_DIR})
  set(THING_SRC_DIR $ENV{THING_SRC_DIR})
endif()
if(THING_SRC_DIR)
  FetchContent_Declare(thing SOURCE_DIR ${THING_SRC_DIR})
else()
  FetchContent_Declare(thing GIT_REPOSITORY https://example.org/g/Thing.git GIT_TAG ${REV})
endif()
FetchContent_MakeAvailable(thing)
include_directories(${thing_SOURCE_DIR}/lib/sub/include)
"""


class Small:
    """A small vLLM: a source tree, an external repository with two submodules, mirrors of both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sub = make_repository(root / "sub", {"include/s.h": "s"})
        self.unused = make_repository(root / "unused", {"u": "u"})
        self.commit = make_repository(
            root / "thing",
            {"CMakeLists.txt": "project(thing)", "code.cu": "kernel"},
            tag="v1.0",
            submodules={
                "lib/sub": ("https://example.org/g/sub", self.sub),
                "lib/rocm": ("https://example.org/g/rocm", self.unused),
            },
        )
        make_repository(root / "thing", {"code.cu": "newer"})
        self.files = {"CMakeLists.txt": CMAKE, "vllm/__init__.py": "", "setup.py": "# setup"}
        for name, text in self.files.items():
            (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "tree" / name).write_text(text)
        self.mirrors = {
            key("https://example.org/g/thing"): root / "thing",
            key("https://example.org/g/sub"): root / "sub",
        }

    def lock(self, server: Server) -> Lock:
        server.files["vllm-0.12.0.tar.gz"] = make_sdist(self.files)
        trees = lock_trees(self.root / "tree", "0.12.0", Library(self.root / "cache/git", self.mirrors))
        return small_lock(server.pin("vllm-0.12.0.tar.gz", group="source"), trees)


@pytest.fixture
def small(tmp_path: Path, places: Places) -> Small:
    return Small(tmp_path)


def test_a_tree_is_locked_as_the_cmake_file_declares_it(small: Small, places: Places) -> None:
    (tree,) = lock_trees(small.root / "tree", "0.12.0", Library(places.git, small.mirrors))
    assert (tree.name, tree.revision, tree.commit) == ("thing", "v1.0", small.commit)
    assert tree.variable == "THING_SRC_DIR"
    assert tree.declared_in == "CMakeLists.txt:9"
    assert [(sub.path, sub.commit, bool(sub.skip)) for sub in tree.submodules] == [
        ("lib/rocm", small.unused, True),
        ("lib/sub", small.sub, False),
    ]


def test_a_tag_that_the_mirror_lacks_is_one_unresolved_pin(small: Small, places: Places) -> None:
    git(small.root / "thing", "tag", "-d", "v1.0")
    (tree,) = lock_trees(small.root / "tree", "0.12.0", Library(places.git, small.mirrors))
    assert (tree.commit, tree.revision) == ("", "v1.0")
    assert "had no revision v1.0" in tree.unresolved
    assert str(small.root) not in tree.unresolved, "a lock does not tell where a mirror was"


def test_a_repository_that_cannot_be_read_is_said_to_be_unresolved(small: Small, places: Places) -> None:
    (tree,) = lock_trees(small.root / "tree", "0.12.0", Library(places.git, {}, offline=True))
    assert tree.commit == ""
    assert "commit and submodules are not known" in tree.unresolved


def test_fetch_makes_plain_trees_once(small: Small, places: Places, tmp_path: Path) -> None:
    into = tmp_path / "into"
    with serve(Server({}, cut_after=200, cuts=1)) as server:
        lock = small.lock(server)
        fetched = fetch(lock, mirrors=small.mirrors, places=places, into=into)
        assert fetched.missing == {}
        assert (fetched.vllm / "setup.py").read_text() == "# setup"
        assert (fetched.trees["thing"] / "code.cu").read_text() == "kernel", "the tag, not the branch"
        assert (fetched.trees["thing"] / "lib/sub/include/s.h").read_text() == "s"
        assert not (fetched.trees["thing"] / "lib/rocm/u").exists(), "skipped"
        assert not list(into.rglob(".git"))
        asked, stamp = len(server.seen), (fetched.vllm / "setup.py").stat().st_ino
        again = fetch(lock, mirrors=small.mirrors, places=places, into=into)
        assert again == fetched
        assert len(server.seen) == asked
        assert (fetched.vllm / "setup.py").stat().st_ino == stamp
    names = {path.name for path in into.iterdir()}
    assert names == {"vllm", "thing", ".vllm.source", ".thing.source"}


def test_another_commit_replaces_the_tree(small: Small, places: Places, tmp_path: Path) -> None:
    newer = git(small.root / "thing", "rev-parse", "main")
    with serve(Server({})) as server:
        lock = small.lock(server)
        fetch(lock, mirrors=small.mirrors, places=places, into=tmp_path / "into")
        moved = msgspec.structs.replace(lock.trees[0], commit=newer)
        lock = msgspec.structs.replace(lock, trees=[moved])
        fetched = fetch(lock, mirrors=small.mirrors, places=places, into=tmp_path / "into")
        assert (fetched.trees["thing"] / "code.cu").read_text() == "newer"
        gone = msgspec.structs.replace(lock, trees=[msgspec.structs.replace(moved, commit="1" * 40)])
        lacking = fetch(gone, mirrors=small.mirrors, places=places, into=tmp_path / "into")
        assert "1111111111" in lacking.missing["thing"]
        assert (fetched.trees["thing"] / "code.cu").read_text() == "newer", "what was there stays"


def test_a_tree_that_cannot_be_had_is_missing_and_named(small: Small, places: Places, tmp_path: Path) -> None:
    with serve(Server({})) as server:
        lock = small.lock(server)
        only = {key("https://example.org/g/thing"): small.root / "thing"}
        fetch(lock, mirrors=small.mirrors, places=places, into=tmp_path / "a")
        fetched = fetch(lock, mirrors=only, offline=True, places=places, into=tmp_path / "b")
    assert fetched.trees == {}
    assert "example.org/g/sub" in fetched.missing["thing"]
    assert not (tmp_path / "b/thing").exists()


def test_an_sdist_that_climbs_out_is_refused(small: Small, places: Places, tmp_path: Path) -> None:
    with serve(Server({})) as server:
        lock = small.lock(server)
        server.files["vllm-0.12.0.tar.gz"] = make_sdist({"../../evil": "x"})
        lock = small_lock(server.pin("vllm-0.12.0.tar.gz", group="source"), [])
        with pytest.raises(UnsafeArchive, match="evil"):
            fetch(lock, places=places, into=tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_a_folder_is_copied_and_copied_again_when_it_changed(
    small: Small, places: Places, tmp_path: Path
) -> None:
    with serve(Server({})) as server:
        lock = small.lock(server)
    tree = small.root / "tree"
    fetched = fetch(lock, source=tree, mirrors=small.mirrors, places=places, into=tmp_path / "into")
    assert (fetched.vllm / "setup.py").read_text() == "# setup"
    times = {name: (fetched.vllm / name).stat().st_mtime_ns for name in small.files}
    (tree / "setup.py").write_text("# mine")
    os.utime(tree / "setup.py", (1, 1))  # content changed, but it looks old: a build must see it all the same
    fetched = fetch(lock, source=tree, mirrors=small.mirrors, places=places, into=tmp_path / "into")
    assert (fetched.vllm / "setup.py").read_text() == "# mine"
    changed = [name for name in small.files if (fetched.vllm / name).stat().st_mtime_ns != times[name]]
    assert changed == ["setup.py"]
    assert (fetched.vllm / "setup.py").stat().st_mtime_ns > times["setup.py"]
    with pytest.raises(UsageError, match="not a vLLM source tree"):
        fetch(lock, source=tmp_path, places=places, into=tmp_path / "into")


def test_a_folder_that_asks_for_other_trees_is_told_so(
    small: Small, places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(Server({})) as server:
        lock = small.lock(server)
    tree = small.root / "tree"
    (tree / "CMakeLists.txt").write_text(CMAKE.replace("v1.0", "v1.1"))
    fetched = fetch(lock, source=tree, mirrors=small.mirrors, places=places, into=tmp_path / "into")
    (line,) = other_pins(lock, fetched.vllm)
    assert "Thing.git v1.1" in line
    assert "Thing.git v1.0, which is used" in line
    assert "v1.1" in capsys.readouterr().err


def test_vllm_from_git_must_be_the_commit_of_the_lock(small: Small, places: Places, tmp_path: Path) -> None:
    commit = make_repository(small.root / "vllm", small.files, tag="v0.12.0")
    mirrors = small.mirrors | {key("https://example.org/vllm"): small.root / "vllm"}
    with serve(Server({})) as server:
        lock = small.lock(server)
    with pytest.raises(HashMismatch, match="4fd9d6a85"):
        fetch(lock, source="git", mirrors=mirrors, places=places, into=tmp_path / "into")
    right = msgspec.structs.replace(lock, vllm=msgspec.structs.replace(lock.vllm, commit=commit[:9]))
    fetched = fetch(right, source="git", mirrors=mirrors, places=places, into=tmp_path / "into")
    assert (fetched.vllm / "CMakeLists.txt").read_text() == CMAKE


def test_a_lock_cannot_be_made_offline(places: Places) -> None:
    from build_recipes.kit.errors import LockMissing

    with pytest.raises(LockMissing, match="without the network"):
        make_lock("v0.12.0", mirrors={}, offline=True, places=places)


# -- bundles and the network namespace -----------------------------------------------------------


def _without_network(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a network namespace of its own, which holds no interface that is up."""
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, cwd=paths.PROJECT, capture_output=True, text=True, env=dict(os.environ), check=False
    )


def _can_unshare() -> bool:
    try:
        return _without_network("pass").returncode == 0
    except FileNotFoundError:
        return False


needs_namespace = pytest.mark.skipif(
    not _can_unshare(), reason="this kernel forbids network namespaces to this user (unshare --user --net)"
)

OFFLINE = """
import json, socket, sys
from pathlib import Path
from build_recipes.kit.paths import Places
from build_recipes.sources.fetch import fetch
from build_recipes.sources.lockfile import load_lock
folder, into, bundle = map(Path, sys.argv[1:4])
host, port = sys.argv[4].split(":")
try:
    socket.create_connection((host, int(port)), timeout=2)
    network = True
except OSError:
    network = False
if bundle.is_file():
    from build_recipes.sources.bundle import unpack
    unpack(bundle, Places.from_environment())
fetched = fetch(load_lock("v0.12.0", folder), offline=True, places=Places.from_environment(), into=into)
print(json.dumps({"network": network, "missing": fetched.missing, "trees": list(fetched.trees)}))
"""


@needs_namespace
def test_offline_works_without_any_network_and_the_bundle_is_all_it_takes(
    small: Small, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(Server({})) as server:
        _, lock = save_lock(small.lock(server), tmp_path / "locks")
        library = Library(places.git, small.mirrors)
        bundle.pack(lock, bundle.gather(lock, library, places, []), tmp_path / "b.tar.zst")
        monkeypatch.setenv("VLLM_ARMORY_CACHE", str(tmp_path / "fresh"))
        where = [str(tmp_path / "locks"), str(tmp_path / "into")]
        address = server.url.removeprefix("http://")
        empty = _without_network(OFFLINE, *where, "/nowhere", address)
        assert empty.returncode != 0
        assert "OfflineError" in empty.stderr, "an empty cache is not enough"
        done = _without_network(OFFLINE, *where, str(tmp_path / "b.tar.zst"), address)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"network": False, "missing": {}, "trees": ["thing"]}
    assert (tmp_path / "into/thing/lib/sub/include/s.h").read_text() == "s"
    assert (tmp_path / "into/thing/code.cu").read_text() == "kernel"
    assert (tmp_path / "into/vllm/setup.py").read_text() == "# setup"


@pytest.fixture
def packed(small: Small, places: Places, tmp_path: Path) -> tuple[Path, Lock]:
    with serve(Server({})) as server:
        _, lock = save_lock(small.lock(server), tmp_path / "locks")
        gathered = bundle.gather(lock, Library(places.git, small.mirrors), places, [])
        bundle.pack(lock, gathered, tmp_path / "one.tar.zst")
        bundle.pack(lock, gathered, tmp_path / "two.tar.zst")
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()
    return tmp_path / "one.tar.zst", lock


def _rewritten(path: Path, change: dict[str, bytes | None], add: dict[str, bytes] | None = None) -> Path:
    """The bundle with some members changed (None: left out), and some added."""
    import io
    import tarfile

    import zstandard

    sink = io.BytesIO()
    raw = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read()
    with tarfile.open(fileobj=io.BytesIO(raw)) as source, tarfile.open(fileobj=sink, mode="w") as target:
        for member in source:
            stream = source.extractfile(member)
            assert stream is not None
            content = change.get(member.name, stream.read())
            if content is not None:
                member.size = len(content)
                target.addfile(member, io.BytesIO(content))
        for name, content in (add or {}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    changed = path.with_name("changed.tar.zst")
    changed.write_bytes(zstandard.ZstdCompressor().compress(sink.getvalue()))
    return changed


def test_a_bundle_that_was_changed_is_refused(packed: tuple[Path, Lock], tmp_path: Path) -> None:
    path, lock = packed
    fresh = Places(tmp_path / "fresh", tmp_path / "b", tmp_path / "w")
    assert lock.vllm.sdist is not None
    sdist = f"downloads/{lock.vllm.sdist.sha256}/{lock.vllm.sdist.filename}"
    text = (tmp_path / "locks/v0.12.0.toml").read_text()
    with pytest.raises(HashMismatch):
        bundle.unpack(_rewritten(path, {sdist: b"other"}), fresh)
    assert not list(fresh.downloads.iterdir())
    with pytest.raises(HashMismatch, match="lock"):
        bundle.unpack(_rewritten(path, {"lock.toml": text.replace("v1.0", "v1.1").encode()}), fresh)
    with pytest.raises(UnsafeArchive, match="damaged"):
        bundle.unpack(_rewritten(path, {"git/example.org-g-sub.pack": b"PACK no"}), fresh)
    for name in ("../evil", "downloads/../../evil", "git/other.pack", "notes.txt", "downloads/a/b/c"):
        with pytest.raises(UnsafeArchive):
            bundle.unpack(_rewritten(path, {}, {name: b"x"}), fresh)
    with pytest.raises(UnsafeArchive):
        bundle.unpack(_rewritten(path, {"bundle.json": None}), fresh)
    (tmp_path / "text.tar.zst").write_text("no zstd at all")
    with pytest.raises(UnsafeArchive, match="not a bundle"):
        bundle.unpack(tmp_path / "text.tar.zst", fresh)
    (tmp_path / "cut.tar.zst").write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnsafeArchive):
        bundle.unpack(tmp_path / "cut.tar.zst", fresh)
    assert not list(tmp_path.rglob("evil"))
    got, contents = bundle.unpack(path, fresh)
    assert got == lock
    assert sorted(entry.url for entry in contents.repositories) == [
        "https://example.org/g/sub",
        "https://example.org/g/thing",
    ]


# -- the real index ------------------------------------------------------------------------------


@pytest.mark.network
def test_files_out_of_the_real_wheel_cost_kilobytes(places: Places, tmp_path: Path) -> None:
    real = load_lock("v0.12.0").tree("triton_kernels").from_wheel
    assert real is not None
    some = msgspec.structs.replace(real, members=[m for m in real.members if m.path.endswith("swiglu.py")])
    tree = TreePin(
        name="triton_kernels", repository="https://e.org/t", revision="v1", declared_in="x:1",
        subdir="python/t", unresolved="no", from_wheel=some,
    )  # fmt: skip
    with serve(Server({"vllm-0.12.0.tar.gz": make_sdist({"setup.py": "x"})})) as server:
        lock = small_lock(server.pin("vllm-0.12.0.tar.gz", group="source"), [tree])
        fetched = fetch(lock, places=places, into=tmp_path / "into")
        text = (fetched.trees["triton_kernels"] / "swiglu.py").read_text()
        assert "triton" in text
        assert fetched.trees["triton_kernels"] == tmp_path / "into/triton_kernels/python/t"
        assert sum(p.stat().st_size for p in places.downloads.rglob("*") if p.is_file()) < 100_000
        wrong = msgspec.structs.replace(some.members[0], sha256="0" * 64)
        bad = msgspec.structs.replace(tree, from_wheel=msgspec.structs.replace(some, members=[wrong]))
        with pytest.raises(HashMismatch, match="not what the lock says"):
            fetch(msgspec.structs.replace(lock, trees=[bad]), places=places, into=tmp_path / "into2")
        with pytest.raises(OfflineError):
            fetch(lock, offline=True, places=Places(tmp_path, tmp_path, tmp_path), into=tmp_path / "into3")


@pytest.mark.network
def test_uv_resolves_to_linux_wheels_that_can_be_had() -> None:
    from build_recipes.sources.resolve import resolve

    pins = resolve(
        ["ninja", "tomli; python_version < '3.11'", "colorama; sys_platform == 'win32'"],
        "build",
        [(3, 11), (3, 12)],
    )
    assert {pin.project for pin in pins} == {"ninja"}
    assert all(isinstance(pin, FilePin) and pin.size > 50_000 for pin in pins)
    assert {name.rpartition("_")[2] for pin in pins for name in [pin.filename.removesuffix(".whl")]} <= {
        "aarch64",
        "64",
    }


@pytest.mark.network
def test_a_whole_lock_is_made_from_a_tree_and_the_index(small: Small, places: Places) -> None:
    (small.root / "tree/requirements/build").mkdir(parents=True)
    requirements = "cmake>=3.26.1\nninja\n# a comment\ntorch==2.11.0\n"
    (small.root / "tree/requirements/build/cuda.txt").write_text(requirements)
    commit = make_repository(small.root / "vllm", {"a": "a"}, tag="v0.20.0")
    version_file = small.root / "tree/vllm/_version.py"
    version_file.write_text(f"__commit_id__ = commit_id = 'g{commit[:9]}'\n")
    mirrors = small.mirrors | {key("https://github.com/vllm-project/vllm"): small.root / "vllm"}
    lock = make_lock("v0.20.0", mirrors=mirrors, places=places, source=small.root / "tree")
    assert (lock.vllm.commit, lock.vllm.commit_from) == (commit, "git")
    assert lock.vllm.sdist is not None
    assert lock.vllm.sdist.filename == "vllm-0.20.0.tar.gz"
    assert [tree.commit for tree in lock.trees] == [small.commit]
    assert {pin.project for pin in lock.wheels if pin.group == "build"} == {"cmake", "ninja"}
    assert [(pin.version, pin.cuda) for pin in lock.torch] == [("2.11.0", "13.0")]
    known = {pin.project: pin for pin in load_lock("v0.20.0").torch_pin().files if pin.group == "torch"}
    assert {pin.project for pin in lock.torch[0].files} >= {"torch", "nvidia-nccl-cu13"}
    assert known["torch"] in lock.torch[0].files
    version_file.write_text("commit_id = 'g0123456789'\n")
    with pytest.raises(HashMismatch, match="was made from 0123456789"):
        make_lock("v0.20.0", mirrors=mirrors, places=places, source=small.root / "tree")
