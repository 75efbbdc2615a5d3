"""The audit: findings of a promise, verdicts for devices, bad input, and the command."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
from invoke.program import Program
from wheel_maker import DATA, make_wheel, thor_wheel

import tasks
from build_recipes.audit import coverage as verdict
from build_recipes.audit import render
from build_recipes.audit.audit import Audit, audit_wheel
from build_recipes.audit.compare import compare
from build_recipes.audit.installed import Installed
from build_recipes.audit.promise import Promise
from build_recipes.audit.scan import Target
from build_recipes.formats import inflate
from build_recipes.formats.elf import Elf
from build_recipes.kit.errors import ArmoryError, AuditFailed, NotAWheel, UnsafeArchive

THOR = (DATA / "thor.so").read_bytes()
OLD = (DATA / "old.so").read_bytes()
LIBRARIES = [Elf((DATA / name).read_bytes(), name) for name in ("libc10_new.so", "libcudart.so.13")]


def ids(audit: Audit, severity: str = "error") -> set[str]:
    return {one.id for one in audit.findings if one.severity == severity}


def promise(**changes: object) -> Promise:
    values = {"device": "thor", "modules": ("_C",), "native": ("_C",), "torch": "2.11.0"}
    return Promise(**{**values, **changes})  # type: ignore[arg-type]


def test_a_wheel_that_keeps_its_promise_has_no_error(tmp_path: Path) -> None:
    audit = audit_wheel(thor_wheel(tmp_path), libraries=LIBRARIES, promise=promise())
    assert ids(audit) == {"absent:cache"}  # its one cache kernel is empty, on purpose
    audit.check(["absent:cache"])
    assert audit.devices["thor"].families["layernorm"].status == "native"
    assert audit.modules[0].ops == ("rms_norm",)
    assert audit.modules[0].torch_abi == "C++"


def test_the_head_of_a_member_is_its_first_four_bytes(tmp_path: Path) -> None:
    members = {"a": b"", "b": b"ab", "c": THOR, "d": bytes(range(256)) * 9000, "e": b"\x7fELF"}
    path = make_wheel(tmp_path, members)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("f", THOR)
    with inflate.Archive(path) as wheel:
        assert {name: wheel.head(name) for name in members} == {n: c[:4] for n, c in members.items()}
        assert wheel.head("f") == b"\x7fELF"


def test_an_empty_kernel_counts_as_absent(tmp_path: Path) -> None:
    audit = audit_wheel(thor_wheel(tmp_path), ["thor"], promise=promise())
    cache = audit.devices["thor"].families["cache"]
    assert (cache.status, cache.empty, cache.native) == ("absent", 1, 0)
    assert "absent:cache" in ids(audit)
    assert audit.devices["thor"].verdict == "not usable"  # no model runs without the KV cache kernels
    assert render.cell(cache) == "empty"


@pytest.mark.parametrize(
    ("member", "asked", "finding"),
    [
        (THOR, {"modules": ("_C", "_moe_C")}, "module:_moe_C"),
        (THOR, {"device": "spark", "native": ()}, "no-code:_C"),
        (OLD, {}, "no-sass:_C"),
        (OLD, {}, "glibc"),
        (THOR, {"glibc": (2, 16)}, "glibc"),
        (THOR, {"cuda": 12}, "cuda:_C"),
        (THOR, {"device": "h200"}, "machine:_C"),
        (THOR, {"torch": "2.9.0"}, "torch-promise"),
        (b"", {}, "broken:_C"),
        (THOR[:3000], {}, "broken:_C"),
    ],
)
def test_a_broken_promise_is_an_error_with_an_id(
    tmp_path: Path, member: bytes, asked: dict[str, object], finding: str
) -> None:
    wheel = make_wheel(tmp_path, {"vllm/_C.abi3.so": member})
    audit = audit_wheel(wheel, libraries=LIBRARIES, promise=promise(**asked))
    assert finding in ids(audit)
    with pytest.raises(AuditFailed) as caught:
        audit.check()
    assert f"--allow {finding}" in caught.value.advice
    audit.check(ids(audit))  # accepted one by one


def test_closure_errors_name_the_symbol(tmp_path: Path) -> None:
    old = [Elf((DATA / "libc10_old.so").read_bytes()), LIBRARIES[1]]
    audit = audit_wheel(thor_wheel(tmp_path), ["thor"], libraries=old)
    assert ids(audit) == {"closure:_C"}
    assert "c10::MessageLogger::MessageLogger" in audit.findings[-1].text
    assert audit.devices["thor"].verdict == "not usable"


@pytest.mark.parametrize(
    ("target", "loads_on"),
    [
        (("sass", 110, ""), {"thor"}),
        (("sass", 110, "f"), {"thor"}),
        (("sass", 110, "a"), {"thor"}),
        (("sass", 100, ""), {"gb200", "gb300"}),
        (("sass", 100, "f"), {"gb200", "gb300"}),
        (("sass", 100, "a"), {"gb200"}),
        (("sass", 103, "a"), {"gb300"}),
        (("sass", 120, "f"), {"spark"}),
        (("sass", 120, "a"), set()),
        (("sass", 80, ""), set()),  # Tegra takes no desktop code: tried on an Orin, jax-ml/jax#40492
        (("sass", 87, ""), {"orin"}),
        (("sass", 120, ""), {"spark"}),
        (("sass", 90, "a"), {"gh200", "h200"}),
        (("ptx", 80, ""), {"thor", "orin", "spark", "gh200", "gb200", "gb300", "h200"}),
        (("ptx", 90, ""), {"thor", "spark", "gh200", "gb200", "gb300", "h200"}),
        (("ptx", 90, "a"), {"gh200", "h200"}),
        (("ptx", 100, "f"), {"gb200", "gb300"}),
        (("ptx", 120, ""), {"spark"}),
    ],
)
def test_targets_run_where_nvidia_says(target: tuple[str, int, str], loads_on: set[str]) -> None:
    from build_recipes.facts.device import devices

    made = Target(*target, "9.0")
    check = verdict.compiles if made.kind == "ptx" else verdict.loads
    assert {name for name, one in devices().items() if check(made, one)} == loads_on


def test_ptx_of_an_older_architecture_is_jit_with_the_driver_it_needs(tmp_path: Path) -> None:
    audit = audit_wheel(make_wheel(tmp_path, {"vllm/_C.abi3.so": OLD}), ["thor", "orin"])
    assert audit.devices["thor"].families["layernorm"].status == "jit"
    assert audit.devices["thor"].families["layernorm"].driver == "13.0"
    assert audit.devices["orin"].families["layernorm"].status == "jit"


def test_compare_says_what_one_has_and_the_other_lacks(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one = audit_wheel(thor_wheel(tmp_path))
    two = audit_wheel(make_wheel(tmp_path / "b", {"vllm/_C.abi3.so": OLD, "vllm/_moe_C.abi3.so": OLD}))
    found = compare(one, two)
    assert found.modules == ([], ["_moe_C"])
    assert "_C: sm_110" in found.targets[0]
    assert found.sizes["_moe_C"][0] == 0 < found.sizes["_moe_C"][1]


def test_an_installed_copy_is_read_like_its_wheel(tmp_path: Path) -> None:
    wheel = thor_wheel(tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    audit = audit_wheel(site, ["thor"])
    assert audit.version == "0.12.0"
    assert ids(audit) == set()
    assert audit.devices == audit_wheel(wheel, ["thor"]).devices
    assert Installed(site / "vllm").root == site
    (site / "vllm/__init__.py").write_text("x = 2\n")
    assert "record-wrong" in ids(audit_wheel(site, ["thor"]))
    with pytest.raises(NotAWheel, match="not installed"):
        Installed(tmp_path)


# -- bad input -----------------------------------------------------------------------------------


def test_a_lying_record_is_found(tmp_path: Path) -> None:
    rows = {
        "vllm/__init__.py": "vllm/__init__.py,sha256=" + "A" * 43 + ",6",
        "vllm/_C.abi3.so": "",
        "x": "gone.py,,",
    }
    audit = audit_wheel(thor_wheel(tmp_path, record=rows), ["thor"])
    assert ids(audit) >= {"record-wrong", "record-missing", "record-absent"}


def _zip(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def _text(tmp_path: Path) -> Path:
    (tmp_path / "x.whl").write_text("no zip")
    return tmp_path / "x.whl"


def _cut(tmp_path: Path) -> Path:
    whole = thor_wheel(tmp_path)
    (tmp_path / "vllm-1-py3-none-any.whl").write_bytes(whole.read_bytes()[:-100])
    return tmp_path / "vllm-1-py3-none-any.whl"


def _holed(tmp_path: Path) -> Path:
    wheel = thor_wheel(tmp_path)
    data = bytearray(wheel.read_bytes())
    at = data.find(b"vllm/_C.abi3.so") + 200
    data[at : at + 400] = bytes(400)
    wheel.write_bytes(data)
    return wheel


def _bomb(tmp_path: Path) -> Path:
    """A member that says it has 2 MB, in a deflate stream of 1000 bytes that yields far more."""
    path = _zip(tmp_path / "vllm-1-py3-none-any.whl", ("vllm/big", bytes(4 << 20)))
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = data.find(magic)
        struct.pack_into("<I", data, at + offset, 1 << 20)
    path.write_bytes(data)
    rest = thor_wheel(tmp_path)
    out = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(out, "a") as archive, zipfile.ZipFile(rest) as source:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    path.write_bytes(out.getvalue())
    return path


def _nameless(tmp_path: Path) -> Path:
    path = _zip(tmp_path / "a.whl", ("ab", b"x"))
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, data.find(b"PK\1\2") + 28, 0, 2)  # the name becomes an extra field
    path.write_bytes(data)
    return path


def _claims(tmp_path: Path) -> Path:
    path = _zip(tmp_path / "vllm-1-py3-none-any.whl", ("vllm/big", b"x" * 50))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\1\2") + 24, 3 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda p: p / "absent.whl", NotAWheel, "cannot be read"),
        (_text, NotAWheel, "not a zip file"),
        (_cut, NotAWheel, "not a zip file, or was cut"),
        (_holed, NotAWheel, "damaged"),
        (lambda p: _zip(p / "a.whl", ("a.txt", b"x")), NotAWheel, "0 dist-info"),
        (lambda p: make_wheel(p, {}, project="numpy"), NotAWheel, "wheel of numpy"),
        (lambda p: _zip(p / "a.whl", ("../../etc/passwd", b"x")), UnsafeArchive, "climbs out"),
        (lambda p: _zip(p / "a.whl", ("/etc/passwd", b"x")), UnsafeArchive, "climbs out"),
        (lambda p: _zip(p / "a.whl", ("a\\b", b"x")), UnsafeArchive, "climbs out"),
        (_nameless, NotAWheel, "without a name"),
        (_bomb, NotAWheel, "not what the archive says"),
        (_claims, UnsafeArchive, "zip bomb"),
        (lambda p: _zip(p / "a.whl", ("vllm/_C.abi3.so", bytes(64 << 20))), UnsafeArchive, "zip bomb"),
    ],
)
def test_bad_archives_are_refused_in_words(
    tmp_path: Path, make: object, error: type[ArmoryError], why: str
) -> None:
    with pytest.raises(error, match=why) as caught:
        audit_wheel(make(tmp_path), ["thor"])  # type: ignore[operator]
    assert caught.value.advice


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.whl", ("a", b"x" * 1000), ("b", b"y" * 1000))
    data = bytearray(path.read_bytes())
    second = data.find(b"PK\1\2", data.find(b"PK\1\2") + 4)
    struct.pack_into("<I", data, second + 42, 0)
    path.write_bytes(data)
    with pytest.raises(UnsafeArchive, match="overlap"):
        inflate.Archive(path)


# -- the command ---------------------------------------------------------------------------------


def invoke(*words: str) -> int:
    from invoke.collection import Collection

    program = Program(namespace=Collection.from_module(tasks))
    try:
        program.run(["invoke", *words], exit=False)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_the_command_prints_one_document_and_its_exit_code_is_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = str(make_wheel(tmp_path, {"vllm/_C.abi3.so": OLD}, wheel_tag="cp38-abi3-linux_aarch64"))
    page = tmp_path / "audit.html"
    assert invoke("audit", wheel, "--device", "thor", "--json", "--html", str(page)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["devices"]["thor"]["verdict"] == "runs with JIT"
    assert "<th>thor</th>" in page.read_text()
    assert "<!--" not in page.read_text()
    libraries = ["--torch", str(DATA / "libc10_old.so"), "--libraries", str(DATA / "libcudart.so.13")]
    assert invoke("audit", wheel, "--device", "thor", *libraries) == 60
    said = capsys.readouterr()
    assert said.out == ""
    assert "MessageLogger" in said.err
    assert invoke("audit", wheel, "--device", "toaster") == 12
    assert invoke("audit", str(tmp_path / "none.whl")) == 61
    assert "Traceback" not in capsys.readouterr().err
