"""No verdict is of another tree than the one that was given, and none is told of what was not read."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat_trees import Bench, write

from build_recipes.verify.judge.verdict import judge
from build_recipes.verify.read.store import Store
from build_recipes.verify.read.tree import OMNI, VLLM, Tree, open_tree


def _vllm(root: Path, version: str, *compiled: str) -> Path:
    write(root, VLLM, {}, version)
    for name in compiled:
        (root / VLLM / name).write_bytes(b"\x7fELF")
    return root


def test_what_is_beside_the_source_files_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    omni = bench.tree(OMNI, {"w.py": "import vllm._C"})
    seen = []
    for folder, version, compiled in (
        ("a", "7.0", ()),
        ("b", "8.0", ("_C.abi3.so",)),
        ("c", "7.0", ("_C.abi3.so",)),
    ):
        tree = open_tree(_vllm(tmp_path / folder, version, *compiled), VLLM, bench.store)
        report = judge(omni, tree)
        seen.append((tree.identity, report.vllm, report.verdict))
    assert [(version, verdict) for _, version, verdict in seen] == [
        ("7.0", "breaks"),
        ("8.0", "no-break-found"),
        ("7.0", "no-break-found"),
    ]
    assert len({identity for identity, *_ in seen}) == 3


@pytest.mark.parametrize(
    "part", ["version", "requires", "compiled", "extras", "mentions", "source", "origin", "unread"]
)
def test_every_part_is_in_the_identity(tmp_path: Path, part: str) -> None:
    store = Store(tmp_path / "s.sqlite")
    one = write(tmp_path / "one", VLLM, {"a.py": "X = 1"})
    two = write(tmp_path / "two", VLLM, {"a.py": "X = 2" if part == "source" else "X = 1"})
    if part == "version":
        write(tmp_path / "two", VLLM, {}, "2.0")
    elif part == "requires":
        with (two / "PKG-INFO").open("a") as stream:
            stream.write("Requires-Dist: torch\n")
    elif part == "compiled":
        (two / VLLM / "_C.abi3.so").touch()
    elif part == "extras":
        (two / "setup.py").write_text("CMakeExtension(name='vllm._C')")
    elif part == "mentions":
        (two / VLLM / "x.yaml").write_text("cls: vllm.a.X")
    elif part == "unread":
        for root, size in ((one, 8_000_001), (two, 9_000_001)):
            (root / VLLM / "long.py").write_bytes(b"#" * size)

    def open_(root: Path, name: str) -> Tree:
        return open_tree(root.rename(tmp_path / name), VLLM, store)

    first = open_(one, "x").identity
    (tmp_path / "x").rename(tmp_path / "old")
    same = part not in ("origin",)
    assert (open_(two, "x" if same else "y").identity) != first


UNREADABLE = {
    "does not parse": "def f(:\n",
    "a NUL byte": "x = 1\0\n",
    "nested too deeply": "x = " + "(" * 2000 + ")" * 2000,
    "nested statements": "".join(" " * n + "if x:\n" for n in range(150)) + " " * 150 + "pass\n",
    "newer than any Python": "def f():\n    match x:\n        case 1 then 2\n",
    "an error in a body": "def g():\n    x = = 1\n",
    "not text": "\xff\xfe\xff",
    "an encoding that is none": "# coding: klingon\n",
    "not in the encoding it names": "# coding: ascii\nx = '\xc3\xa9'\n",
    "an encoding against its first bytes": "\xef\xbb\xbf# coding: latin-1\n",
    "names that its encoding has not": "# coding: latin-1\nN\xc3\xa4me = 1\n",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=list(UNREADABLE))
@pytest.mark.parametrize("where", ["vllm", "below vllm", "around vllm", "own", "own platform", "beside"])
def test_a_file_that_was_not_read(tmp_path: Path, text: str, where: str) -> None:
    """The verdict is 'unknown' where the import needs that file, and only there."""
    bench = Bench(tmp_path)
    omni = {"w.py": "from vllm.a import f"}
    vllm = {"a.py": "from vllm.b import g\ndef f(): ...", "b.py": "def g(): ...", "other.py": ""}
    package, bad = {
        "vllm": ("vllm", "a.py"),
        "below vllm": ("vllm", "b.py"),
        "around vllm": ("vllm", "__init__.py"),
        "own": ("vllm_omni", "x.py"),
        "own platform": ("vllm_omni", "platforms/npu/x.py"),
        "beside": ("vllm", "other.py"),
    }[where]
    files = omni if package == OMNI else vllm
    files[bad] = ""
    trees = {}
    for name, own in ((OMNI, omni), (VLLM, vllm)):
        bench.count += 1
        root = write(tmp_path / str(bench.count), name, own)
        if name == package:
            (root / name / bad).write_bytes(text.encode("latin-1"))
        trees[name] = open_tree(root, name, bench.store)
    report = judge(trees[OMNI], trees[VLLM])
    wanted = "no-break-found" if where in ("own platform", "beside") else "unknown"
    assert (report.verdict, report.breaks) == (wanted, [])
    assert (f"{package}/{bad}" in report.unread) == (wanted == "unknown")
    again = judge(trees[OMNI], open_tree(tmp_path / str(bench.count), VLLM, Store(bench.store.path)))
    assert again.unread == report.unread, "and the same from what was kept"


def test_a_break_is_a_break_whatever_was_not_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    report = bench.judge({"w.py": "from vllm import gone", "x.py": "def (:"}, {})
    assert report.verdict == "breaks"


def test_three_thousand_files_in_a_row(tmp_path: Path) -> None:
    """Star imports, re-exports and imports of the package itself, each 3000 deep."""
    count = 3000
    bench = Bench(tmp_path)
    vllm = {f"s{n}.py": f"from vllm.s{n + 1} import *" for n in range(count)} | {f"s{count}.py": "there = 1"}
    vllm |= {f"r{n}.py": f"from vllm.r{n + 1} import there" for n in range(count)} | {
        f"r{count}.py": "there = 1"
    }
    omni = {
        "w.py": "from vllm.s0 import nowhere",
        "v.py": "from vllm.s0 import there",
        "u.py": "from vllm.r0 import there",
        "t.py": "from vllm.r0 import nowhere",
        **{f"c{n}.py": f"import vllm_omni.c{n + 1}" for n in range(500)},
        "c500.py": "from vllm.r0 import nowhere2",
    }
    report = bench.judge(omni, vllm)
    assert sorted((b.file, b.name) for b in report.breaks) == [
        ("vllm_omni/c500.py", "nowhere2"),
        ("vllm_omni/t.py", "nowhere"),
        ("vllm_omni/w.py", "nowhere"),
    ]


def test_what_self_is_asked_for_before(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    then = {"b.py": "class B:\n    def __init__(self):\n        self.x = self.y = self.z = self.v = 1"}
    now = {"b.py": "class B: ..."}
    omni = """
        from vllm.b import B
        class C(B):
            def one(self):
                if hasattr(self, "x"):
                    return self.x
            def two(self):
                return getattr(self, "y", None) or self.y
            def three(self):
                return self.z
            def four(self):
                return self.v
            def five(self):
                return hasattr(self, "v") and self.v
        """
    report = judge(bench.tree(OMNI, {"w.py": omni}), bench.tree(VLLM, now), bench.tree(VLLM, then))
    assert [c.callee for c in report.calls] == ["B.z", "B.v"]
