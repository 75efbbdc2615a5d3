"""The import tier: a real process, real imports of small packages, and whose fault a failure is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from compat_trees import Bench

from build_recipes.kit.errors import CouldNotCheck
from build_recipes.verify.command import differs
from build_recipes.verify.judge.verdict import judge
from build_recipes.verify.run.environment import unpack
from build_recipes.verify.run.imports import Imports, Job, import_all, modules_in_order

VLLM = {
    "__init__.py": "from ._version import __version__",
    "config.py": "class Base: ...\n",
    "c.py": "import vllm._C as c",
}


def _run(tmp_path: Path, omni: dict[str, str], vllm: dict[str, str] = VLLM, limit: float = 60) -> Imports:
    bench = Bench(tmp_path)
    left, right = bench.tree("vllm_omni", omni), bench.tree("vllm", vllm, "9.8.7")
    paths = [unpack(right, tmp_path / "v"), unpack(left, tmp_path / "o")]
    order = modules_in_order(left, ["vllm_omni"])
    products = ["vllm._version", "vllm._C"]
    return import_all(
        Job(
            "stub",
            Path(sys.executable),
            paths,
            order,
            products,
            {"vllm": "9.8.7"},
            "vllm_omni",
            tmp_path,
            limit,
        )
    )


@pytest.mark.parametrize(
    ("source", "fault", "asked"),
    [
        ("from vllm.config import Gone", "vllm", "vllm.config.Gone"),
        ("import vllm.gone.deep", "vllm", "vllm.gone"),
        ("import vllm.config\nvllm.config.Gone", "vllm", "vllm.config.Gone"),
        ("from vllm.config import Base\nBase.gone", "vllm", "Base.gone"),
        ("from vllm.config import Base\nBase(1)", "vllm", ""),
        (
            "from vllm.config import Base\nclass B(Base, metaclass=type('M', (type,), {})): ...\nB(1)",
            "vllm",
            "",
        ),
        (
            "import vllm.config\nimport enum\nclass C(enum.Enum):\n    def __init__(self, a): int([])\n    A = 1",
            "own-bug",
            "",
        ),
        ("int([])", "own-bug", ""),
        ("import sys\nsys.gone", "other-dependency", "sys.gone"),
        ("from vllm_omni.good import nothing", "own-bug", "vllm_omni.good.nothing"),
        ("raise ValueError('its own')", "own-bug", ""),
        ("import no_such_project", "other-dependency", "no_such_project"),
        ("from json import nothing", "other-dependency", "json.nothing"),
        ("import vllm_ascend", "environment", "vllm_ascend"),
        ("raise RuntimeError('Torch not compiled with CUDA enabled')", "environment", ""),
        ("import vllm.c\nvllm.c.c.run()", "environment", ""),
    ],
)
def test_whose_fault(tmp_path: Path, source: str, fault: str, asked: str) -> None:
    found = _run(
        tmp_path,
        {
            "bad.py": source,
            "good.py": "from vllm._C import op\nimport vllm\nassert vllm.__version__ == '9.8.7'",
        },
    )
    assert [(f.module, f.fault, f.asked, f.file) for f in found.failures] == [
        ("vllm_omni.bad", fault, asked, "vllm_omni/bad.py")
    ]


def test_a_package_that_fails_hides_nothing_below_it(tmp_path: Path) -> None:
    found = _run(
        tmp_path, {"__init__.py": "from vllm import gone", "a.py": "from vllm.config import lost", "b.py": ""}
    )
    assert [(f.module, f.asked) for f in found.failures] == [
        ("vllm_omni", "vllm.gone"),
        ("vllm_omni.a", "vllm.config.lost"),
    ]


def test_an_import_hook_of_the_package_is_not_where_it_fails(tmp_path: Path) -> None:
    hook = (
        "import builtins\nold = builtins.__import__\ndef hooked(*a, **k):\n    return old(*a, **k)\n"
        "builtins.__import__ = hooked"
    )
    found = _run(tmp_path, {"a.py": hook, "b.py": "x = 1\nfrom vllm.config import gone"})
    assert [(f.module, f.file, f.line) for f in found.failures] == [("vllm_omni.b", "vllm_omni/b.py", 2)]


def test_a_crash_costs_one_module(tmp_path: Path) -> None:
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    found = _run(tmp_path, {"a.py": crash, "b.py": "import vllm.gone", "c.py": "raise SystemExit(3)"})
    told = sorted((f.module, f.error) for f in found.failures)
    assert told == [
        ("vllm_omni.a", "crash"),
        ("vllm_omni.b", "ModuleNotFoundError"),
        ("vllm_omni.c", "SystemExit"),
    ]


def test_time_is_limited(tmp_path: Path) -> None:
    with pytest.raises(CouldNotCheck, match="longer than"):
        _run(tmp_path, {"a.py": "import time\ntime.sleep(60)"}, limit=2)


def test_an_environment_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CouldNotCheck, match="cannot be run"):
        import_all(Job("run", tmp_path / "bin" / "python", [], ["x"], [], {}, "vllm_omni", tmp_path, 5))


def test_what_differs_between_static_and_real(tmp_path: Path) -> None:
    """A value that only shows when the module runs: no name tells it, only the import does."""
    vllm = {**VLLM, "config.py": "import math\nclass Base:\n    size = round(math.pi)\n"}
    omni = {
        "a.py": "from vllm.config import Base\nBase.size.nothing.more()",
        "b.py": "from vllm import gone",
    }
    bench = Bench(tmp_path / "static")
    report = judge(bench.tree("vllm_omni", omni), bench.tree("vllm", vllm))
    found = _run(tmp_path, omni, vllm)
    assert differs(report, found) == [
        "only real: vllm_omni/a.py:2 AttributeError: 'int' object has no attribute 'nothing'"
    ]


def test_a_package_finds_its_own_version_where_its_tree_is_unpacked(tmp_path: Path) -> None:
    """It may ask for its metadata, for the `_version` that its build writes, and for files beside its code."""
    bench = Bench(tmp_path)
    source = (
        "from importlib.metadata import version\nfrom ._version import __version__\n"
        "assert version('vllm-omni') == __version__ == '2.0'\n"
        "assert open(__file__.replace('__init__.py', 'chat.jinja')).read() == 'hello'\n"
    )
    tree = bench.tree("vllm_omni", {"__init__.py": source, "/setup.py": "", "chat.jinja": "hello"}, "2.0")
    assert "vllm_omni._version" in tree.products
    paths = [unpack(tree, tmp_path / "tree")]
    job = Job(
        "stub",
        Path(sys.executable),
        paths,
        ["vllm_omni"],
        sorted(tree.products),
        {"vllm_omni": "2.0"},
        "vllm_omni",
        tmp_path,
        60,
    )
    assert import_all(job).failures == []
