"""Whole or partial: a wheel held against what the device compiles and against the official one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import zipfile
from pathlib import Path

import pytest
from wheel_maker import DATA, make_wheel

from build_recipes.audit import scan
from build_recipes.audit.audit import audit_wheel, judge
from build_recipes.audit.promise import Promise
from build_recipes.build.modules import Part
from build_recipes.build.own_imports import unresolved
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.result import Result, report
from build_recipes.build.stages.package import check_links
from build_recipes.build.stages.published import published, sealed
from build_recipes.build.whole import PLACEHOLDER, Official, complete
from build_recipes.facts.device import device
from build_recipes.formats.wheel import Recorded, incomplete
from build_recipes.kit.errors import PackageFailed
from build_recipes.kit.paths import Places
from build_recipes.sources.lockfile import FilePin, OfficialPin
from build_recipes.sources.modules import Kind, Makeup, Module
from build_recipes.wheelhouse.index import write_index
from build_recipes.wheelhouse.rewrite import Edits, rewrite

THOR = (DATA / "thor.so").read_bytes()
KERNEL = Module("vllm._C", Kind.KERNEL, ("cutlass",), "CMakeLists.txt:1", False)
OTHER = Module("vllm._flashmla_C", Kind.KERNEL, ("flashmla",), "x:1", True, ("vllm/third_party/flashmla",))
COPIED = Module("vllm.tml_fa4", Kind.COPIED, ("tml_fa4",), "x:1", True, ("vllm/third_party/tml_fa4",))
RUST = Module("vllm.vllm-rs", Kind.RUST, (), "tools/build_rust.py:20", True)
FOUND = Makeup((KERNEL, OTHER, COPIED, RUST), (), {})
INTERFACE, KERNELS = "vllm/third_party/flashmla/flash_mla_interface.py", "vllm/third_party/tml_fa4/a.py"
OURS = {"vllm/__init__.py": b"x = 1\n", "vllm/_C.abi3.so": THOR, INTERFACE: PLACEHOLDER + b"\n"}
THEIRS = [
    "vllm/__init__.py",
    "vllm/_C.abi3.so",
    "vllm/_flashmla_C.abi3.so",
    INTERFACE,
    KERNELS,
    "vllm/vllm-rs",
]
NO_CODE = "has no code for 11.0"


def parts(**changes: Part) -> list[Part]:
    """What a Thor build makes whose external trees but cutlass could not be fetched."""
    plain = {
        "_C": Part(KERNEL, Kind.KERNEL, Kind.KERNEL),
        "_flashmla_C": Part(OTHER, Kind.COPIED, None, f"{NO_CODE}: only its Python files are there"),
        "tml_fa4": Part(COPIED, Kind.COPIED, None, "its source tml_fa4 could not be fetched"),
        "vllm_rs": Part(RUST, Kind.RUST, None, "no Rust toolchain is pinned for it"),
    }
    return list((plain | changes).values())


def official(folder: Path, *at_hand: str) -> Official:
    pin = FilePin(project="vllm", version="1", filename="official.whl", url="https://x/y", sha256="0" * 64, size=1,
                  group="source")  # fmt: skip
    rows = {
        name: Recorded(hashlib.sha256(name.encode()).digest(), 1)
        for name in [*THEIRS, "vllm-1.dist-info/WHEEL"]
    }
    files = {}
    for name in at_hand:
        files[name] = folder / name.replace("/", "_")
        files[name].write_text("text")
    return Official(OfficialPin(machine="aarch64", wheel=pin, record="0" * 64), rows, files)


def test_a_wheel_is_whole_with_what_the_official_one_gives(tmp_path: Path) -> None:
    theirs = official(tmp_path, INTERFACE, KERNELS, "vllm/vllm-rs")
    done = complete(make_wheel(tmp_path, OURS), FOUND, parts(), theirs)
    assert done.word == "whole", done.partial
    assert set(done.taken) == {INTERFACE, KERNELS, "vllm/vllm-rs"}  # the placeholder is not a file of ours
    (absent,) = done.absent
    assert (absent.module, absent.excused, absent.members) == (
        "_flashmla_C",
        True,
        ("vllm/_flashmla_C.abi3.so",),
    )
    told = done.as_dict(theirs.rows)
    assert told["taken"][KERNELS] == hashlib.sha256(KERNELS.encode()).hexdigest()
    assert told["compared"] == "official.whl"


def test_each_thing_that_is_lacking_makes_it_partial_and_is_named(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, OURS)
    done = complete(wheel, FOUND, parts(), official(tmp_path, INTERFACE))
    assert done.partial == (
        "tml_fa4: its source tml_fa4 could not be fetched",
        "vllm-rs: no Rust toolchain is pinned for it",
    )
    lost = parts(_C=Part(KERNEL, Kind.KERNEL, None, "its source cutlass could not be fetched"))
    everything = official(tmp_path, INTERFACE, KERNELS, "vllm/vllm-rs")
    assert complete(wheel, FOUND, lost, everything).partial == (
        "_C: its source cutlass could not be fetched",
    )
    del everything.files["vllm/vllm-rs"]  # type: ignore[attr-defined]
    whole = parts(vllm_rs=Part(RUST, Kind.RUST, Kind.RUST))
    (reason,) = complete(wheel, FOUND, whole, everything).partial
    assert reason == "vllm-rs: its build made no such file (1 file, as vllm/vllm-rs)"
    theirs = official(tmp_path, INTERFACE, KERNELS, "vllm/vllm-rs")
    theirs.rows["vllm/own.py"] = Recorded(None, 1)  # type: ignore[index]
    (reason,) = complete(wheel, FOUND, parts(), theirs).partial
    assert reason.startswith("vLLM itself: not in the sources that this wheel was built from")


def test_nothing_is_taken_for_a_module_that_was_not_asked_for(tmp_path: Path) -> None:
    asked = parts(tml_fa4=Part(COPIED, Kind.COPIED, None, "not asked for"))
    theirs = official(tmp_path, INTERFACE, KERNELS, "vllm/vllm-rs")
    done = complete(
        make_wheel(tmp_path, OURS), FOUND, asked, theirs, limited=["built with --without tml_fa4"]
    )
    assert KERNELS not in done.taken
    assert done.partial == ("built with --without tml_fa4", "tml_fa4: not asked for")


def test_without_an_official_wheel_the_modules_alone_decide(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, OURS)
    assert complete(wheel, FOUND, parts()[:2], None).word == "whole"
    assert complete(wheel, FOUND, parts(), None).word == "partial"


@pytest.mark.parametrize(
    ("version", "word"),
    [("0.26.0+cu130.thor", ""), ("0.26.0+cu130.thor.partial", "partial"), ("0.26.0+cu130.thor.smoke", "smoke"),
     ("0.26.0", "")],
)  # fmt: skip
def test_a_partial_wheel_says_so_in_its_name_and_is_not_offered(
    tmp_path: Path, version: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = make_wheel(tmp_path, {"vllm/_C.abi3.so": THOR}, version=version)
    assert incomplete(version) == word
    assert [entry.file for entry in write_index(tmp_path)] == ([] if word else [wheel.name])
    audit = audit_wheel(wheel, ["thor"])
    assert audit.as_dict()["incomplete"] == word
    assert (word in [finding.id for finding in audit.findings]) == bool(word)
    module = scan.Module("vllm/_C.abi3.so", 1, 1, machine="aarch64")
    told = judge("thor", device("thor"), [module], audit.findings)
    assert told.reasons[:1] == ((next(one.text for one in audit.findings if one.id == word),) if word else ())
    report(Result(wheel, wheel, up_to_date=False, seconds=1))
    assert ("pip install" in capsys.readouterr().err) == (not word)


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "aarch64"}, reason="a program of one of the two is needed"
)
def test_a_program_of_another_machine_is_refused_and_one_of_its_own_can_run(tmp_path: Path) -> None:
    program, machine = Path("/bin/true").read_bytes(), platform.machine()
    other = {"x86_64": "thor", "aarch64": "h200"}[machine]
    wheel = make_wheel(tmp_path, {"vllm/_C.abi3.so": THOR, "vllm/__init__.py": b""})
    put = rewrite(wheel, tmp_path / "out", Edits(put={"vllm/vllm-rs": program, "vllm/a.py": b"x = 1\n"}))
    with zipfile.ZipFile(put) as archive:
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in archive.infolist()}
    assert (modes["vllm/vllm-rs"], modes["vllm/a.py"]) == (0o755, 0o644)
    audit = audit_wheel(put, [other], promise=Promise(other, ("_C",)))
    found = {finding.id: finding.text for finding in audit.findings}
    assert found["machine:vllm-rs"].startswith(f"vllm/vllm-rs is for {machine}")
    assert "vllm/vllm-rs" in [module.path for module in audit.modules]


def test_a_wheel_that_lacks_what_could_not_be_had_is_built_again(tmp_path: Path) -> None:
    places = Places(tmp_path / "cache", tmp_path / "build", tmp_path / "wheels")
    places.wheels.mkdir()

    def keep(request: Request, version: str) -> bool:
        plan = make_plan(request, places)
        wheel = make_wheel(places.wheels, {"vllm/_C.abi3.so": THOR}, version=version)
        said = {"size": wheel.stat().st_size, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
        facts = sealed({"schema": 2, "plan": {"fingerprint": plan.fingerprint}, "wheel": said})
        wheel.with_name(wheel.stem + ".manifest.json").write_text(json.dumps(facts))
        return published(plan) is not None

    asked = Request(tag="v0.12.0", device="thor")
    assert not keep(asked, "0.12.0+cu130.thor.partial")
    assert keep(asked, "0.12.0+cu130.thor")
    assert keep(dataclasses.replace(asked, only=("_moe_C",)), "0.12.0+cu130.thor.partial")


def test_another_project_s_module_of_the_same_name_is_not_vllms(tmp_path: Path) -> None:
    """DeepGEMM's is called _C, too: with it alone, a wheel was ready."""
    name = "vllm/third_party/deep_gemm/_C.cpython-311-aarch64-linux-gnu.so"
    alone = audit_wheel(make_wheel(tmp_path, {name: THOR, "vllm/__init__.py": b""}), ["thor"])
    assert alone.devices["thor"].verdict == "not usable"
    assert any("has no _C" in reason and "every model" in reason for reason in alone.devices["thor"].reasons)
    both = make_wheel(tmp_path, {name: THOR, "vllm/_C.abi3.so": THOR}, version="0.12.1")
    found = audit_wheel(both, ["thor"], promise=Promise("thor", ("_C",), native=("_C",)))
    assert not any(one.id.endswith("deep_gemm._C") and one.severity == "error" for one in found.findings)


def test_imports_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    members = {
        "vllm/__init__.py": b"",
        "vllm/a.py": b"from vllm.cute import utils\nimport vllm._C\nfrom vllm.b import two\n",
        "vllm/b.py": b"two = 2\ntry:\n    import vllm.nowhere\nexcept ImportError:\n    pass\n",
        "vllm/_C.abi3.so": THOR,
    }
    places = Places(tmp_path / "cache", tmp_path / "build", tmp_path / "wheels")
    assert unresolved(make_wheel(tmp_path, members), places) == {"vllm.cute:utils": ["vllm.a"]}
    whole = {**members, "vllm/cute/__init__.py": b"", "vllm/cute/utils.py": b""}
    assert unresolved(make_wheel(tmp_path, whole, version="0.12.1"), places) == {}


def test_a_link_in_the_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/cute").symlink_to("/nowhere")
    with pytest.raises(PackageFailed, match=r"vllm/cute would be a link to /nowhere"):
        check_links(tmp_path)
