"""The matrix on small releases, the page, the suggestions, and the defaults that rest on them."""

from __future__ import annotations

import html
import json
import re
import subprocess
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chromium import chromium

from build_recipes.door.program import program
from build_recipes.kit.errors import CouldNotCheck
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.verify.check import Asked, Checker, show
from build_recipes.verify.judge import matrix, suggest
from build_recipes.verify.read import releases
from build_recipes.verify.read.tree import Tree, open_tree
from build_recipes.verify.show import heatmap
from build_recipes.verify.show.documents import Pairs
from build_recipes.verify.show.page import page, pairs_page

OMNI = {
    "1.0rc1": {"__init__.py": "from vllm.config import Old"},
    "1.1": {"__init__.py": "from vllm_omni import w\nfrom vllm.config import New", "w.py": "x = 1"},
    "1.2": {
        "__init__.py": "try:\n    from vllm_omni import w\nexcept ImportError:\n    from vllm.config import Fallback",
        "w.py": "from vllm.config import New\nfrom vllm_omni.h import run\nrun()",
        "h.py": "def run():\n    from vllm.late import thing",
        "models/m/m.py": "from vllm.config import New, Newest",
        "platforms/npu/w.py": "from vllm.nowhere import x",
    },
}
VLLM = {
    "1.0.0": {"config.py": "class Old: ...", "late.py": "thing = 1"},
    "1.1.0": {"config.py": "class Old: ...\nclass New: ...", "late.py": "thing = 1"},
    "1.1.1": {"config.py": "class New: ...\nclass Fallback: ...", "late.py": ""},
    "1.2.0": {
        "config.py": "class New: ...\nclass Newest: ...",
        "late.py": "thing = 1",
        "old.py": "class Old: ...",
    },
}
EXPECTED = {
    "1.0rc1": [0, 0, 1, 1],
    "1.1": [1, 0, 0, 0],
    "1.2": [4, 1, 2, 0],
}


def _release(places: Places, package: str, version: str, files: dict[str, str]) -> releases.Release:
    """A release in the cache, as a download leaves it."""
    path = places.cache / (
        f"{package}-{version}-py3-none-any.whl" if package == "vllm_omni" else f"vllm-{version}.tar.gz"
    )
    members = {f"{package}/{name}": text for name, text in {"__init__.py": "", **files}.items()}
    project = package.replace("_", "-")
    meta = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
    if package == "vllm_omni":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in {**members, f"{package}-{version}.dist-info/METADATA": meta}.items():
                wheel.writestr(name, text)
    else:
        with tarfile.open(path, "w:gz") as sdist:
            for name, text in {**members, "PKG-INFO": meta}.items():
                entry = tarfile.TarInfo(f"vllm-{version}/{name}")
                entry.size = len(text)
                sdist.addfile(entry, BytesIO(text.encode()))
    sha256 = file_sha256(path)
    target = places.downloads / sha256 / path.name
    target.parent.mkdir(parents=True)
    path.rename(target)
    return releases.Release(version=version, filename=path.name, url="http://127.0.0.1:9/x", sha256=sha256)


@pytest.fixture
def published(places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Places:
    monkeypatch.setattr(suggest, "SHIPPED", tmp_path / "none.toml")
    for package, versions in (("vllm_omni", OMNI), ("vllm", VLLM)):
        found = [_release(places, package, version, files) for version, files in versions.items()]
        _listing(places, package, found)
    return places


def _listing(places: Places, package: str, found: list[releases.Release]) -> None:
    path = places.cache / "compat" / f"releases-{package.replace('_', '-')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(releases.Listing(project=package, read=9e9, releases=found)))


def _numbers(found: matrix.Matrix) -> dict[str, list[int]]:
    return {o: [found.cells[o, v].decisive for v in found.vllm] for o in found.omni}


@pytest.mark.parametrize("workers", [1, 2])
def test_all_pairs(published: Places, workers: int) -> None:
    found = matrix.compute(published, workers=workers)
    assert _numbers(found) == EXPECTED
    assert found.clean_omni("1.1.0") == ["1.0rc1", "1.1"]
    assert found.clean_vllm("1.2") == ["1.2.0"]
    assert {b.tier for b in found.cells["1.2", "1.2.0"].breaks} == {"platform"}


def test_a_cell_is_what_the_pair_alone_gives(published: Places) -> None:
    """The short way (tables, and only touched modules played) and the long way agree in every break."""
    found = matrix.compute(published, workers=1)
    checker = Checker(published)
    for (omni, vllm), cell in found.cells.items():
        report = checker.judge(checker.release("vllm_omni", omni), checker.release("vllm", vllm), calls=False)
        short = [(b.module, b.name, b.file, b.line, b.tier, b.chain) for b in cell.breaks]
        assert short == [(b.module, b.name, b.file, b.line, b.tier, b.chain) for b in report.breaks], (
            omni,
            vllm,
        )


def test_where_names_went_and_who_had_them_last(published: Places) -> None:
    found = matrix.compute(published, workers=1)
    assert [b.moved_to for b in found.cells["1.0rc1", "1.1.1"].breaks] == ["last in 1.1.0"]
    assert [b.moved_to for b in found.cells["1.0rc1", "1.2.0"].breaks] == ["vllm.old"]
    checker = Checker(published)
    report = checker.judge(checker.release("vllm_omni", "1.0rc1"), checker.release("vllm", "1.1.1"))
    assert [b.moved_to for b in report.breaks] == ["was in 1.0.0"]  # the pair's own vLLM: no other is read


def test_a_new_release_costs_one_row(published: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix.compute(published, workers=1)
    known = releases.listing("vllm-omni", published).releases
    new = _release(published, "vllm_omni", "1.3", {"__init__.py": "from vllm.config import Newest"})
    _listing(published, "vllm_omni", [*known, new])
    opened: list[str] = []

    def seen(path: Path, *rest: Any) -> Tree:
        opened.append(path.name)
        return open_tree(path, *rest)

    monkeypatch.setattr(matrix, "open_tree", seen)
    found = matrix.compute(published, workers=1)
    assert _numbers(found) == {**EXPECTED, "1.3": [1, 1, 1, 0]}
    assert [name for name in opened if name.startswith("vllm_omni")] == [new.filename] * 2
    opened.clear()
    assert _numbers(matrix.compute(published, workers=1)) == _numbers(found)
    assert opened == []


def test_a_release_that_cannot_be_read_is_named(published: Places) -> None:
    known = releases.listing("vllm", published).releases
    gone = releases.Release(
        version="1.3.0", filename="vllm-1.3.0.tar.gz", url="http://127.0.0.1:9/x", sha256="ab" * 32
    )
    from build_recipes.sources import download

    _listing(published, "vllm", [*known, gone])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "ATTEMPTS", 1)
        found = matrix.compute(published, workers=1)
    assert list(found.unread) == ["vllm 1.3.0"]
    assert ("1.1", "1.3.0") not in found.cells and found.cells["1.1", "1.2.0"].decisive == 0
    assert "?" not in json.dumps(heatmap.as_json(found)["cells"])


def test_the_page_holds_every_break(published: Places) -> None:
    found = matrix.compute(published, workers=1)
    text = page(found)
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    cell = data["cells"]["1.0rc1 1.2.0"]
    assert [[data["texts"][i] for i in row] for row in cell] == [
        [
            "entry",
            "missing-name",
            "vllm.config.Old",
            "vllm_omni/__init__.py:1",
            "now in vllm.old",
            "vllm_omni",
        ]
    ]
    assert not re.search(r"https?://|src=|@import", text)
    assert "compatible" not in text


_CLICK = """
<script>
document.querySelector("td button[aria-label$=': 1']").click();
const shown = document.querySelector("#breaks code").getBoundingClientRect(), page = document.documentElement;
parent.postMessage(JSON.stringify([shown.left, shown.top, shown.right, shown.bottom, innerWidth, innerHeight,
  page.scrollWidth, document.querySelector("#breaks").textContent]), "*");
</script>
"""
_FRAME = """<!doctype html><script>
onmessage = event => { document.documentElement.dataset.seen = event.data; };
</script><iframe src="page.html" style="border: 0; width: WIDTHpx; height: 800px"></iframe>"""
"""A window is 500 wide at least; a frame is not."""


_MEASURE = """<script>
const wide = [...document.querySelectorAll("main *")].map(e => e.getBoundingClientRect().right);
parent.postMessage(JSON.stringify([innerWidth, document.documentElement.scrollWidth, Math.max(...wide),
  [...document.querySelectorAll("a[href^='#']")].every(a => document.getElementById(a.getAttribute("href").slice(1))),
  document.body.innerText]), "*");
</script>
"""


def _seen(folder: Path, text: str, width: int) -> list[Any]:
    """What a page says of itself in a real browser, as wide as a phone or a screen."""
    program, environment = chromium()
    (folder / "page.html").write_text(text)
    frame = folder / "frame.html"
    frame.write_text(_FRAME.replace("WIDTH", str(width)))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--dump-dom"]
    words += ["--virtual-time-budget=5000"]
    ended = subprocess.run(
        [program, *words, f"--user-data-dir={folder / 'profile'}", frame.as_uri()],
        env=environment or None,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seen = re.search(r'data-seen="(.*?)"', ended.stdout)
    assert seen is not None
    found: list[Any] = json.loads(html.unescape(seen[1]))
    return found


@pytest.mark.parametrize("width", [390, 1280])
def test_what_a_click_opens_is_seen(published: Places, tmp_path: Path, width: int) -> None:
    """No scrolling, neither down nor aside."""
    text = page(matrix.compute(published, workers=1)) + _CLICK
    left, top, right, bottom, wide, high, needed, told = _seen(tmp_path, text, width)
    assert 0 <= left < right <= wide and 0 <= top < bottom <= high
    assert needed <= wide
    assert wide == width and "vllm.config.Newest" in told


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("number", [1, 3])
def test_a_page_of_pairs_fits(published: Places, tmp_path: Path, width: int, number: int) -> None:
    """One package or several: nothing is wider than the window, and each link of the overview leads somewhere."""
    checker = Checker(published)
    vllm = checker.release("vllm", "1.0.0")
    documents = []
    for version in ["1.2", "1.1", "1.0rc1"][:number]:
        document = checker.judge(checker.release("vllm_omni", version), vllm).as_json()
        document["warnings"] = [{**b, "file": "x" * 90 + "/" + b["file"]} for b in document["breaks"]]
        documents.append(document)
    documents[-1]["error"] = "why/it/" + "could_not_be_" * 12 + "judged"
    wide, needed, right, linked, told = _seen(tmp_path, pairs_page(documents) + _MEASURE, width)
    assert wide == width and needed <= wide and right <= wide and linked
    assert all(f"vllm-omni {d['omni']} on vLLM 1.0.0" in told for d in documents)
    assert ("3 packages on vLLM 1.0.0" in told) == (number == 3)


def test_the_document(published: Places) -> None:
    document = heatmap.as_json(matrix.compute(published, workers=1))
    msgspec.convert(document, Pairs)
    assert document["cells"]["1.2"]["1.2.0"] == {"verdict": "no-break-found", "breaks": 0, "platform": 1}
    assert document["suggest"]["omni"]["1.2.0"] == ["1.1", "1.2"]
    assert document["suggest"]["vllm"]["1.1"] == ["1.1.0", "1.1.1", "1.2.0"]


def test_suggestions_and_the_default(published: Places) -> None:
    checker = Checker(published)
    chosen = checker.omni(Asked(), checker.release("vllm", "1.1.0"))
    assert chosen.version == "1.1"  # judged now: no matrix was made
    matrix.compute(published, workers=1)
    checker = Checker(published)
    report = checker.judge(checker.release("vllm_omni", "1.2"), checker.release("vllm", "1.1.1"))
    assert report.suggest["omni"] == ["1.1"] and report.suggest["vllm"] == ["1.2.0"]
    assert report.suggest["nearest"] == {"omni": "1.1", "vllm": "1.2.0"}
    assert report.suggest["from"].startswith("matrix of 20")
    assert checker.omni(Asked(omni="latest"), checker.release("vllm", "1.0.0")).version == "1.2"
    assert checker.omni(Asked(), checker.release("vllm", "1.1.1")).version == "1.1"


def test_nothing_can_be_fetched(places: Places) -> None:
    for package in ("vllm_omni", "vllm"):
        entry = releases.Release(
            version="1.0", filename="x.whl", url="http://127.0.0.1:9/x", sha256="cd" * 32
        )
        _listing(places, package, [entry])
    from build_recipes.sources import download

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(CouldNotCheck, match="no release could be fetched"),
    ):
        patch.setattr(download, "ATTEMPTS", 1)
        matrix.compute(places, workers=1)


def test_calls_and_classes_that_fail_an_import_count(places: Places) -> None:
    """What the pair alone is told: with names, calls and classes."""
    omni = {
        "__init__.py": "from vllm.calls import plain\nx = plain(1, b=2)",
        "k.py": "from vllm.calls import S\nclass Mine(S):\n    extra: int\n",
    }
    struct = "import msgspec\nclass S(msgspec.Struct):\n    a: int"
    vllm = {"1.1.0": "def plain(a, b=1): ...\n" + struct, "1.2.0": "def plain(a): ...\n" + struct + " = 1"}
    _listing(places, "vllm_omni", [_release(places, "vllm_omni", "1.1", omni)])
    _listing(places, "vllm", [_release(places, "vllm", v, {"calls.py": text}) for v, text in vllm.items()])
    found = matrix.compute(places, workers=1)
    assert _numbers(found) == {"1.1": [0, 2]}
    checker = Checker(places)
    report = checker.judge(checker.release("vllm_omni", "1.1"), checker.release("vllm", "1.2.0"))
    cell = found.cells["1.1", "1.2.0"]
    assert sorted((b.kind, b.file, b.line) for b in cell.breaks) == sorted(
        (b.kind, b.file, b.line) for b in report.breaks
    )


def test_what_is_kept_changes_no_verdict(published: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """Cold, warm, after a matrix, and after other pairs in any order: the same text."""
    pairs = [("1.1", "1.0.0"), ("1.2", "1.0.0"), ("1.2", "1.1.1"), ("1.0rc1", "1.2.0"), ("1.1", "1.2.0")]

    def told(checker: Checker, omni: str, vllm: str) -> tuple[dict[str, Any], str]:
        report = checker.judge(checker.release("vllm_omni", omni), checker.release("vllm", vllm))
        capsys.readouterr()
        show(report)
        document = report.as_json()
        assert document.pop("suggest")["from"] == made  # it says itself what it is from
        return document, capsys.readouterr().err

    made = None
    store = published.cache / "compat" / "parsed.sqlite"
    cold = {}
    for pair in pairs:
        for path in store.parent.glob("parsed.sqlite*"):
            path.unlink()
        cold[pair] = told(Checker(published), *pair)
    went = {b["moved_to"] for document, _ in cold.values() for b in document["breaks"]}
    assert {"was in 1.1.0", "vllm.old"} <= went
    for order in (pairs, pairs[::-1]):
        checker = Checker(published)
        assert {pair: told(checker, *pair) for pair in order} == cold
    made = f"matrix of {suggest.remember(Checker(published).store, matrix.compute(published).cells).made}"
    assert {pair: told(Checker(published), *pair) for pair in pairs} == cold
    with Checker(published).store.connection as connection:
        connection.execute("DELETE FROM entry WHERE kind LIKE 'report%'")
    assert {pair: told(Checker(published), *pair) for pair in pairs} == cold


def test_one_command_makes_the_counts_that_come_with_the_project(
    published: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--matrix --record`` writes them once, and keeps those of pairs that it did not judge."""
    old = suggest.Counts(made="2025-01-01", counts={"0.9": {"0.8.5": 3}, "1.1": {"1.0.0": 9}})
    assert suggest.ship(old)
    program.run(["armory", "verify-omni", "--matrix", "--record"], exit=False)
    shipped = suggest.SHIPPED.read_text()
    assert '"0.9" = { "0.8.5" = 3 }' in shipped and '"1.1" = { "1.0.0" = 1, "1.1.0" = 0' in shipped
    program.run(["armory", "verify-omni", "--matrix", "--record"], exit=False)
    assert suggest.SHIPPED.read_text() == shipped
    assert "nothing new for" in capsys.readouterr().err
