"""What a wheel takes from the official one comes with a bundle: a build without a network ends in the same kind."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sources_help import Server, make_sdist, serve
from untar import untar
from wheel_maker import make_wheel

from build_recipes.build import whole
from build_recipes.build.plan import Plan, make_plan
from build_recipes.build.request import Request
from build_recipes.kit.errors import UsageError
from build_recipes.kit.paths import Places
from build_recipes.sources import bundle, mirror
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import Lock, OfficialPin, digest_of
from build_recipes.sources.modules import makeup

PACKED = Path(__file__).parent / "data/cmake/sdists-0.11.1-0.33.0.tar.xz"
MEMBERS = {
    "vllm/__init__.py": b"x = 1\n",
    "vllm/_C_stable_libtorch.abi3.so": b"\x7fELF for one device",
    "vllm/vllm-rs": b"\x7fELF a program",
    "vllm/_rust_tool_parser.abi3.so": b"\x7fELF a Rust extension",
    "vllm/third_party/tml_fa4/a.py": b"a = 1\n",
    "vllm/third_party/tml_fa4/b.abi3.so": b"\x7fELF a module",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """setup.py and all CMake files of the real v0.26.0."""
    untar(PACKED, tmp_path / "sdists")
    return tmp_path / "sdists/0.26.0"


@pytest.fixture
def locked(tree: Path, tmp_path: Path, places: Places) -> Iterator[tuple[Server, Plan]]:
    """The plan of v0.26.0 for Thor with a server that has its source and its official wheels of both CPUs; of its
    external trees tml_fa4 alone, whose repository cannot be had."""
    texts = {
        path.relative_to(tree).as_posix(): path.read_text() for path in tree.rglob("*") if path.is_file()
    }
    with serve(Server({"vllm-0.26.0.tar.gz": make_sdist(texts, "vllm-0.26.0")})) as server:
        pins = []
        for machine in ("aarch64", "x86_64"):
            members = {name: data + machine.encode() for name, data in MEMBERS.items()}
            wheel = make_wheel(tmp_path, members, version="0.26.0", tag=f"cp38-abi3-manylinux_2_28_{machine}")
            server.files[wheel.name] = wheel.read_bytes()
            with zipfile.ZipFile(wheel) as opened:
                record = hashlib.sha256(opened.read("vllm-0.26.0.dist-info/RECORD")).hexdigest()
            pin = server.pin(wheel.name, project="vllm", version="0.26.0", group="source")
            pins.append(OfficialPin(machine=machine, wheel=pin, record=record))
        plan = make_plan(Request(tag="v0.26.0", device="thor", offline=True), places)
        lock: Lock = msgspec.structs.replace(
            plan.lock,
            vllm=msgspec.structs.replace(
                plan.lock.vllm, sdist=server.pin("vllm-0.26.0.tar.gz", group="source")
            ),
            trees=[
                msgspec.structs.replace(plan.lock.tree("tml_fa4"), commit="", unresolved="it is not public")
            ],
            official=pins,
        )
        lock = msgspec.structs.replace(lock, digest=digest_of(lock))
        yield server, dataclasses.replace(plan, lock=lock)


def test_an_unpacked_bundle_gives_a_build_what_the_network_would(
    locked: tuple[Server, Plan], tree: Path, tmp_path: Path, places: Places
) -> None:
    server, plan = locked
    library = Library(places.git, {}, False)
    gathered = bundle.gather(plan.lock, library, places, [], mirror.machines())
    assert gathered.missing == {"tml_fa4": "it is not public"}
    bundle.pack(plan.lock, gathered, tmp_path / "b.tar.zst")
    online = dataclasses.replace(plan, request=dataclasses.replace(plan.request, offline=False))
    theirs = whole.gather(online, makeup(tree), gathered.missing)
    server.files.clear()
    fresh = Places(tmp_path / "fresh", tmp_path / "build", tmp_path / "wheels")
    bundle.unpack(tmp_path / "b.tar.zst", fresh)
    ours = whole.gather(dataclasses.replace(plan, places=fresh), makeup(tree), gathered.missing)
    assert theirs is not None and ours is not None
    assert ours.rows == theirs.rows
    assert list(ours.files) == list(theirs.files) == [
        "vllm/vllm-rs", "vllm/_rust_tool_parser.abi3.so", "vllm/third_party/tml_fa4/a.py"
    ]  # fmt: skip
    assert {path.read_bytes() for path in ours.files.values()} == {
        MEMBERS[name] + b"aarch64" for name in ours.files
    }


def test_without_them_nothing_is_taken_and_the_build_is_told(
    locked: tuple[Server, Plan], tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, plan = locked
    fresh = Places(tmp_path / "fresh", tmp_path / "build", tmp_path / "wheels")
    assert whole.gather(dataclasses.replace(plan, places=fresh), makeup(tree), {}) is None
    assert "not in the cache" in " ".join(capsys.readouterr().err.split())


def test_what_the_index_does_not_give_is_named_and_the_rest_is_packed(
    locked: tuple[Server, Plan], places: Places
) -> None:
    server, plan = locked
    for name in [name for name in server.files if name.endswith(".whl")]:
        del server.files[name]
    gathered = bundle.gather(plan.lock, Library(places.git, {}, False), places, [])
    assert list(gathered.missing) == ["tml_fa4", bundle.OFFICIAL]
    assert [name.rpartition("/")[2] for name in gathered.files] == ["vllm-0.26.0.tar.gz"]


def test_the_cpus_are_those_of_devices_that_can_be_built_for_here() -> None:
    assert mirror.machines() == list(dict.fromkeys(["aarch64", platform.machine()]))


@pytest.mark.parametrize(
    ("requirements", "left", "said"),
    [
        (True, "cmak", "--leave-out cmake"),
        (True, "numpy-financial", "would: .*cmake.*ninja"),
        (False, "cmake", "add --requirements or --wheels"),
    ],
)
def test_what_is_left_out_must_be_what_would_go_along(requirements: bool, left: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        mirror.mirror("v0.26.0", leave_out=[left], requirements=requirements)
    assert re.search(said, refused.value.advice)
