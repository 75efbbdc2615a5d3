"""The static tier of verify-omni, on small trees: each of these was once got wrong somewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from compat_trees import Bench

VLLM = {
    "config/__init__.py": "from .model import ModelConfig\nfrom vllm.config.star import *\n",
    "config/model.py": """
        class Base:
            inherited = 1

        class ModelConfig(Base):
            limit: int = 3

            def verify(self): ...
        """,
    "config/star.py": "__all__ = ['Listed']\nclass Listed: ...\nclass Unlisted: ...\n",
    "utils.py": "def cdiv(a, b): ...\n_hidden = 1\n",
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from vllm.config import ModelConfig, Listed\nfrom vllm.utils import cdiv, _hidden", []),
        ("from vllm.config import Unlisted", ["vllm.config.Unlisted"]),
        ("from vllm.gone.deep import X", ["vllm.gone.deep.X"]),
        ("import vllm.gone", ["vllm.gone"]),
        ("from vllm import config, utils, gone", ["vllm.gone"]),
        ("import vllm.config.model as m\nx = m.ModelConfig\ny = m.Gone", ["vllm.config.model.Gone"]),
        ("from vllm.utils import cdiv, Gone, Lost", ["vllm.utils.Gone", "vllm.utils.Lost"]),
        ("from vllm.config import star\nstar.Gone", ["vllm.config.star.Gone"]),
        ("class A:\n    from vllm.utils import Gone", ["vllm.utils.Gone"]),
        ("for x in (1, 2):\n    from vllm.utils import Gone", ["vllm.utils.Gone"]),
        ("with open('x') as f:\n    from vllm.utils import Gone", ["vllm.utils.Gone"]),
        ("import importlib\nimportlib.import_module('vllm.gone')", ["vllm.gone"]),
        ("from vllm_ascend.x import Y\nimport vllm_musa", []),
    ],
)
def test_what_is_missing(bench: Bench, source: str, expected: list[str]) -> None:
    assert bench.breaks(source, VLLM) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # guards
        ("try:\n    from vllm.utils import Gone\nexcept ImportError:\n    Gone = None", []),
        ("try:\n    from vllm.utils import Gone\nexcept ModuleNotFoundError:\n    Gone = None", ["Gone"]),
        ("try:\n    from vllm.gone import Gone\nexcept ModuleNotFoundError:\n    Gone = None", []),
        ("try:\n    from vllm.utils import Gone\nexcept (KeyError, Exception):\n    Gone = None", []),
        ("try:\n    from vllm.utils import Gone\nexcept:\n    pass", []),
        ("try:\n    from vllm.utils import Gone\nfinally:\n    pass", ["Gone"]),
        ("try:\n    from vllm.utils import Gone\nexcept ImportError:\n    raise", ["Gone"]),
        (
            "try:\n    from vllm.utils import Gone\nexcept ImportError as e:\n    raise OSError() from e",
            ["Gone"],
        ),
        (
            "try:\n    from vllm.gone import Gone\nexcept ModuleNotFoundError as e:\n"
            "    if e.name != 'vllm':\n        raise",
            ["Gone"],
        ),
        (
            "try:\n    from vllm.gone import Gone\nexcept ModuleNotFoundError as e:\n"
            "    if e.name != 'vllm.gone':\n        raise",
            [],
        ),
        ("import contextlib\nwith contextlib.suppress(ImportError):\n    from vllm.utils import Gone", []),
        ("import contextlib\nwith contextlib.suppress(KeyError):\n    from vllm.utils import Gone", ["Gone"]),
        # a fallback counts only if its try breaks
        ("try:\n    from vllm.utils import cdiv\nexcept ImportError:\n    from vllm.utils import Gone", []),
        (
            "try:\n    from vllm.utils import Lost\nexcept ImportError:\n    from vllm.utils import Gone",
            ["Gone"],
        ),
        ("try:\n    from vllm.utils import Lost\nexcept ImportError:\n    from vllm.utils import cdiv", []),
        (
            "try:\n    import x\nexcept ImportError:\n    pass\nelse:\n    from vllm.utils import Gone",
            ["Gone"],
        ),
        (
            "try:\n    from vllm.utils import Lost\nexcept ImportError:\n    pass\nelse:\n"
            "    from vllm.utils import Gone",
            [],
        ),
        # what is caught ends the body: the second name is never asked for
        (
            "try:\n    import vllm.gone\n    from vllm.utils import Gone\nexcept ModuleNotFoundError:\n    pass",
            [],
        ),
        # branches
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vllm.utils import Gone", []),
        ("import typing as t\nif not t.TYPE_CHECKING:\n    from vllm.utils import Gone", ["Gone"]),
        ("if __name__ == '__main__':\n    from vllm.utils import Gone", []),
        ("import os\nif os.environ.get('X'):\n    from vllm.utils import Gone", []),
        ("from vllm.utils import cdiv as p\nif p.is_rocm():\n    from vllm.utils import Gone", []),
        ("import q\nif q.is_npu():\n    pass\nelse:\n    from vllm.utils import Gone", ["Gone"]),
        ("import sys\nif sys.version_info >= (3, 9):\n    from vllm.utils import Gone", ["Gone"]),
        # functions
        ("def f():\n    from vllm.utils import Gone", []),
        ("def f():\n    from vllm.utils import Gone\nf()", ["Gone"]),
        ("def g():\n    from vllm.utils import Gone\ndef f():\n    g()\nf()", ["Gone"]),
        ("def f(h):\n    from vllm.utils import Gone\n    return h\n@f\ndef g(): ...", ["Gone"]),
        ("class A:\n    def __init__(self):\n        from vllm.utils import Gone\nA()", ["Gone"]),
        ("def f():\n    f()\n    from vllm.utils import Gone\nf()", ["Gone"]),
        ("def f():\n    from vllm.utils import Gone\ntry:\n    f()\nexcept ImportError:\n    pass", []),
        ("x = lambda: vllm.gone", []),
        # annotations are evaluated, unless they are postponed
        ("import vllm.utils\ndef f(x: vllm.utils.Gone): ...", ["Gone"]),
        ("from __future__ import annotations\nimport vllm.utils\ndef f(x: vllm.utils.Gone): ...", []),
        # classes: a lost attribute, an inherited one, one that only instances have
        ("from vllm.config import ModelConfig\nModelConfig.verify\nModelConfig.inherited", []),
        ("from vllm.config import ModelConfig\nold = ModelConfig.gone", ["ModelConfig.gone"]),
        ("from vllm.config import ModelConfig\nModelConfig.__dict__['limit']", []),
        ("from vllm.config import ModelConfig\nModelConfig.__dict__['inherited']", ["ModelConfig.inherited"]),
        ("from vllm.config import ModelConfig\nModelConfig.__dict__.get('x')", []),
        ("from vllm.config import ModelConfig\ngetattr(ModelConfig, 'gone')", ["ModelConfig.gone"]),
        ("from vllm.config import ModelConfig\ngetattr(ModelConfig, 'gone', None)", []),
        # what vllm-omni puts there itself is there
        ("import vllm.utils\nvllm.utils.Mine = 1\nfrom vllm.utils import Mine", []),
        ("import sys, types\nsys.modules['vllm.mine'] = types\nfrom vllm.mine import X", []),
    ],
)
def test_guards(bench: Bench, source: str, expected: list[str]) -> None:
    assert [name.removeprefix("vllm.utils.").removeprefix("vllm.gone.").removeprefix("vllm.config.model.")
            for name in bench.breaks(source, VLLM)] == expected  # fmt: skip


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("if TYPE_CHECKING:\n    X = 1", "missing"),
        ("T = {'X': 1}\ndef __getattr__(n):\n    if n in T: return 1\n    raise AttributeError", "there"),
        ("T = {'Y': 1}\ndef __getattr__(n):\n    if n in T: return 1\n    raise AttributeError", "missing"),
        ("def __getattr__(n):\n    if n == 'X':\n        return 1\n    raise AttributeError(n)", "there"),
        ("def __getattr__(n):\n    if n == 'Y':\n        return 1\n    raise AttributeError(n)", "missing"),
        ("def __getattr__(n):\n    if n == 'Y':\n        return 1", "none"),
        (
            "T = {'X': 1}\ndef __getattr__(n):\n    s = T.get(n)\n    if s is None: raise KeyError\n    return s",
            "there",
        ),
        (
            "def __getattr__(n):\n    if n not in globals(): raise KeyError\n    return globals()[n]",
            "missing",
        ),
        ("import torch\ndef __getattr__(n):\n    return getattr(torch, n)", "there"),
        ("x = LazyLoader('x', globals(), 'y')", "missing"),
        ("globals().update(load())", "there"),
        ("if q:\n    X = 1\nelse:\n    X = 2", "there"),
        ("if q:\n    X = 1", "there"),
        ("X = 1\ndel X", "missing"),
        ("def f():\n    global X\n    X = 1", "there"),
        ("try:\n    from zz import X\nexcept ImportError:\n    X = None", "there"),
        ("from torch import *", "there"),
        ("from vllm.other import *", "missing"),
        ("for X in y: pass", "there"),
        ("X: int", "missing"),
        ("X: int = 1", "there"),
        ("(a, [X, *b]) = c", "there"),
        ("with f() as X: pass", "there"),
    ],
)
def test_namespaces(bench: Bench, source: str, status: str) -> None:
    files = {"mod.py": "from typing import TYPE_CHECKING\n" + source, "other.py": "from vllm.mod import *"}
    report = bench.judge({"worker.py": "from vllm.mod import X"}, files)
    assert bool(report.breaks) == (status == "missing")
    assert [w.kind for w in report.warnings] == (["none"] if status == "none" else [])


def test_products_of_the_build_are_not_missing(bench: Bench) -> None:
    setup = (
        'ext.append(CMakeExtension(name="vllm._C"))\n# copies vllm/vllm_flash_attn/x and vllm/third_party/y/'
    )
    source = (
        "import vllm._C\nfrom vllm._version import v\nfrom vllm.vllm_flash_attn import f\nimport vllm._moe_C"
    )
    assert bench.breaks({"w.py": source}, {"/setup.py": setup}) == ["vllm._moe_C"]


def test_a_vllm_module_that_cannot_be_imported_itself(bench: Bench) -> None:
    """vLLM 0.19.0 moved a file and left one that imports it; only who imports that one meets it."""
    vllm = {
        "left.py": "from vllm.moved.away import X\nclass Y: ...",
        "fine.py": "try:\n    import vllm.gone\nexcept E: ...",
    }
    assert bench.breaks("from vllm.left import Y\nfrom vllm import fine, left", vllm) == [
        "vllm.left.Y",
        "vllm.left",
    ]


def test_tiers_and_chains(bench: Bench) -> None:
    gone = "from vllm import gone\n"
    report = bench.judge(
        {
            "__init__.py": "from . import patch",
            "patch.py": "from vllm_omni.core import runner",
            "core/runner.py": gone,
            "models/tts/tts.py": gone,
            "models/tts/config.py": gone,
            "platforms/npu/worker.py": gone,
            "worker/by_name.py": gone,
            "engine/serve.py": 'WORKER = "vllm_omni.worker.by_name.Worker"\nimport vllm_omni.platforms',
            "entrypoints/cli/main.py": "def main():\n    import vllm_omni.engine.serve",
            "/x.dist-info/entry_points.txt": "[console_scripts]\no = vllm_omni.entrypoints.cli.main:main\n",
        },
        {},
    )
    tiers = {b.file.removeprefix("vllm_omni/"): b.tier for b in report.breaks}
    assert tiers == {
        "core/runner.py": "entry",
        "worker/by_name.py": "entry",
        "models/tts/tts.py": "model",
        "models/tts/config.py": "model",
        "platforms/npu/worker.py": "platform",
    }
    chains = {b.file: b.chain for b in report.breaks}
    assert chains["vllm_omni/core/runner.py"] == ["vllm_omni", "vllm_omni.patch", "vllm_omni.core.runner"]
    assert chains["vllm_omni/worker/by_name.py"][-2:] == [
        "vllm_omni.engine.serve",
        "vllm_omni.worker.by_name",
    ]


def test_another_platform_alone_decides_nothing(bench: Bench) -> None:
    report = bench.judge({"platforms/xpu/worker.py": "from vllm import gone"}, {})
    assert [b.tier for b in report.breaks] == ["platform"]
    assert report.verdict == "no-break-found"


def test_where_a_name_went(bench: Bench) -> None:
    report = bench.judge(
        {
            "w.py": "from vllm.utils import Counter\nfrom vllm.old.thing import f\nfrom vllm.utils import nowhere"
        },
        {"utils.py": "", "counter.py": "class Counter: ...", "new/thing.py": "def f(): ..."},
    )
    assert [b.moved_to for b in report.breaks] == ["vllm.counter", "vllm.new.thing", None]


def test_its_own_mistakes_are_not_vllms(bench: Bench) -> None:
    report = bench.judge({"a.py": "from vllm_omni.b import nothing\nfrom . import zero", "b.py": ""}, {})
    assert report.verdict == "no-break-found"
    assert [(w.kind, w.name) for w in report.warnings] == [
        ("own-missing-name", "nothing"),
        ("own-missing-name", "zero"),
    ]


def test_a_guard_around_a_broken_module_of_its_own(bench: Bench) -> None:
    """The try that catches the failure of another module runs its handler."""
    report = bench.judge(
        {
            "a.py": "try:\n    from vllm_omni.b import x\nexcept ImportError:\n    from vllm.utils import gone",
            "b.py": "from vllm.utils import lost\nx = 1",
        },
        {"utils.py": ""},
    )
    assert sorted((b.file, b.name) for b in report.breaks) == [
        ("vllm_omni/a.py", "gone"),
        ("vllm_omni/b.py", "lost"),
    ]


def test_newer_syntax_is_read_or_named(bench: Bench) -> None:
    source = "try:\n    from vllm.utils import Gone\nexcept* ImportError:\n    pass\n"
    report = bench.judge({"w.py": source}, VLLM)
    assert report.breaks == []
    assert (report.warnings[0].guard or "").startswith(("except ImportError", "does not parse"))


def test_import_loops_end(bench: Bench) -> None:
    omni = {"a.py": "from vllm_omni import b\nfrom vllm import gone", "b.py": "from vllm_omni.a import b"}
    vllm = {"x.py": "from .y import N", "y.py": "from .x import N", "__init__.py": "from .x import *"}
    assert bench.breaks(omni, vllm) == ["vllm.gone"]


def test_files_that_cannot_be_read_are_named_and_the_rest_goes_on(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "pair"
    tree = bench.tree("vllm_omni", {"good.py": "from vllm import gone", "bad.py": "def (:\n"})
    path = tmp_path / str(bench.count) / "vllm_omni"
    (path / "latin.py").write_bytes(b"x = '\xe9\xff'\n")
    (path / "coded.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\nfrom vllm import lost\n")
    (path / "long.py").write_bytes(b"x = 1\n" * 1_700_000)
    from build_recipes.verify.judge.verdict import judge
    from build_recipes.verify.read.tree import open_tree

    tree = open_tree(path, "vllm_omni", bench.store)
    report = judge(tree, bench.tree("vllm", {}))
    assert [b.name for b in report.breaks] == ["lost", "gone"]
    problems = {w.file: w.guard or "" for w in report.warnings if w.kind == "unreadable"}
    assert problems["vllm_omni/bad.py"].startswith("does not parse")
    assert problems["vllm_omni/latin.py"].startswith("is not UTF-8")
    assert "10 MB" in problems["vllm_omni/long.py"]
    assert not root.exists()


_DOUBLED = "\n".join(
    f"x{n} = [*x{n - 1}, *x{n - 1}] or (x{n - 1} + x{n - 1} + x{n - 1})" for n in range(1, 40)
)
_COMPARED = "\n".join(f"x{n} = {' == '.join([f'x{n - 1}'] * 9)}" for n in range(1, 16))
_ITSELF = "\n".join(f"    y = ({' + '.join(['y'] * 30)}) if y > {n} else y" for n in range(9))
_ERRORS = "\n".join(f"E{n} = ({', '.join([f'E{n - 1}'] * 30)},)" for n in range(1, 9))


@pytest.mark.parametrize(
    "source",
    [
        f"import vllm\nx0 = vllm.__version__\n{_DOUBLED}\nif x39 < x38:\n    from vllm.utils import Gone",
        f"x0 = [0]\n{_COMPARED}\nfor y in [1, x15]:\n    from vllm.utils import Gone",
        f"import vllm\ndef f(y):\n{_ITSELF}\n    if y:\n        from vllm.utils import Gone\nf(vllm.__version__)",
        f"E0 = ValueError\n{_ERRORS}\ntry:\n    from vllm.utils import Gone\nexcept E8:\n    pass",
        f"t = {'x' * 300!r}\nfor y in [[[[a + b + c for c in t] for b in t] for a in t]]:\n"
        "    from vllm.utils import Gone",
    ],
    ids=["condition", "value", "itself", "exceptions", "loops"],
)
def test_expressions_that_grow_when_written_out_cost_little(bench: Bench, source: str) -> None:
    """Forty lines that each use the one before twice are 2**40 expressions (a model's file took a minute)."""
    started = time.process_time()
    report = bench.judge({"w.py": source}, VLLM)
    assert time.process_time() - started < 3
    assert "Gone" in {b.name for b in (*report.breaks, *report.guarded, *report.warnings)}
