"""The requirements of a pair, resolved by uv for a device against a real index on loopback."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat_trees import Bench

from build_recipes.facts.device import device
from build_recipes.verify.read.tree import OMNI, VLLM
from build_recipes.verify.run import requirements
from build_recipes.verify.run.requirements import RESOLVED, UNKNOWN, UNSATISFIABLE, Requirements

INDEX = {
    "plain": ["plain-1.0-py3-none-any.whl", "plain-2.0-py3-none-any.whl"],
    "arm-only": ["arm_only-1.0-py3-none-manylinux_2_17_aarch64.whl"],
    "x86-only": ["x86_only-1.0-py3-none-manylinux_2_17_x86_64.whl"],
    "new-glibc": ["new_glibc-1.0-py3-none-manylinux_2_99_aarch64.whl"],
    "source-only": ["source_only-1.0.tar.gz"],
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    root = tmp_path / "index"
    for project, files in INDEX.items():
        folder = root / project
        folder.mkdir(parents=True)
        links = []
        for name in files:
            path = folder / name
            if name.endswith(".whl"):
                stem, version = name.split("-")[:2]
                with zipfile.ZipFile(path, "w") as wheel:
                    info = f"{stem}-{version}.dist-info"
                    wheel.writestr(
                        f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
                    )
                    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
                    wheel.writestr(f"{info}/RECORD", "")
            else:
                path.write_bytes(b"not looked into")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            links.append(f'<a href="{name}#sha256={digest}">{name}</a>')
        (folder / "index.html").write_text(f"<!doctype html><html><body>{''.join(links)}</body></html>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
        monkeypatch.delenv("UV_OFFLINE", raising=False)
        yield server
        server.shutdown()


def _resolve(
    tmp_path: Path, omni: str, vllm: str, *, name: str = "thor", offline: bool = False
) -> Requirements:
    bench = Bench(tmp_path)
    trees = []
    for package, lines in ((OMNI, omni), (VLLM, vllm)):
        tree = bench.tree(package, {})
        tree.index.requires = [line.strip() for line in lines.split(",") if line.strip()]
        trees.append(tree)
    return requirements.resolve(trees[0], trees[1], device(name), "3.12", offline=offline)


@pytest.mark.parametrize(
    "case",
    [
        ("plain", "plain<2", RESOLVED, ""),
        ("plain==2.0", "plain==1.0", UNSATISFIABLE, "plain==1.0"),
        ("arm-only, plain", "", RESOLVED, ""),
        ("x86-only", "", UNSATISFIABLE, "x86_64"),
        ("new-glibc", "", UNSATISFIABLE, "new-glibc"),
        ("nowhere", "", UNSATISFIABLE, "nowhere"),
        ("x86-only ; platform_machine == 'x86_64'", "plain", RESOLVED, ""),
        ("x86-only ; extra == 'gpu', vllm>=9", "plain", RESOLVED, ""),
    ],
)
def test_on_a_device(index: object, tmp_path: Path, case: tuple[str, str, str, str]) -> None:
    omni, vllm, status, says = case
    found = _resolve(tmp_path, omni, vllm)
    assert (found.status, found.platform) == (status, "aarch64-manylinux_2_39"), found.why
    assert says in found.why


def test_what_has_wheels_for_other_machines_alone_is_a_finding_of_its_own(
    index: object, tmp_path: Path
) -> None:
    """All of them are named, and whether the rest goes together."""
    found = _resolve(tmp_path / "a", "x86-only==1.0, new-glibc, plain", "source-only")
    assert found.status == UNSATISFIABLE
    assert {(e.name, e.wheels) for e in found.no_wheel} == {
        ("x86-only", ("manylinux_2_17_x86_64",)),
        ("new-glibc", ("manylinux_2_99_aarch64",)),
    }
    assert (found.count, found.from_source) == (1, ("source-only",))
    assert "x86-only==1.0 has no wheel for it" in "; ".join(map(str, found.no_wheel))
    conflict = _resolve(tmp_path / "b", "x86-only, plain==2.0", "plain==1.0")
    assert conflict.status == UNSATISFIABLE and conflict.count == 0
    assert _resolve(tmp_path / "c", "plain==2.0", "plain==1.0").no_wheel == ()


def test_another_device_has_other_wheels(index: object, tmp_path: Path) -> None:
    assert _resolve(tmp_path / "a", "x86-only", "", name="h200").status == RESOLVED
    assert _resolve(tmp_path / "b", "arm-only", "", name="h200").status == UNSATISFIABLE


def test_what_has_no_wheel_is_named_and_not_run(index: object, tmp_path: Path) -> None:
    found = _resolve(tmp_path, "source-only, plain", "")
    assert (found.status, found.from_source, found.count) == (RESOLVED, ("source-only",), 1), found.why


def test_without_a_network_the_cache_answers(index: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    assert _resolve(tmp_path / "a", "plain", "", offline=True).status == UNKNOWN
    assert _resolve(tmp_path / "b", "plain", "").status == RESOLVED
    index.shutdown()
    assert _resolve(tmp_path / "c", "plain", "", offline=True).status == RESOLVED
    shutil.rmtree(tmp_path / "uv")
    assert _resolve(tmp_path / "d", "plain", "", offline=True).status == UNKNOWN
