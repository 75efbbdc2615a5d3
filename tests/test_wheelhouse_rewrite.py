"""Rewriting: what changes, what must not, and other people's tools on the result."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.program import Program
from wheel_maker import digest, make_wheel, thor_wheel

from build_recipes.formats.wheel import Wheel
from build_recipes.kit import process
from build_recipes.kit.errors import ArmoryError, NotAWheel, NotWritable, UsageError
from build_recipes.wheelhouse.rewrite import Edits, rewrite

OURS = Edits(
    version="0.12.0+cu130.thor",
    platform="manylinux_2_39_aarch64",
    requires={"torch": "torch==2.9.0", "Extra_Thing": "extra-thing>=1; python_version > '3'"},
    put={"{dist_info}/sboms/vllm.cdx.json": b"{}", "vllm/new.py": b"y = 2\n"},
)


def check_record(path: Path) -> dict[str, bytes]:
    """All members, each compared with RECORD by other means than ours."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        members = {name: archive.read(name) for name in archive.namelist()}
    record = next(name for name in members if name.endswith("/RECORD"))
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(members[record].decode()))}
    assert rows.pop(record) == ["", ""]
    assert rows == {n: [digest(d), str(len(d))] for n, d in members.items() if n != record}
    return members


def test_names_tags_metadata_and_record_follow_from_the_edits(tmp_path: Path) -> None:
    source = thor_wheel(tmp_path, wheel_tag="cp38-abi3-linux_aarch64")
    before = check_record(source)
    target = rewrite(source, tmp_path / "out", OURS)
    assert target.name == "vllm-0.12.0+cu130.thor-cp38-abi3-manylinux_2_39_aarch64.whl"
    members = check_record(target)
    info = "vllm-0.12.0+cu130.thor.dist-info"
    assert members["vllm/_C.abi3.so"] == before["vllm/_C.abi3.so"]
    assert members["vllm/new.py"] == b"y = 2\n"
    assert members[f"{info}/sboms/vllm.cdx.json"] == b"{}"
    metadata = members[f"{info}/METADATA"].decode()
    assert metadata.startswith("Metadata-Version: 2.1\nName: vllm\nVersion: 0.12.0+cu130.thor\n")
    assert "Requires-Dist: torch==2.9.0\nRequires-Dist: extra-thing>=1; python_version > '3'\n" in metadata
    assert metadata.endswith("\n\nA body.\n\nVersion: not this\n")
    assert b"Tag: cp38-abi3-manylinux_2_39_aarch64\n" in members[f"{info}/WHEEL"]
    assert not any(name.startswith("vllm-0.12.0.dist-info") for name in members)


def test_kept_members_are_copied_as_they_lie(tmp_path: Path) -> None:
    source = thor_wheel(tmp_path)
    target = rewrite(source, tmp_path / "out", OURS)
    with Wheel(source) as old, Wheel(target) as new:
        name = "vllm/_C.abi3.so"
        assert b"".join(old.packed(name)) == b"".join(new.packed(name))


def test_the_same_request_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = thor_wheel(tmp_path)
    one = rewrite(source, tmp_path / "a", OURS, epoch=1_700_000_000).read_bytes()
    assert rewrite(source, tmp_path / "b", OURS, epoch=1_700_000_000).read_bytes() == one
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert rewrite(source, tmp_path / "c", OURS).read_bytes() == one
    assert rewrite(source, tmp_path / "d", OURS, epoch=1_600_000_000).read_bytes() != one


def test_members_are_dropped_and_replaced(tmp_path: Path) -> None:
    source = thor_wheel(tmp_path)
    module = tmp_path / "new.so"
    module.write_bytes(b"other")
    edits = Edits(drop=["vllm/__init__.py"], put={"vllm/_C.abi3.so": module})
    members = check_record(rewrite(source, tmp_path / "out", edits))
    assert "vllm/__init__.py" not in members
    assert members["vllm/_C.abi3.so"] == b"other"


def test_nothing_is_left_of_a_rewrite_that_fails(tmp_path: Path) -> None:
    source = thor_wheel(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError):
        rewrite(source, out, Edits(put={"vllm/x": tmp_path / "absent"}))
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("edits", "error"),
    [
        (Edits(version="not a version"), UsageError),
        (Edits(platform="linux aarch64"), UsageError),
        (Edits(python="cp38"), UsageError),
        (Edits(requires={"torch": "torch=2"}), UsageError),
        (Edits(drop=["vllm/absent.py"]), UsageError),
    ],
)
def test_edits_that_make_no_sense_are_refused(tmp_path: Path, edits: Edits, error: type[ArmoryError]) -> None:
    source = thor_wheel(tmp_path)
    with pytest.raises(error):
        rewrite(source, tmp_path / "out", edits)


def test_a_source_that_is_no_wheel_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no")
    with pytest.raises(NotAWheel):
        rewrite(tmp_path / "x.whl", tmp_path / "out", OURS)
    with pytest.raises(NotWritable):
        rewrite(thor_wheel(tmp_path), tmp_path / "x.whl", OURS)


def test_the_retag_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tasks

    source = thor_wheel(tmp_path, wheel_tag="cp38-abi3-linux_aarch64")
    words = [
        "--platform",
        "manylinux_2_39_aarch64",
        "--requires",
        "torch==2.9.0",
        "--to",
        str(tmp_path / "out"),
    ]
    program = Program(namespace=Collection.from_module(tasks))
    program.run(["invoke", "retag", str(source), *words], exit=False)
    members = check_record(tmp_path / "out/vllm-0.12.0-cp38-abi3-manylinux_2_39_aarch64.whl")
    assert b"Requires-Dist: torch==2.9.0\n" in members["vllm-0.12.0.dist-info/METADATA"]
    for wrong, code in ((["--requires", "torch=="], 2), (["--platform", "no tag"], 2)):
        with pytest.raises(SystemExit) as caught:
            program.run(["invoke", "retag", str(source), *wrong], exit=False)
        assert caught.value.code == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.network
@pytest.mark.parametrize("tool", ["wheel", "check-wheel-contents", "twine", "pip"])
def test_other_tools_take_the_result(tmp_path: Path, tool: str) -> None:
    members = {"vllm/__init__.py": b"version = 1\n", "vllm/py.typed": b""}
    source = make_wheel(tmp_path, members, tag="py3-none-any", requires=())
    target = rewrite(source, tmp_path / "out", Edits(version="0.12.0+cu130.thor"))
    uv = Path(sys.executable).with_name("uv")
    run: list[str | Path] = [uv, "run", "--no-project", "--quiet", "--python", sys.executable, "--with", tool]
    commands: dict[str, list[str | Path]] = {
        "wheel": ["wheel", "unpack", "--dest", tmp_path / "unpacked", target],
        "check-wheel-contents": ["check-wheel-contents", "--ignore", "W004,W009", target],
        "twine": ["twine", "check", target],
        "pip": ["python", "-m", "pip", "install", "--no-deps", "--target", tmp_path / "site", target],
    }
    done = process.run([*run, *commands[tool]])
    assert done.ok, "\n".join(done.tail)
    if tool == "pip":
        assert (tmp_path / "site/vllm/__init__.py").read_text() == "version = 1\n"
        assert (tmp_path / "site/vllm-0.12.0+cu130.thor.dist-info/RECORD").exists()
