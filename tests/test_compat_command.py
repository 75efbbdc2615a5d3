"""`invoke verify-omni` as a user meets it: files, defaults, exit codes, bad input."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from compat_trees import write

from build_recipes.kit.errors import (
    ArmoryError,
    CouldNotCheck,
    OmniBreaks,
    UnknownTag,
    UnsafeArchive,
    UsageError,
)
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.verify.check import Checker, default_tag
from build_recipes.verify.command import verify
from build_recipes.verify.options import Options
from build_recipes.verify.read import releases
from build_recipes.verify.read.store import Store
from build_recipes.verify.read.tree import VLLM, open_tree
from build_recipes.verify.run import environment
from build_recipes.verify.show.documents import Pair, Pairs, Several, schema


def _wheel(path: Path, files: dict[str, str], name: str = "vllm-omni", version: str = "1.0") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
        info = f"{name.replace('-', '_')}-{version}.dist-info/METADATA"
        archive.writestr(info, f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return path


def _sdist(path: Path, files: dict[str, str], top: str = "vllm-1.0") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, text in {"PKG-INFO": "Name: vllm\nVersion: 1.0\n", **files}.items():
            entry = tarfile.TarInfo(f"{top}/{member}")
            entry.size = len(text)
            archive.addfile(entry, BytesIO(text.encode()))
    return path


@pytest.fixture
def omni(tmp_path: Path) -> Path:
    return _wheel(
        tmp_path / "vllm_omni-1.0-py3-none-any.whl", {"vllm_omni/__init__.py": "from vllm import LLM\n"}
    )


def _verify(omni: Path | str, vllm: Path | str = "", tag: str = "", json: bool = False) -> None:
    verify(Options(tag=tag, omni=str(omni), vllm=str(vllm), json=json))


def test_the_document(places: Places, tmp_path: Path, omni: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vllm = _sdist(tmp_path / "vllm-1.0.tar.gz", {"vllm/__init__.py": "", "vllm/llm.py": "class LLM: ...\n"})
    with pytest.raises(OmniBreaks) as caught:
        _verify(omni, vllm, json=True)
    assert caught.value.exit_code == 62
    document = json.loads(capsys.readouterr().out)
    assert msgspec.convert(document, Pair).verdict == "breaks"
    assert list(document) == [
        "package",
        "omni",
        "vllm",
        "verdict",
        "breaks",
        "calls",
        "warnings",
        "suggest",
        "unread",
    ]
    assert (document["omni"], document["vllm"], document["verdict"]) == ("1.0", "1.0", "breaks")
    assert document["breaks"] == [
        {
            "module": "vllm",
            "name": "LLM",
            "file": "vllm_omni/__init__.py",
            "line": 1,
            "kind": "missing-name",
            "tier": "entry",
            "guard": None,
            "chain": ["vllm_omni"],
            "moved_to": "vllm.llm",
        }
    ]


def test_no_break_is_never_called_compatible(
    places: Places, tmp_path: Path, omni: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vllm = _sdist(tmp_path / "vllm-1.0.tar.gz", {"vllm/__init__.py": "LLM = 1\n"})
    _verify(omni, vllm)
    seen = capsys.readouterr()
    assert "no import break found" in seen.err
    assert "compatible" not in seen.err + seen.out


def test_the_same_file_is_parsed_once(places: Places, tmp_path: Path, omni: Path) -> None:
    vllm = _sdist(tmp_path / "vllm-1.0.tar.gz", {"vllm/__init__.py": "LLM = 1\n"})
    _verify(omni, vllm)
    checker = Checker(places)
    left, right = checker.file(str(omni), "vllm_omni"), checker.file(str(vllm), "vllm")
    assert left._contents is None and right._contents is None
    checker.judge(left, right)
    assert left._contents is None and right._contents is None


def test_trees_by_folder_and_by_package(places: Places, tmp_path: Path) -> None:
    write(tmp_path / "o", "vllm_omni", {"__init__.py": "from vllm import LLM"})
    write(tmp_path / "v", "vllm", {"__init__.py": "LLM = 1"})
    _verify(tmp_path / "o", tmp_path / "v")
    _verify(tmp_path / "o" / "vllm_omni", tmp_path / "v" / "vllm")
    (tmp_path / "v" / "vllm" / "__init__.py").write_text("")
    with pytest.raises(OmniBreaks):
        _verify(tmp_path / "o", tmp_path / "v")


def _bad_files(folder: Path) -> list[tuple[Path, type[ArmoryError], str]]:
    folders = [folder / str(number) for number in range(9)]
    for entry in folders:
        entry.mkdir()
    wheel, module = "vllm-1-py3-none-any.whl", {"vllm/__init__.py": "x" * 9}
    return [
        (
            _wheel(folders[0] / "numpy.whl", {"numpy/__init__.py": ""}, "numpy"),
            CouldNotCheck,
            "it is numpy 1",
        ),
        (_cut(_wheel(folders[1] / wheel, module)), CouldNotCheck, "cut short"),
        (_cut(_sdist(folders[2] / "vllm-1.tar.gz", module)), CouldNotCheck, "cut short"),
        (_wheel(folders[3] / wheel, {"../vllm/__init__.py": ""}), UnsafeArchive, "../vllm"),
        (_wheel(folders[4] / wheel, {"/vllm/__init__.py": ""}), UnsafeArchive, "/vllm"),
        (_sdist(folders[5] / "vllm-1.tar.gz", {"../../vllm/x.py": ""}), UnsafeArchive, "../../vllm"),
        (folders[6] / "absent.whl", CouldNotCheck, "does not exist"),
        (_text(folders[7] / "vllm.txt"), CouldNotCheck, "not a wheel, sdist or folder"),
        (_text(folders[8] / "x.py").parent, CouldNotCheck, "holds no package vllm"),
    ]


def test_bad_files(places: Places, tmp_path: Path, omni: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, error, says in _bad_files(tmp_path):
        with pytest.raises(error) as caught:
            _verify(omni, path, json=True)
        assert says in caught.value.args[0]
        assert caught.value.advice
        document = json.loads(capsys.readouterr().out)
        assert document["verdict"] == "unknown" and document["breaks"] == []
        assert document["error"] == caught.value.args[0]
        msgspec.convert(document, Pair)


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-60])
    return path


def _text(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("text")
    return path


def _list(places: Places, package: str, *versions: str) -> None:
    """Let the cache hold a listing, as an earlier run leaves it."""
    entries = [
        releases.Release(version=v, filename=f"{v}.whl", url="https://0.0.0.0/x", sha256="00")
        for v in versions
    ]
    found = releases.Listing(project=package, read=9e9, releases=entries)
    import msgspec

    path = places.cache / "compat" / f"releases-{package.replace('_', '-')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(found))


def test_versions_that_do_not_exist(places: Places, omni: Path) -> None:
    _list(places, "vllm", "0.11.0", "0.12.0", "0.14.0", "0.14.1")
    _list(places, "vllm_omni", "0.12.0rc1", "0.14.0")
    with pytest.raises(UnknownTag, match=r"nearest are v0.14.1, v0.14.0"):
        _verify(omni, tag="v0.14.2")
    with pytest.raises(CouldNotCheck, match="nearest are") as caught:
        checker = Checker(places)
        checker.release("vllm_omni", "0.15.0")
    assert caught.value.exit_code == 63
    found = releases.listing("vllm", places).get("v0.14.1")
    assert found and found.version == "0.14.1"


def test_an_index_that_cannot_be_reached(places: Places, omni: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from build_recipes.kit import http
    from build_recipes.sources import registry

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    registry.packages.cache_clear()
    with pytest.raises(CouldNotCheck, match="not known") as caught:
        _verify(omni, tag="v0.12.0")
    assert "--omni FILE --vllm FILE" in caught.value.advice


def test_the_default_tag(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from build_recipes.kit import paths

    monkeypatch.setattr(paths, "LOCKS", tmp_path / "locks")
    with pytest.raises(ArmoryError, match="no wheel is built"):
        default_tag(places)
    (tmp_path / "locks").mkdir()
    for tag in ("v0.9.2", "v0.12.0", "v0.11.0"):
        (tmp_path / "locks" / f"{tag}.toml").touch()
    assert default_tag(places) == "v0.12.0"
    for age, version in ((50, "0.14.0+cu131"), (90, "0.20.0")):
        path = places.wheels / f"vllm-{version}-cp38-abi3-manylinux_2_39_aarch64.whl"
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert default_tag(places) == "v0.14.0"


@pytest.mark.parametrize(
    ("version", "torch"),
    [("0.12.0", "2.9.0"), ("0.24.0", "2.11.0"), ("0.33.0", "2.11.0"), ("0.9.0", "2.11.0")],
)
def test_a_torch_from_pypi_has_a_torchaudio_of_its_version(tmp_path: Path, version: str, torch: str) -> None:
    """torchaudio refuses a torch of another CUDA, and then nothing that imports it can be checked."""
    tree = open_tree(write(tmp_path, VLLM, {}, version), VLLM, Store(tmp_path / "x.sqlite"))
    assert environment.default_torch(tree) == torch


def test_the_schema_that_is_published() -> None:
    """docs/verify-schema.json describes every document; it is made by: python -m build_recipes.verify.show.documents"""
    published = json.loads((Path(__file__).parent.parent / "docs" / "verify-schema.json").read_text())
    assert published == json.loads(json.dumps(schema()))
    assert {"Pair", "Several", "Pairs", "Break", "Requirements"} <= set(published["$defs"])
    assert issubclass(Pairs, msgspec.Struct)


def test_words_that_contradict_each_other(places: Places, omni: Path) -> None:
    for words in (
        {"tag": "v0.12.0", "vllm": "x.whl", "omni": str(omni)},
        {"packages": ("lmcache==0.5.6",), "omni": str(omni)},
        {"packages": ("no package!",)},
        {"packages": ("trl", "no package!"), "vllm": str(omni)},
        {"packages": ("trl", "verl"), "omni": str(omni)},
        {"run": True, "stub": True, "omni": str(omni)},
    ):
        with pytest.raises(UsageError):
            verify(Options(**words))


def test_the_static_answer_is_told_where_nothing_can_be_imported(
    places: Places, tmp_path: Path, omni: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vllm = _sdist(tmp_path / "vllm-1.0.tar.gz", {"vllm/__init__.py": "LLM = 1\n"})
    with pytest.raises(CouldNotCheck, match=r"no vLLM|cannot be"):
        verify(Options(omni=str(omni), vllm=str(vllm), run=True, env="/nowhere", json=True))
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "no-break-found" and "cannot be run" in document["error"]
    msgspec.convert(document, Pair)


def test_names_are_counted_as_names(places: Places, tmp_path: Path) -> None:
    omni = write(tmp_path / "o", "vllm_omni", dict.fromkeys(("a.py", "b.py", "c.py"), "from vllm import LLM"))
    vllm = write(tmp_path / "v", "vllm", {})
    with pytest.raises(OmniBreaks, match=r"1 name is missing in 3 places"):
        _verify(omni, vllm)


def test_a_file_that_was_not_read_has_its_own_exit(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    omni = write(tmp_path / "o", "vllm_omni", {"a.py": "from vllm.b import f"})
    vllm = write(tmp_path / "v", "vllm", {"b.py": "def f(:"})
    with pytest.raises(CouldNotCheck, match=r"could not be read; the first is vllm/b.py") as caught:
        _verify(omni, vllm, json=True)
    assert caught.value.exit_code == 63
    assert json.loads(capsys.readouterr().out)["verdict"] == "unknown"


def test_any_package(places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A platform plugin's own platform is entry; another one's is not; what is guarded is the second line."""
    files = {
        "register.py": "def register(): return 'my_npu.platform.P'",
        "platform.py": "from vllm import gone\nimport q\nif q.is_npu():\n    from vllm import lost\n"
        "if q.is_cuda():\n    from vllm import fine",
        "npu/worker.py": "from vllm import away",
        "rocm/worker.py": "from vllm import other",
        "late.py": "def f():\n    from vllm import later",
    }
    own = write(tmp_path / "p", "my_npu", files)
    (own / "my_npu.egg-info").mkdir()
    (own / "my_npu.egg-info" / "entry_points.txt").write_text(
        "[vllm.platform_plugins]\nnpu = my_npu.register:register\n"
    )
    vllm = write(tmp_path / "v", "vllm", {})
    with pytest.raises(OmniBreaks, match=r"my-npu 1.0 would not import .*: 3 names are missing"):
        verify(
            Options(
                packages=("my-npu",), omni=str(own), vllm=str(vllm), html=str(tmp_path / "p.html"), json=True
            )
        )
    document = json.loads(capsys.readouterr().out)
    told = {(b["name"], b["tier"]) for b in document["breaks"]}
    assert told == {("gone", "entry"), ("lost", "entry"), ("away", "entry"), ("other", "platform")}
    page = (tmp_path / "p.html").read_text()
    assert "vllm.gone" in page and "vllm.later" in page and "in function f" in page


def _many(places: Places, tmp_path: Path) -> Path:
    """Packages of all outcomes in the cache, and a vLLM: one fits, one breaks, one is not read, one is not there."""
    sources = {
        "fits": "from vllm import LLM",
        "breaks": "from vllm.nowhere.at_all.in_this_release.of_this_package import a_name_that_is_long",
        "cut": "from vllm import LLM\ndef f(:",
    }
    for name, text in sources.items():
        wheel = _wheel(tmp_path / f"{name}-1.0-py3-none-any.whl", {f"{name}/__init__.py": text}, name)
        sha256 = file_sha256(wheel)
        (places.downloads / sha256).mkdir(parents=True)
        wheel.rename(places.downloads / sha256 / wheel.name)
        found = releases.Release(
            version="1.0", filename=wheel.name, url="http://127.0.0.1:9/x", sha256=sha256
        )
        listing = places.cache / "compat" / f"releases-{name}.json"
        listing.parent.mkdir(exist_ok=True)
        listing.write_bytes(msgspec.json.encode(releases.Listing(project=name, read=9e9, releases=[found])))
    return _sdist(tmp_path / "vllm-1.0.tar.gz", {"vllm/__init__.py": "LLM = 1\n"})


def test_several_packages(places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document, one page, and the exit code of the worst; each is judged as it is alone."""
    vllm, page = str(_many(places, tmp_path)), tmp_path / "page.html"
    names = ("fits", "breaks==1.0", "cut")
    with pytest.raises(OmniBreaks, match=r"breaks 1\.0 would not import"):
        verify(Options(packages=names, vllm=vllm, html=str(page), json=True))
    document = json.loads(capsys.readouterr().out)
    msgspec.convert(document, Several)
    assert [pair["verdict"] for pair in document["pairs"]] == ["no-break-found", "breaks", "unknown"]
    alone = []
    for name in names:
        with contextlib.suppress(ArmoryError):
            verify(Options(packages=(name,), vllm=vllm, json=True))
        alone.append(json.loads(capsys.readouterr().out))
    assert alone == document["pairs"]
    text = page.read_text()
    for name in ("fits", "breaks", "cut"):
        assert f"{name} 1.0 on vLLM 1.0" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    with pytest.raises(CouldNotCheck):
        verify(Options(packages=("fits", "cut"), vllm=vllm))
    assert "fits 1.0 on vLLM 1.0: no import break found" in capsys.readouterr().err


def test_one_of_several_that_is_not_there(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are judged; why it was not is told of it."""
    from build_recipes.kit import http
    from build_recipes.sources import registry

    vllm, page = str(_many(places, tmp_path)), tmp_path / "page.html"
    (places.cache / "compat" / "releases-cut.json").unlink()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    registry.packages.cache_clear()
    with pytest.raises(CouldNotCheck):
        verify(Options(packages=("cut==1.0", "fits"), vllm=vllm, html=str(page), json=True))
    first, second = json.loads(capsys.readouterr().out)["pairs"]
    assert first["verdict"] == "unknown" and "not known" in first["error"] and first["package"] == "cut"
    assert second["verdict"] == "no-break-found"
    assert "not known" in page.read_text()


def test_no_line_is_longer_than_the_terminal(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """80 columns where there is no terminal; a long path goes on below, and nothing of it is lost."""
    deep = "/".join(["a_folder_of_some_length"] * 6)
    omni = write(
        tmp_path / "o", "vllm_omni", {f"{deep}/w.py": f"from vllm.{'very_long.' * 9}m import {'N' * 60}"}
    )
    with pytest.raises(OmniBreaks):
        _verify(omni, write(tmp_path / "v", "vllm", {}))
    told = capsys.readouterr().err
    assert max(map(len, told.splitlines())) <= 80
    assert f"vllm_omni/{deep}/w.py:1" in re.sub(r"\n\s*", "", told)


def test_an_entry_point_that_is_not_there(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the package's own fault: told, and no break of the pair."""
    own = write(tmp_path / "p", "plug", {"m.py": "def there(): ...\nclass C:\n    def run(): ..."})
    (own / "plug.egg-info").mkdir()
    (own / "plug.egg-info" / "entry_points.txt").write_text(
        "[console_scripts]\nok = plug.m:there\nc = plug.m : C.run [more]\n\n"
        "[vllm.general_plugins]\na = plug.gone:register\nb = plug.m:away\n"
    )
    vllm = write(tmp_path / "v", "vllm", {})
    verify(Options(packages=("plug",), omni=str(own), vllm=str(vllm)))
    told = capsys.readouterr().err
    assert [line for line in told.splitlines() if "not there" in line] == [
        "its own entry point plug.gone:register is not there",
        "its own entry point plug.m:away is not there",
    ]
