"""'Up to date' is said of a wheel whose bytes are what its manifest says, with all that belongs beside it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from crash.tear import WAYS, tear
from test_plan import plan_of
from wheel_maker import make_wheel

from build_recipes.audit.audit import audit_wheel
from build_recipes.build.again import compare
from build_recipes.build.plan import Plan, check_path
from build_recipes.build.request import Request, content_of
from build_recipes.build.stages.published import Published, complete, published, sealed, statement_of
from build_recipes.kit.errors import UsageError
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.wheelhouse.index import write_index


@pytest.fixture
def plan(places: Places) -> Plan:
    return plan_of(places)


@pytest.fixture
def done(plan: Plan) -> Published:
    """A published wheel with its manifest, provenance and index."""
    wheels = plan.places.wheels
    tag = "cp38-abi3-manylinux_2_35_aarch64"
    wheel = make_wheel(wheels, {"vllm/x.py": b"x = 1\n" * 500}, version=plan.wheel_version, tag=tag)
    said = {"name": wheel.name, "size": wheel.stat().st_size, "sha256": file_sha256(wheel)}
    facts = {"schema": 2, "plan": plan.as_dict(), "wheel": said, "provenance": '{"subject": 1}\n'}
    manifest = wheel.with_name(wheel.name.removesuffix(".whl") + ".manifest.json")
    manifest.write_text(json.dumps(sealed(facts), indent=1))
    statement_of(wheel).write_text('{"subject": 1}\n')
    write_index(wheels)
    return Published(wheel, manifest)


@pytest.mark.parametrize("way", WAYS)
def test_a_torn_wheel_or_manifest_is_not_up_to_date(plan: Plan, done: Published, way: str) -> None:
    assert published(plan) == done
    whole = done.manifest.read_bytes()
    tear(done.manifest, way)
    assert published(plan) is None
    done.manifest.write_bytes(whole)
    assert published(plan) == done
    tear(done.wheel, way)
    assert published(plan) is None


PARTS: list[Callable[[Path], Path]] = [
    statement_of,
    lambda wheel: wheel.with_name(f"{wheel.name}.metadata"),
    lambda wheel: wheel.parent / "simple/vllm/index.html",
    lambda wheel: wheel.parent / "simple/vllm/index.json",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", PARTS)
def test_what_belongs_beside_a_wheel_is_completed_without_a_build(
    plan: Plan, done: Published, part: Callable[[Path], Path], way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(plan, done)
    assert capsys.readouterr().err == ""
    path = part(done.wheel)
    before = path.read_bytes()
    tear(path, way)
    if way == "flipped":  # half of a page is what the projects have in common
        text = before.decode()
        path.write_text(
            text.replace(file_sha256(done.wheel)[:8], "00000000") if "sha256" in text else "?" + text
        )
    complete(plan, done)
    assert path.read_bytes() == before
    assert "written again" in capsys.readouterr().err


def test_a_module_that_nothing_can_import_is_an_error(tmp_path: Path) -> None:
    """What GNU ld makes of an empty object; and a module under another's name."""
    for name, text in (("empty", ""), ("good", "void PyInit__C(void) {}\n")):
        (tmp_path / f"{name}.c").write_text(text)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-o", tmp_path / f"{name}.so", tmp_path / f"{name}.c"], check=True
        )
    empty = (tmp_path / "empty.so").read_bytes()
    members = {"vllm/_C.abi3.so": (tmp_path / "good.so").read_bytes(), "vllm/libplain.so": empty}
    good = audit_wheel(make_wheel(tmp_path, members), ["thor"])
    assert not [one for one in good.findings if one.id.startswith("no-entry")]
    members["vllm/_moe_C.abi3.so"] = empty
    bad = audit_wheel(make_wheel(tmp_path, members), ["thor"])
    (found,) = [one for one in bad.failing() if one.id == "no-entry:_moe_C"]
    assert found.breaks and "PyInit__moe_C" in found.text
    members["vllm/_moe_C.abi3.so"] = members["vllm/_C.abi3.so"]
    assert "no-entry:_moe_C" in {
        one.id for one in audit_wheel(make_wheel(tmp_path, members), ["thor"]).failing()
    }


def test_two_wheels_are_compared_by_what_is_in_them(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    one = make_wheel(tmp_path / "a", {"vllm/x.py": b"x = 1\ny = 2\n", "vllm/z.py": b""})
    two = make_wheel(tmp_path / "b", {"vllm/x.py": b"x = 1\ny = 3\n", "vllm/w.py": b""})
    assert compare(one, make_wheel(tmp_path / "c", {"vllm/x.py": b"x = 1\ny = 2\n", "vllm/z.py": b""})).equal
    found = compare(one, two)
    assert found.differs == {"vllm/x.py": "line 2: b'y = 2' then, b'y = 3' now"}
    assert (found.only_then, found.only_now) == (("vllm/z.py",), ("vllm/w.py",))


def test_how_a_wheel_is_built_is_no_part_of_what_is_in_it() -> None:
    how = Request(tag="v0.12.0", offline=True, jobs=3, time_box=60.0, cache="off", mirrors=("a=b",))
    assert content_of(how) == content_of(Request(tag="v0.12.0"))


def test_a_path_that_cmake_would_take_apart_is_refused_before_anything_is_fetched() -> None:
    check_path(Path("/srv/build/v0.12.0-thor"))
    for bad in ("/work/my build/x", "/a;b", "/a$b", "/a'b"):
        with pytest.raises(UsageError, match="in its path"):
            check_path(Path(bad))
