"""A full disk at any byte: one error for it, nothing half made is believed, and the same call goes on with room.

On a real small file system (tmpfs); what a build needs is told before the first byte; clean says what is where.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_compiling import SLOW, Project
from test_plan import plan_of
from wheel_maker import make_wheel

from build_recipes.build import clean, disk
from build_recipes.build.disk import told_when_full
from build_recipes.build.stages import record
from build_recipes.build.stages.provision import _into_tree
from build_recipes.formats.archive import unpack_sdist
from build_recipes.kit.errors import NotEnoughDisk, UsageError
from build_recipes.kit.once import filled, stands
from build_recipes.kit.paths import Places
from build_recipes.kit.system_errors import disk_is_full
from build_recipes.toolchain.unpack import unpack_wheel
from build_recipes.wheelhouse.index import write_index

SIZE = 4 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "armory-test", folder], check=False, capture_output=True
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full(folder: Path, room: int) -> Iterator[None]:
    """Leave only so many bytes free on the file system of a folder."""
    blocker = folder / "blocker"
    with blocker.open("wb") as stream, contextlib.suppress(OSError):
        left = shutil.disk_usage(folder).free - room
        os.posix_fallocate(stream.fileno(), 0, max(1, left))
    try:
        yield
    finally:
        blocker.unlink()


NOISE = os.urandom(300_000)


def sdist(tmp: Path, into: Path) -> bytes:
    tree = tmp / "vllm-1"
    for number in range(3):
        (tree / "csrc").mkdir(parents=True, exist_ok=True)
        (tree / f"csrc/{number}.cu").write_bytes(NOISE)
    with tarfile.open(tmp / "vllm-1.tar.gz", "w:gz") as archive:
        archive.add(tree, "vllm-1")
    unpack_sdist(tmp / "vllm-1.tar.gz", into / "src")
    return (into / "src/csrc/2.cu").read_bytes()


def toolkit(tmp: Path, into: Path) -> bytes:
    with zipfile.ZipFile(tmp / "kit.whl", "w") as archive:
        for number in range(3):
            archive.writestr(f"nvidia/{number}.h", NOISE)
    made = filled(into / "kit", lambda folder: unpack_wheel(tmp / "kit.whl", folder))
    assert stands(made)
    return (made / "nvidia/2.h").read_bytes()


def copied(tmp: Path, into: Path) -> bytes:
    """A toolkit that is on another file system: `shutil.Error`, which has no errno."""
    for number in range(3):
        (tmp / "kit").mkdir(exist_ok=True)
        (tmp / f"kit/{number}.h").write_bytes(NOISE)
    return (_into_tree(tmp / "kit", into / "cuda") / "2.h").read_bytes()


def stage(tmp: Path, into: Path) -> bytes:
    def work() -> dict[str, str]:
        for number in range(3):
            (into / f"made-{number}").write_bytes(NOISE)
        return {"made": str(into / "made-2")}

    names = [f"made-{number}" for number in range(3)]
    done = record.once(into, "stage", 1, work, files=lambda: names)
    return Path(done.outputs["made"]).read_bytes()


def compiled(tmp: Path, into: Path) -> bytes:
    folder = into / "project"
    folder.mkdir(exist_ok=True)
    project = Project(folder, {name: SLOW.format(name=name) for name in ("a", "b")})
    outcome = project.run()
    if not outcome.ok:
        raise RuntimeError("\n".join(outcome.tail))  # as `failure` gives a compiler's own words
    assert (folder / "mod.so").stat().st_size > 20_000
    return NOISE


def published(tmp: Path, into: Path) -> bytes:
    wheels = into / "wheels"
    wheels.mkdir(exist_ok=True)
    source = make_wheel(tmp, {f"vllm/{number}.bin": NOISE for number in range(3)})
    shutil.copyfile(source, wheels / ".copy.1")
    (wheels / ".copy.1").rename(wheels / source.name)
    write_index(wheels)
    with zipfile.ZipFile(wheels / source.name) as archive:
        return archive.read("vllm/2.bin")


@pytest.mark.parametrize("room", [0, 20_000, 700_000])
@pytest.mark.parametrize("work", [sdist, toolkit, copied, stage, compiled, published])
def test_a_disk_that_fills_up_in_a_stage_is_one_error_and_the_same_call_goes_on_with_room(
    work: Callable[[Path, Path], bytes], room: int, small: Path, tmp_path: Path
) -> None:
    if work is compiled and room > 20_000:
        pytest.skip("the objects are smaller than that")
    with (
        full(small, room),
        pytest.raises(NotEnoughDisk, match="a disk filled up") as caught,
        told_when_full(small),
    ):
        work(tmp_path, small)
    assert len(str(caught.value)) < 1000 and "[(" not in str(caught.value)
    assert "the same command again" in caught.value.advice
    assert work(tmp_path, small) == NOISE


def test_a_full_disk_is_known_by_number_by_words_and_by_cause() -> None:
    assert disk_is_full(OSError(errno.ENOSPC, "x"))
    assert disk_is_full(shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]))
    try:
        raise ValueError("half a file") from OSError(errno.EDQUOT, "quota")
    except ValueError as error:
        assert disk_is_full(error)
    assert not disk_is_full(OSError(errno.EACCES, "no"))


def test_what_is_needed_is_counted_for_each_file_system(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(places)
    needs = {need.what: need.octets for need in disk.needs(plan)}
    assert list(needs) == ["downloads", "toolkits", "the build tree", "the wheel"]
    smoke = disk.needs(dataclasses.replace(plan, request=dataclasses.replace(plan.request, smoke=True)))
    assert sum(need.octets for need in smoke) < sum(needs.values())
    free = sum(need.octets for need in disk.needs(plan, drop=True)) - 1
    monkeypatch.setattr(disk, "free_disk", lambda folder: free)
    with pytest.raises(NotEnoughDisk, match="are needed: "):
        disk.check_disk(plan)
    free += 1
    disk.check_disk(plan)


def tree(places: Places, name: str, days: float) -> Path:
    folder = places.build / name
    (folder / "src").mkdir(parents=True)
    (folder / "src/x").write_bytes(b"x" * 5000)
    (folder / ".lock").write_text("1")
    when = time.time() - days * 86400
    os.utime(folder / ".lock", (when, when))
    return folder


def clean_up(*words: str) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("invoke")), "clean", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent
    )
    return done.returncode, done.stdout + done.stderr


def test_clean_removes_what_killed_runs_left_and_what_is_asked_for(places: Places) -> None:
    old, mid, new = (tree(places, name, days) for name, days in (("v1", 40), ("v2", 20), ("v3", 0)))
    stranger = places.build / "my-photos"
    stranger.mkdir()
    for left in (new / "src/.vllm.~k3j2", new / "tmp", places.toolkits / ".kit.~abcdefgh"):
        left.mkdir(parents=True)
    (places.wheels / f".a.whl.{2**22 + 1}").write_bytes(b"half")
    (places.wheels / "mine.whl").write_bytes(b"?")
    code, said = clean_up("--dry", "--keep", "1", "--json")
    asked = json.loads(said)
    assert code == 0
    assert {Path(item["path"]).name for item in asked["would_remove"]} == {
        "v1", "v2", ".vllm.~k3j2", "tmp", ".kit.~abcdefgh", f".a.whl.{2**22 + 1}",
    }  # fmt: skip
    assert old.exists() and (new / "tmp").exists()
    assert clean_up("--older", "30d")[0] == 0
    assert not old.exists() and mid.exists() and not (new / "tmp").exists()
    assert not list(places.toolkits.iterdir()) and [path.name for path in places.wheels.iterdir()] == [
        "mine.whl"
    ]
    with record.tree_lock(mid):
        assert clean_up("--keep", "0")[0] == 0
        assert mid.exists() and not new.exists() and stranger.exists()
    assert clean_up("--older", "soon")[0] == UsageError.exit_code


def test_what_is_written_beside_its_place_has_a_name_that_clean_knows(tmp_path: Path) -> None:
    for name in (".vllm.~old.k3j2x9", ".kit.2.~ab_cdefg", ".units.json.x7k2m9qa", ".a.whl.4711"):
        assert clean.LEFTOVER.fullmatch(name)
    for name in (
        ".lock",
        ".ninja_log",
        ".hashes.json",
        ".vllm.source",
        ".vllm.armory-patches.json",
        ".x.files.json",
    ):
        assert not clean.LEFTOVER.fullmatch(name)
