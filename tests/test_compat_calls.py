"""The call tier: what fitted a release's own vLLM and no longer fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat_trees import Bench

from build_recipes.verify.judge.verdict import judge

THEN = {
    "calls.py": """
        import functools
        from dataclasses import dataclass
        import msgspec

        def plain(a, b=1, *, c=2): ...
        @functools.lru_cache
        def cached(a): ...
        @mystery
        def hidden(a): ...
        class Made:
            def __init__(self, a, b=1): ...
            def run(self, a): ...
            @classmethod
            def load(cls, a): ...
            @staticmethod
            def help(a): ...
        @dataclass
        class Fields:
            a: int
            b: int = 1
        class Struct(msgspec.Struct):
            a: int
            b: int = 1
        class Base:
            kept = 1
            def __init__(self, a): self.lost = a
            def hook(self, a): ...
            def helper(self, a): ...
            @property
            def view(self): ...
        REGISTRY = Made(1)
        """,
}
OMNI = """
from vllm import calls
from vllm.calls import plain, cached, hidden, Made, Fields, Struct, Base, REGISTRY
def f(x, **more):
    plain(1, b=2)
    calls.plain(1, 2, c=3)
    cached(1)
    hidden(1)
    Made(1, b=2).run(1)
    Made.load(1)
    Made.help(1)
    Fields(a=1, b=2)
    Struct(1)
    REGISTRY.run(1)
    plain(*x)
    plain(**more)
class Mine(Base):
    def __init__(self, a):
        super().__init__(a)
        self.lost += self.kept
    def hook(self, a):
        super().hook(a)
        self.helper(a)
class Child(Mine):
    def other(self):
        return self.lost, self.helper(1), self.mine
"""


def _told(tmp_path: Path, old: str, new: str, omni: str = OMNI) -> set[tuple[str, str, str, str]]:
    bench = Bench(tmp_path)
    now = {name: text.replace(old, new) for name, text in THEN.items()}
    assert now != THEN or old == new
    report = judge(bench.tree("vllm_omni", {"w.py": omni}), bench.tree("vllm", now), bench.tree("vllm", THEN))
    assert report.breaks == []
    return {(c.severity, c.kind, c.callee.removeprefix("vllm.calls."), c.problem) for c in report.calls}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", "", set()),
        ("a, b=1, *, c=2", "a, *, c=2", {
            ("error", "call", "plain", "takes no keyword 'b'"),
            ("error", "call", "plain", "takes 1 positional arguments, 2 are given"),
        }),
        ("def plain(a, b=1,", "def plain(a, z, b=1,", {
            ("error", "call", "plain", "needs 'z'"),
        }),
        ("def cached(a)", "def cached(a, z)", {("error", "call", "cached", "needs 'z'")}),
        ("def hidden(a)", "def hidden(a, z)", {("warning", "call", "hidden", "needs 'z'")}),
        ("def __init__(self, a, b=1)", "def __init__(self, a)", {
            ("error", "constructor", "Made", "takes no keyword 'b'"),
        }),
        ("def run(self, a)", "def run(self)", {
            ("error", "call", "REGISTRY.run", "takes 0 positional arguments, 1 are given"),
        }),
        ("def load(cls, a)", "def load(cls)", {
            ("error", "call", "Made.load", "takes 0 positional arguments, 1 are given"),
        }),
        ("def help(a)", "def help(a, z)", {("error", "call", "Made.help", "needs 'z'")}),
        ("b: int = 1\n        class Struct", "z: int\n        class Struct", {
            ("error", "constructor", "Fields", "takes no keyword 'b'"),
        }),
        ("def __init__(self, a): self.lost = a", "def __init__(self, a, z): self.lost = a", {
            ("error", "super", "Base.__init__", "needs 'z'"),
        }),
        ("def __init__(self, a): self.lost = a", "def __init__(self, a): ...", {
            ("warning", "attribute", "Base.lost", "is gone from the base class"),
        }),
        ("def hook(self, a)", "def hook(self, a, z)", {
            ("error", "super", "Base.hook", "needs 'z'"),
            ("warning", "override", "Base.hook", "does not take 'z'"),
        }),
        ("def hook(self, a): ...", "", {("error", "super", "Base.hook", "is gone from the base classes")}),
        ("def helper(self, a)", "def helper(self)", {
            ("error", "self", "Base.helper", "takes 0 positional arguments, 1 are given"),
        }),
        ("def helper(self, a): ...", "", {("warning", "attribute", "Base.helper", "is gone from the base class")}),
    ],
)  # fmt: skip
def test_what_is_told(tmp_path: Path, old: str, new: str, told: set[tuple[str, str, str, str]]) -> None:
    assert _told(tmp_path, old, new) == told


def test_what_is_tested_for_is_a_warning(tmp_path: Path) -> None:
    omni = (
        "import inspect\nfrom vllm.calls import plain\ndef f():\n"
        "    if 'b' in inspect.signature(plain).parameters:\n        plain(1, b=2)\n"
        "    try:\n        plain(1, b=3)\n    except TypeError:\n        pass\n"
    )
    assert {s for s, *_ in _told(tmp_path, "a, b=1, *, c=2", "a, *, c=2", omni)} == {"warning"}


def test_a_call_that_an_import_makes_is_a_break(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    omni = {"w.py": "from vllm.calls import plain\nx = plain(1, b=2)\ndef f():\n    plain(1, b=3)"}
    now = {"calls.py": "def plain(a): ..."}
    report = judge(bench.tree("vllm_omni", omni), bench.tree("vllm", now), bench.tree("vllm", THEN))
    assert [(b.kind, b.module, b.name, b.line) for b in report.breaks] == [("call", "vllm.calls", "plain", 2)]
    assert report.verdict == "breaks"
    assert len(report.calls) == 2


@pytest.mark.parametrize(
    ("config", "breaks"),
    [
        ("def config(cls): return cls", []),
        ("@dataclass_transform()\ndef config(cls=None, **kw): ...", ["vllm.config.Base"]),
    ],
)
def test_a_dataclass_made_twice(tmp_path: Path, config: str, breaks: list[str]) -> None:
    """vLLM's ``config`` became a pydantic dataclass: on top of another dataclass decorator the class is lost."""
    bench = Bench(tmp_path)
    base = "\n@config\n@dataclass\nclass Base:\n    a: int = 1\n"
    then = {"config.py": "def config(cls): return cls" + base}
    now = {"config.py": config + base}
    omni = (
        "from vllm.config import Base, config\n@config\n@dataclass\nclass Mine(Base):\n    b: int = 2\n"
        "    c: dict = field(default_factory=dict)\n"
    )
    report = judge(bench.tree("vllm_omni", {"w.py": omni}), bench.tree("vllm", now), bench.tree("vllm", then))
    assert [f"{b.module}.{b.name}" for b in report.breaks] == breaks


def test_a_default_in_the_base_breaks_the_fields_of_a_struct(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    omni = {"w.py": "from vllm.s import S\nclass Mine(S):\n    extra: int\n"}
    then, now = (
        {"s.py": f"import msgspec\nclass S(msgspec.Struct):\n    a: int{end}\n"} for end in ("", " = 1")
    )
    report = judge(bench.tree("vllm_omni", omni), bench.tree("vllm", now), bench.tree("vllm", then))
    assert [(b.kind, b.name) for b in report.breaks] == [("class", "S")]


def test_a_method_that_became_a_property(tmp_path: Path) -> None:
    """Its call fails, and its override is another thing; a property that was one before is not told."""
    was = "class Base:\n    def size(self): ...\n    @property\n    def view(self): ..."
    now = f"import functools\n{was}".replace("    def size", "    @functools.cached_property\n    def size")
    omni = """
        from vllm.c import Base
        class A(Base):
            def f(self): self.size(); self.view()
        class B(Base):
            def size(self): ...
            def view(self): ...
        """
    bench = Bench(tmp_path)
    own = bench.tree("vllm_omni", {"w.py": omni})
    report = judge(own, bench.tree("vllm", {"c.py": now}, "2.0"), bench.tree("vllm", {"c.py": was}))
    assert [(c.severity, c.kind, c.callee, c.problem) for c in report.calls] == [
        ("error", "self", "Base.size", "is a property, and is called"),
        ("warning", "override", "Base.size", "is a property in the base class"),
    ]
