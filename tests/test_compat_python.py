# ruff: noqa: E501
"""What is told of small trees, held against real Python: every module of each is really imported.

Each module is imported in a process of its own, so that none profits from another. Where the judge says that
an import fails, it must fail, and the other way round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from compat_trees import Bench, Files

from build_recipes.verify.judge.player import Player
from build_recipes.verify.judge.resolve import Resolver
from build_recipes.verify.judge.room import with_room
from build_recipes.verify.judge.verdict import judge
from build_recipes.verify.read.tree import OMNI, VLLM

A = {"a.py": "Y = 1\n"}
LOOK = "import importlib\nreturn_ = 1\n"

CASES: dict[str, tuple[Files, Files]] = {
    "what a module binds": (
        {
            "walrus.py": "from vllm.a import A, B, C, D, E, F, G",
            "loops.py": "from vllm.a import I, J, K",
            "match.py": "from vllm.a import L, M, N",
            "handler.py": "from vllm.a import O",
            "gone.py": "from vllm.a import P",
            "lost.py": "from vllm.a import Q",
            "inner.py": "from vllm.a import R",
            "globs.py": "from vllm.dyn import S, T, U, V, W",
            "filled.py": "from vllm.filled import X",
            "none.py": "from vllm.a import Z",
        },
        {
            "a.py": """
            import sys
            if (A := 1): pass
            [B := 3]
            def f(x=(C := 4)): ...
            while (D := 0): pass
            assert (E := 1)
            print(F := 1, end="", file=sys.stderr)
            G = [G2 := n for n in (1, 2)]
            for I in (1, 2): J = 1
            with open("/dev/null") as K: pass
            match {"l": 1, "m": [1, 2], "n": 3}:
                case {"l": L, "m": [M, *_], **N}: pass
            try:
                import json as O
            except ImportError as P: pass
            Q = 1
            del Q
            class K2:
                R = 1
            """,
            "dyn.py": """
            import sys
            globals()["S"] = 1
            globals().update(T=1)
            globals().update({"U": 1})
            setattr(sys.modules[__name__], "V", 1)
            sys.modules[__name__].W = 1
            """,
            "filled.py": """
            def fill():
                for name in ("X", "X2"):
                    globals()[name] = 1
            fill()
            """
        },
    ),
    "exceptions": (
        {
            "w1.py": "E = (ImportError,)\ntry:\n    from vllm.a import X\nexcept E:\n    X = None",
            "w2.py": "E = ImportError\ntry:\n    from vllm.a import X\nexcept (E, KeyError):\n    X = None",
            "w3.py": "E = (KeyError,) + (ValueError,)\ntry:\n    from vllm.a import X\nexcept E:\n    X = None",
            "w4.py": "class E(ImportError): ...\ntry:\n    from vllm.a import X\nexcept E:\n    X = None",
            "w5.py": "import builtins\ntry:\n    from vllm.a import X\nexcept builtins.ImportError:\n    X = None",
            "w6.py": "from contextlib import suppress\nE = (ImportError,)\nwith suppress(*E):\n    from vllm.a import X",
            "w7.py": "from contextlib import suppress\nE = (KeyError,)\nwith suppress(*E):\n    from vllm.a import X",
            "w8.py": "A = (ImportError,)\nE = (*A, KeyError)\ntry:\n    from vllm.a import X\nexcept E:\n    X = None",
            "w9.py": "try:\n    try:\n        from vllm.a import X\n    except ImportError:\n        raise KeyError\n"
            "except ImportError:\n    pass",
            "wa.py": "try:\n    try:\n        from vllm.a import X\n    except ImportError:\n        raise KeyError\n"
            "except KeyError:\n    pass",
            "wb.py": "try:\n    raise ImportError\nexcept ImportError:\n    from vllm.a import X",
            "wc.py": "import vllm.a\ntry:\n    vllm.a.X\nexcept (AttributeError, KeyError):\n    pass",
        },
        A,
    ),
    "lazy names": (
        {
            "w1.py": "from vllm.table import X",
            "w2.py": "from vllm.table import Y",
            "w3.py": "from vllm.pair import X",
            "w4.py": "from vllm.pair import Y",
            "w5.py": "from vllm.steps import X",
            "w6.py": "from vllm.steps import Y",
            "w7.py": "from vllm.steps import M",
            "w8.py": "from vllm.loop import X",
            "w9.py": "from vllm.loop import Y",
            "wa.py": "from vllm import Lost, Kept",
            "wb.py": "from vllm import Kept",
            "wc.py": "import vllm.table\nvllm.table.X",
            "wd.py": "from vllm.tuples import X",
            "we.py": "from vllm.tuples import Y",
            "wf.py": "from vllm.grown import X, Y",
            "wg.py": "from vllm.grown import Y",
        },
        {
            "__init__.py": """
            import typing
            ATTRS = {"Kept": ".b:Y", "Lost": ".b:X"}
            if typing.TYPE_CHECKING:
                from .b import X as Lost
            else:
                def __getattr__(name):
                    from importlib import import_module
                    if name in ATTRS:
                        module_name, attr_name = ATTRS[name].split(":")
                        module = import_module(module_name, __package__)
                        return getattr(module, attr_name)
                    raise AttributeError(f"no {name}")
            """,
            "b.py": "Y = 1",
            "table.py": "_L = {'X': 'vllm.b', 'Y': 'vllm.b'}\ndef __getattr__(n):\n    if n in _L:\n"
            "        import importlib\n        return getattr(importlib.import_module(_L[n]), n)\n"
            "    raise AttributeError(n)",
            "pair.py": "_L = {'X': 'gone', 'Y': 'b'}\ndef __getattr__(n):\n    t = _L.get(n)\n    if t is None:\n"
            "        raise AttributeError(n)\n    import importlib\n    m = importlib.import_module(f'vllm.{t}')\n"
            "    v = getattr(m, n)\n    globals()[n] = v\n    return v",
            "steps.py": "def __getattr__(n):\n    if n == 'X':\n        from vllm.b import X\n        return X\n"
            "    elif n == 'Y':\n        from .b import Y\n        return Y\n    if n == 'M':\n        from vllm import gone\n"
            "        return gone\n    raise AttributeError(n)",
            "loop.py": "import importlib\n_L = {'vllm.b': ['Y'], 'vllm.gone': ['X']}\ndef __getattr__(n):\n"
            "    for module, names in _L.items():\n        if n in names:\n"
            "            return getattr(importlib.import_module(module), n)\n    raise AttributeError(n)",
            "tuples.py": "import importlib\n_L = {'X': ('vllm.b', 'Gone'), 'Y': ('vllm.b', 'Y')}\n"
            "def __getattr__(n):\n    if n not in _L:\n        raise AttributeError(n)\n    module, attr = _L[n]\n"
            "    return getattr(importlib.import_module(module), attr)",
            "grown.py": "import importlib\n_L = {'X': 'vllm.gone'}\n_L.update({'Y': 'vllm.b'})\ndef __getattr__(n):\n"
            "    try:\n        m = _L[n]\n    except KeyError:\n        raise AttributeError(n)\n"
            "    return getattr(importlib.import_module(m), n)",
        },
    ),
    "import_module": (
        {
            "w1.py": "import importlib\nimportlib.import_module('.gone', 'vllm')",
            "w2.py": "import importlib\nM = 'vllm.' + 'gone'\nimportlib.import_module(M)",
            "w3.py": "import importlib as il\nP = 'gone'\nil.import_module(f'vllm.{P}')",
            "w4.py": "from importlib import import_module as im\nim('vllm.gone')",
            "w5.py": "from importlib import import_module\nm = import_module('vllm.a')\nm.X",
            "w6.py": "from importlib import import_module\nm = import_module('vllm.a')\nm.Y",
            "w7.py": "import importlib\nN = {'k': 'vllm.gone'}\nimportlib.import_module(N['k'])",
            "w8.py": "import importlib\nimportlib.import_module(name='.a', package='vllm').Y",
            "w9.py": "import importlib\ngetattr(importlib.import_module('vllm.a'), 'X', None)",
            "wa.py": "import importlib\nNAME = 'X'\ngetattr(importlib.import_module('vllm.a'), NAME)",
            "wb.py": "__import__('vllm.a').a.Y",
            "wc.py": "__import__('vllm.a', fromlist=['x']).X",
            "wd.py": "import importlib, sys\nimportlib.import_module('vllm.a')\nsys.modules['vllm.a'].X",
            "we.py": "import importlib\ndef f():\n    m = 'vllm.gone'\n    return importlib.import_module(m)\nf()",
            "wf.py": "import importlib.util\nimportlib.util.find_spec('vllm.gone')",
            "wg.py": "import importlib.util\nimportlib.util.find_spec('vllm.gone.deep')",
            "wh.py": "import importlib\ntry:\n    importlib.import_module('vllm.gone')\nexcept ImportError:\n    pass",
            "wi.py": "import importlib\nimportlib.import_module('vllm.%s' % 'gone')",
            "wj.py": "import importlib\nimportlib.import_module('.'.join(['vllm', 'gone']))",
        },
        A,
    ),
    "classes that are made": (
        {
            "w1.py": "class M(type):\n    def __new__(c, *a):\n        from vllm.a import X\n        return type.__new__(c, *a)\n"
            "class K(metaclass=M): ...",
            "w2.py": "class B:\n    def __init_subclass__(c):\n        from vllm.a import X\nclass K(B): ...",
            "w3.py": "class B:\n    def __init_subclass__(c, **k):\n        from vllm.a import X\nclass C: ...\n"
            "class K(C, B, q=1): ...",
            "w4.py": "class M(type):\n    def __init__(c, *a):\n        from vllm.a import X\n"
            "class K(metaclass=M): ...\n",
            "w5.py": "class M(type):\n    def __new__(c, *a):\n        import vllm.gone\nclass M2: ...\nclass K(M2): ...",
            "w6.py": "class M(type):\n    def __init__(c, *a):\n        if c.__bases__:\n            import vllm.a\n"
            "class K(metaclass=M): ...\nclass L(K): ...",
            "w7.py": "from vllm.base import Refuses\nclass K(Refuses): ...",
            "w8.py": "from vllm.base import Imports\nclass K(Imports): ...",
            "w9.py": "from vllm.base import Fine\nclass K(Fine): ...",
            "wa.py": "import vllm.base\nclass K(vllm.base.Below): ...",
            "wb.py": "from vllm.base import Meta\nclass K(metaclass=Meta): ...",
            "wc.py": "from vllm.base import Made\nclass K(Made): ...",
            "wd.py": "from vllm.base import Refuses",
            "we.py": "def deco(*a):\n    def inner(f):\n        from vllm.a import X\n        return f\n    return inner\n"
            "@deco(1)\ndef g(): ...",
            "wf.py": "class D:\n    def __init__(self, f): ...\n    def __call__(self):\n        from vllm.a import X\n"
            "@D\ndef g(): ...",
            "wg.py": "class P:\n    def m(self):\n        from vllm.a import X\nP().m()",
            "wh.py": "(lambda: __import__('vllm.gone'))()",
            "wi.py": "def f():\n    from vllm.a import X\n    yield\nf()",
            "wj.py": "async def f():\n    from vllm.a import X\nc = f()\nc.close()",
            "wk.py": "class B:\n    def m(self):\n        from vllm.a import X\nclass C(B): ...\nC().m()",
            "wm.py": "def f():\n    if len('ab') == 3:\n        return 1\n    raise ImportError\ntry:\n    f()\nexcept ImportError:\n"
            "    pass\n",
            "wn.py": "def f(x):\n    return x\n    from vllm.a import X\nf(1)",
            "wo.py": "def f(x):\n    for y in x:\n        return y\n    raise ValueError\nf([1])",
            "wp.py": "def f(x):\n    for y in x:\n        raise ValueError\n    return 1\nf([])",
            "wl.py": "class B:\n    def __init__(self):\n        from vllm.a import X\nclass C(B): ...\nC()",
        },
        {
            **A,
            "base.py": """
            class Refuses:
                def __init_subclass__(cls): raise TypeError("no base of yours")
            class Imports:
                def __init_subclass__(cls):
                    from vllm.a import X
            class Fine:
                def __init_subclass__(cls):
                    from vllm.a import Y
            class Below(Imports): ...
            class Meta(type):
                def __new__(m, *a):
                    import vllm.gone
            class MetaFine(type):
                def __new__(m, *a):
                    import vllm.a
                    return type.__new__(m, *a)
            class Made(metaclass=MetaFine): ...
            """.replace("class Below(Imports): ...", "class Below:\n                def __init_subclass__(cls):\n"
                        "                    import vllm.gone"),
        },
    ),
    "patches and their order": (
        {
            "__init__.py": "from vllm_omni import early",
            "early.py": "import vllm.a\nvllm.a.Early = 1\ndef late():\n    vllm.a.Late = 1",
            "w1.py": "from vllm.a import Early",
            "w2.py": "from vllm.a import After\n",
            "w3.py": "import vllm.a\nfrom vllm.a import Own\nvllm.a.Own = 1",
            "w4.py": "import vllm.a\nsetattr(vllm.a, 'Own2', 1)\nfrom vllm.a import Own2",
            "w5.py": "import vllm.a\nvllm.a.__dict__['Own3'] = 1\nfrom vllm.a import Own3",
            "w6.py": "import sys, types\nsys.modules['vllm.mine'] = types.ModuleType('vllm.mine')\nimport vllm.mine",
            "w7.py": "import vllm.late\nimport sys, types\nsys.modules['vllm.late'] = types",
            "w8.py": "import vllm.a\ntry:\n    import vllm.gone\n    vllm.a.Dead = 1\nexcept ImportError:\n    pass\n"
            "from vllm.a import Dead",
            "w9.py": "import vllm.a\ndef patch():\n    vllm.a.Called = 1\npatch()\nfrom vllm.a import Called",
            "z.py": "import vllm.a\nvllm.a.After = 1",
        },
        A,
    ),
    "versions": (
        {
            "w1.py": "import vllm\nfrom packaging.version import Version\n"
            "if Version(vllm.__version__) < Version('0.9'):\n    from vllm.a import X",
            "w2.py": "import vllm\nfrom packaging.version import Version\n"
            "if Version(vllm.__version__) >= Version('0.9'):\n    from vllm.a import X",
            "w3.py": "from packaging import version\nfrom vllm import __version__ as V\nNEW = version.parse(V) >= version.parse('0.12')\n"
            "if NEW:\n    from vllm.a import X\nelse:\n    from vllm.a import Y",
            "w4.py": "import importlib.metadata\nfrom packaging.version import Version\n"
            "if Version(importlib.metadata.version('vllm')) > Version('0.14'):\n    from vllm.a import X",
            "w5.py": "import vllm\nif tuple(int(p) for p in vllm.__version__.split('.')[:2]) >= (0, 12):\n    from vllm.a import X",
            "w6.py": "import vllm\nif vllm.__version__.startswith('0.11'):\n    from vllm.a import X",
            "w7.py": "from vllm_omni.h import version_is\nif version_is('0.12.0'):\n    from vllm.a import X",
            "w8.py": "from vllm_omni.h import version_is\nif version_is('0.11.0'):\n    from vllm.a import X",
            "w9.py": "from vllm_omni import h\nif h.at_least('0.11.0') and not h.version_is('0.11.0'):\n    from vllm.a import X",
            "wa.py": "import vllm\nfrom packaging.version import Version\n"
            "if Version(vllm.__version__).release >= (0, 13):\n    from vllm.a import X",
            "wb.py": "import vllm\nfrom packaging.version import Version as V\nif V(vllm.__version__) < V('0.13'):\n"
            "    raise ImportError('too old')",
            "wc.py": "import vllm\nfrom packaging.version import Version as V\nif V(vllm.__version__) > V('0.13'):\n"
            "    raise ImportError('too new')",
            "wd.py": "import vllm\nfrom packaging.version import Version as V\nassert V(vllm.__version__) > V('0.13'), 'too old'",
            "we.py": "import vllm\nassert vllm.__version__ == '0.12.0'",
            "h.py": "from packaging.version import Version\nimport vllm\ndef version_is(v):\n"
            "    return Version(vllm.__version__) == Version(v)\n"
            "def at_least(v):\n    have, want = 1, 2\n    target = Version(v)\n    return target <= Version(vllm.__version__)\n",
        },
        {**A, "__init__.py": "from .version import __version__", "version.py": "__version__ = '0.12.0'"},
    ),
    "whether vllm is there": (
        {
            "there.py": "from packaging.version import Version\nimport importlib.util\n"
            "def is_vllm_available(min_version=None):\n    if importlib.util.find_spec('vllm') is None:\n"
            "        return False\n    import vllm\n"
            "    return min_version is None or Version(vllm.__version__) >= Version(min_version)\n",
            **{
                f"w{number}.py": f"from .there import is_vllm_available\nif {test}:\n    from vllm.a import X\n"
                for number, test in enumerate(
                    (
                        "is_vllm_available()",
                        "not is_vllm_available()",
                        "is_vllm_available(min_version='0.13')",
                        "is_vllm_available(min_version='0.11')",
                        "is_vllm_available('0.12.0')",
                        "not is_vllm_available('0.12.1')",
                        "is_vllm_available() and not is_vllm_available('0.11')",
                    )
                )
            },
        },
        {**A, "__init__.py": "from .version import __version__", "version.py": "__version__ = '0.12.0'"},
    ),
    "what is asked before": (
        {
            "w1.py": "import vllm.a\nif hasattr(vllm.a, 'X'):\n    from vllm.b import gone\nelse:\n    from vllm.a import Y",
            "w2.py": "import vllm.a\nif not hasattr(vllm.a, 'X'):\n    from vllm.b import gone",
            "w3.py": "import vllm.a\nassert hasattr(vllm.a, 'X')",
            "w4.py": "import vllm.a\nassert hasattr(vllm.a, 'Y')",
            "w5.py": "import importlib.util\nif importlib.util.find_spec('vllm.gone') is None:\n    from vllm.a import X",
            "w6.py": "from importlib.util import find_spec\nif find_spec('vllm.gone') is not None:\n    from vllm.gone import X",
            "w7.py": "import vllm.a\nif hasattr(vllm.a, 'Y'):\n    vllm.a.X",
            "w8.py": "import vllm.a\nif getattr(vllm.a, 'X', None) is not None:\n    vllm.a.X.z",
            "w9.py": "import vllm.a\nif hasattr(vllm.a, 'X') and vllm.a.X:\n    pass",
            "wa.py": "import vllm.a\nx = vllm.a.X if hasattr(vllm.a, 'X') else 1",
            "wb.py": "import vllm.a\nif not hasattr(vllm.a, 'X'):\n    raise RuntimeError('vLLM is too old')",
            "wc.py": "raise SystemExit if False else ImportError",
        },
        {**A, "b.py": ""},
    ),
    "inside vLLM": (
        {
            "w1.py": "from vllm.first import F",
            "w2.py": "from vllm.third import T",
            "w3.py": "import vllm.raises",
            "w4.py": "from vllm.guarded import G",
            "w5.py": "from vllm.wrong import W",
            "w6.py": "from vllm.sub.deep import D",
            "w7.py": "from vllm.calls import C",
            "w8.py": "from vllm.loop1 import L1, L2",
            "w9.py": "from vllm.tight1 import T1",
            "wa.py": "from vllm.asserts import A",
            "wb.py": "from vllm.klass import K",
            "wc.py": "try:\n    from vllm.first import F\nexcept ImportError:\n    pass",
        },
        {
            **A,
            "first.py": "from vllm.second import S\nF = 1",
            "second.py": "from .a import Gone\nS = 1",
            "third.py": "from vllm.a import Y\nT = 1",
            "raises.py": "raise ImportError('moved')",
            "guarded.py": "try:\n    from vllm.a import Gone\nexcept ImportError:\n    Gone = None\nG = 1",
            "wrong.py": "try:\n    from vllm.a import Gone\nexcept KeyError:\n    Gone = None\nW = 1",
            "sub/__init__.py": "from vllm.a import Gone",
            "sub/deep.py": "D = 1",
            "calls.py": "def f():\n    from vllm.a import Gone\nf()\nC = 1",
            "loop1.py": "L1 = 1\nfrom vllm.loop2 import L2",
            "loop2.py": "from vllm.loop1 import L1\nL2 = 1",
            "tight1.py": "from vllm.tight2 import T2\nT1 = 1",
            "tight2.py": "from vllm.tight1 import T1\nT2 = 1",
            "asserts.py": "assert False\nA = 1",
            "klass.py": "class K:\n    from vllm.a import Gone",
        },
    ),
    "star imports": (
        {
            "w1.py": "from vllm.s1 import X",
            "w2.py": "from vllm.s4 import X",
            "w3.py": "from vllm.s1 import Y",
            "w4.py": "import vllm.s1\nfrom vllm.s2 import X",
            "w5.py": "import vllm.s1\nfrom vllm.s2 import Y",
            "w6.py": "from vllm.bad import *",
            "w7.py": "from vllm.good import *",
            "w8.py": "from vllm.r0 import nowhere",
            "w9.py": "from vllm.r0 import there",
        },
        {
            "s1.py": "from vllm.s2 import *\nX = 1",
            "s2.py": "from vllm.s1 import *\nY = 1",
            "s3.py": "from vllm.s4 import *\nX = 1",
            "s4.py": "from vllm.s3 import *\nY = 1",
            "bad.py": "__all__ = ['Gone']",
            "good.py": "__all__ = ['Here']\nHere = 1",
            **{f"r{n}.py": f"from vllm.r{n + 1} import *" for n in range(40)},
            "r40.py": "there = 1",
        },
    ),
    "submodules nobody imported": (
        {
            "w1.py": "import vllm\nvllm.a.Y",
            "w2.py": "import vllm\nimport vllm.a\nvllm.a.Y",
            "w3.py": "import vllm\nvllm.b.Y",
            "w4.py": "import vllm\nfrom vllm import c\nvllm.d.Y",
            "w5.py": "import vllm.c\nvllm.e",
        },
        {**A, "__init__.py": "from . import b", "b.py": "Y = 1", "c.py": "from vllm.d import Y", "d.py": "Y = 1", "e.py": ""},
    ),
}  # fmt: skip

_ASK = """
import importlib, json, os, sys
paths, modules = json.loads(sys.argv[1])
sys.path[:0] = paths
found = {}
for module in modules:
    read, write = os.pipe()
    if not os.fork():
        try:
            importlib.import_module(module)
            word = ""
        except BaseException as error:
            word = f"{type(error).__name__}: {error}"
        os.write(write, (word[:300] or "-").encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as stream:
        word = stream.read().decode()
    os.wait()
    found[module] = "" if word == "-" else word
print(json.dumps(found))
"""


def really(paths: list[Path], modules: list[str]) -> dict[str, str]:
    """What each module's import ends in, each in a process of its own; empty where it goes well."""
    asked = json.dumps([[str(path) for path in paths], modules])
    done = subprocess.run(
        [sys.executable, "-c", _ASK, asked],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", CASES)
def test_as_python_says(tmp_path: Path, name: str) -> None:
    as_python_says(tmp_path, *CASES[name])


def as_python_says(tmp_path: Path, omni: Files, vllm: Files) -> None:
    """Hold what is told of each module of a package against its real import."""
    bench = Bench(tmp_path)
    left = bench.tree(OMNI, omni)
    paths = [tmp_path / str(bench.count)]
    right = bench.tree(VLLM, vllm, "0.12.0")
    paths.append(tmp_path / str(bench.count))
    (paths[1] / "vllm-0.12.0.dist-info").mkdir()
    (paths[1] / "vllm-0.12.0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 0.12.0\n")
    modules = sorted(f"{OMNI}.{path.removesuffix('.py')}" for path in omni if path != "__init__.py")
    real = really(paths, modules)
    wrong = []
    for module in modules:
        player = Player(Resolver(left), left.summaries(), Resolver(right))

        def both(player: Player = player, module: str = module) -> object:
            return player.import_module(OMNI) or player.import_module(module)

        raised = with_room(both)
        if bool(raised) != bool(real[module]):
            wrong.append(f"{module}: told {raised}, Python says {real[module] or 'fine'}")
    assert not wrong, "\n".join(wrong)
    report = judge(left, right)
    broken = {entry.file for entry in report.breaks}
    assert report.verdict == ("breaks" if broken else "no-break-found")
    assert {f"{OMNI}/{m.rpartition('.')[2]}.py" for m in modules if real[m]} >= broken - {
        f"{OMNI}/__init__.py"
    }
