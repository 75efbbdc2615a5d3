"""A file read by its outline says what the same file parsed whole says."""

from __future__ import annotations

import ast
import os
from textwrap import dedent

import pytest

from build_recipes.kit.paths import Places
from build_recipes.verify.check import Checker
from build_recipes.verify.read import releases
from build_recipes.verify.read.flow import read_flow
from build_recipes.verify.read.outline import Outline
from build_recipes.verify.read.surface import read_surface
from build_recipes.verify.read.tree import OMNI, VLLM

HARD = {
    "one line": "def f(): import vllm.a\ndef g(a, b=(1, 2)): return vllm.x\n",
    "one line in a body": """
        def f():
            def g(): import vllm.g
            return g
        """,
    "first line of the file": "def f():\n    import vllm.a\n",
    "blank lines and comments first": """
        def f(self):  # a comment: with a colon

            # another one
            import vllm.a
        # at the margin
            import vllm.b

        x = 1
        """,
    "a signature on many lines": """
        from vllm.a import A, B
        class C(A):
            def m(
                self,
                a: dict[str, int] = {},  # no )
                *,
                b: "B" = B(),
            ) -> tuple[
                int, int
            ]:
                self.kept = 1
                return super().m(a, b=b)

            async def n(self, x=lambda: 1):
                await self.other(x)
            # self.commented = 1
        """,
    "a string that reaches the margin": '''
        import vllm.a
        def f():
            text = """
        def not_one():
            import vllm.not_this
        """
            import vllm.b
        def g():
            return vllm.a.x
        ''',
    "a string with code in it": '''
        T = """
        def f():
            import vllm.no
        """
        class C:
            U = \'\'\'
            def f():
                import vllm.no\'\'\'
            def g(self):
                self.x = 1
                import vllm.yes
        ''',
    "brackets in a default": "def f(a='(', b=')'):\n    import vllm.a\ndef g(a=':'):\n    import vllm.b\n",
    "a bracket closed at the margin": "def f():\n    x = g(\n1)\n    import vllm.a\ny = 1\n",
    "a comment last": "class C:\n    def f(self):\n        self.a = 1\n        # self.b = 2\n\n    # self.c = 3\n",
    "tabs": "def f():\n\timport vllm.a\n",
    "carriage returns": "class C:\r\n    def f(self):\r\n        self.a = 1\r\n",
    "under a condition": """
        try:
            from vllm.a import A
        except ImportError:
            def A():
                raise ImportError
        if A:
            def __getattr__(name):
                if name in ("x", "y"):
                    return 1
                raise AttributeError(name)
        """,
    "a global": "def f():\n    global made\n    made = 1\n",
    "nothing but strings": 'def f():\n    """Text."""\n\n\ndef g():\n    "Text."\n',
    "no line end": "class C:\n    def f(self):\n        self.a = 1",
    "decorated, nested, overloaded": """
        from vllm.a import A, wrap
        class C(A):
            @wrap
            @wrap(1)
            def f(self):
                class D:
                    def g(self): ...
                def h():
                    return self.g(A.b)
                return h

            class E:
                def i(self):
                    self.j = A()
        """,
}


def _read(text: str, *, whole: bool) -> object:
    outline = Outline(text, whole=whole)
    return read_surface(outline), read_flow(outline, (VLLM, OMNI), OMNI)


@pytest.mark.parametrize("text", HARD.values(), ids=list(HARD))
def test_hard_files(text: str) -> None:
    text = dedent(text) if text.startswith("\n") else text
    assert _read(text, whole=False) == _read(text, whole=True)


def test_bodies_are_left_out_and_asked_for() -> None:
    text = "x = 1\ndef f(a):\n    # why\n    b = a\n\n    return b\n\n\nclass C:\n    def g(self):\n        pass\n"
    outline = Outline(text)
    function, owner = outline.tree.body[1:]
    assert isinstance(function, ast.FunctionDef) and isinstance(owner, ast.ClassDef)
    assert [ast.unparse(one) for one in function.body] == ["..."]
    assert [type(s).__name__ for s in outline.body(function)] == ["Assign", "Return"]
    assert [s.lineno for s in outline.body(function)] == [4, 6]
    assert outline.body_text(function) == "    b = a\n\n    return b"
    assert outline.class_text(owner) == "class C:\n    def g(self):\n        pass"


def test_an_error_is_seen_where_it_is_looked_for() -> None:
    with pytest.raises(SyntaxError):
        Outline("def f(:\n    pass\n")
    text = "import a\ndef f():\n    x = = 1\n"
    Outline(text)
    with pytest.raises(SyntaxError):
        Outline(text, whole=True)


_EVERY = [
    pytest.mark.timeout(3600),
    pytest.mark.slow,
    pytest.mark.skipif("ARMORY_SLOW" not in os.environ, reason="set ARMORY_SLOW=1"),
]


@pytest.mark.network
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({OMNI: ["0.12.0rc1"], VLLM: ["0.12.0"]}, id="0.12"),
        pytest.param({OMNI: [], VLLM: []}, id="every release", marks=_EVERY),
    ],
)
def test_real_files(asked: dict[str, list[str]]) -> None:
    """Each file of real releases; the rest of the proof that a published file needs no whole parse."""
    places = Places.from_environment()
    checker = Checker(places)
    seen: set[bytes] = set()
    differ = []
    for package, versions in asked.items():
        for version in versions or [r.version for r in releases.listing(package, places).releases]:
            tree = checker.release(package, version)
            for path, digest in tree.index.files.items():
                if digest in seen or path in tree.index.unread:
                    continue
                seen.add(digest)
                text = tree.source(path).decode("utf-8-sig")
                if _read(text, whole=False) != _read(text, whole=True):
                    differ.append(f"{package} {version} {path}")
            tree.forget()
    assert len(seen) > 1000
    assert differ == []
