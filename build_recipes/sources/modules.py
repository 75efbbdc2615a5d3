"""What a vLLM tree is built of: its extension modules, copied packages and programs, and what each is made from.

Nothing is listed here. setup.py says which there are (``CMakeExtension(name="vllm._C")``, ``RustExtension``), read
as a syntax tree with the answers of a CUDA build. vLLM's CMake says what each is: a library with sources that
nvcc compiles, a library without, a custom target that runs commands, or only files that are installed.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from build_recipes.kit.data import parse_python
from build_recipes.kit.errors import BadData
from build_recipes.sources.cmake.trees import Call, Declaration, Read, Scan, reader


class Kind(enum.Enum):
    """What a module is."""

    KERNEL = "kernel module"
    """A library with at least one source that nvcc compiles."""
    HOST = "host-only module"
    """A library without device code."""
    COPIED = "copied package"
    """Files that are installed; nothing is compiled."""
    CUSTOM = "custom target"
    """Commands of the project's own make it; what they make is installed."""
    RUST = "Rust program"
    """cargo builds it."""


@dataclass(frozen=True)
class Module:
    """One thing that vLLM's setup.py puts into a wheel beside its own Python files."""

    name: str
    """As setup.py spells it: ``vllm._C``, ``vllm.vllm_flash_attn._vllm_fa2_C``, ``vllm.vllm-rs``."""
    kind: Kind
    trees: tuple[str, ...]
    """External trees that its sources, include folders or installed files come from, by FetchContent name."""
    where: str
    """``file:line`` of the command that defines it; the tree alone where an external tree does."""
    optional: bool
    """Whether setup.py goes on without it."""
    places: tuple[str, ...] = ()
    """Folders of the wheel that its files are installed into, beside its library."""
    outside: bool = False
    """Whether an external tree's own CMake defines its library: without that tree nothing of it is known."""

    @property
    def target(self) -> str:
        """CMake target, and what ``--only`` and ``--without`` call it: the last part of the name."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def compiled(self) -> bool:
        """Whether CMake links a library of that name."""
        return self.kind in (Kind.KERNEL, Kind.HOST)

    def holds(self, member: str) -> int:
        """How well a member of a wheel fits it: 0 where it is none of its files, else more the nearer."""
        folder, _, name = member.rpartition("/")
        if name.split(".")[0] == self.target and folder == self.name.rpartition(".")[0].replace(".", "/"):
            return len(member) + 1
        return max((len(place) for place in self.places if f"{member}/".startswith(f"{place}/")), default=0)


@dataclass(frozen=True)
class Crate:
    """How setup.py has cargo build a Rust program or module."""

    manifest: str
    """Its Cargo.toml, relative to the tree."""
    arguments: tuple[str, ...]
    """``--bin vllm-rs``."""
    features: tuple[str, ...]
    program: bool
    """Whether it is a program; else a Python extension."""


@dataclass(frozen=True)
class Makeup:
    """All of a tree's modules, and what configuring it takes from outside."""

    modules: tuple[Module, ...]
    trees: tuple[Declaration, ...]
    """The external trees that CMake declares."""
    read: dict[str, tuple[str, ...]]
    """Tree to its files that vLLM's own CMake reads while it configures (``file(READ ...)``), or lists as sources."""
    crates: dict[str, Crate] = field(default_factory=dict)
    """Target of a Rust program to how it is built."""
    linked: tuple[str, ...] = ()
    """Trees whose files are linked into the wheel, not copied, where a variable names a local copy of them."""

    def users(self, tree: str) -> tuple[str, ...]:
        """Targets of the modules that are made from an external tree."""
        return tuple(module.target for module in self.modules if tree in module.trees)

    def module(self, target: str) -> Module | None:
        """The module of that target."""
        return next((module for module in self.modules if module.target == target), None)

    def owner(self, member: str) -> Module | None:
        """The module that a member of a wheel belongs to; None for vLLM's own Python files."""
        best = max(self.modules, key=lambda module: module.holds(member), default=None)
        return best if best is not None and best.holds(member) else None

    def of(self, *kinds: Kind) -> tuple[Module, ...]:
        """The modules of some kinds."""
        return tuple(module for module in self.modules if module.kind in kinds)


def makeup(root: Path, scan: Scan | None = None) -> Makeup:
    """What the vLLM tree in a folder is built of, for CUDA.

    :param scan: opens external trees too, so that modules that only those define are told more exactly.
    :raises BadData: setup.py is no Python, or CMake cannot be read, or says nothing of a module of setup.py.
    """
    if scan is None and root in _KNOWN:
        texts, known = _KNOWN[root]
        if all(reader(root)(path) == text for path, text in texts.items()):
            return known
    texts = {}

    def read(path: str) -> str | None:
        texts[path] = text = reader(root)(path)
        return text

    outside, scan = scan is not None, scan or Scan()
    declared = scan.project(read)
    cmake = _Project(scan.calls, [entry.name for entry in declared])
    modules = [cmake.module(name, optional) for name, optional in extensions(read)]
    rust = rust_programs(root, read)
    made = Makeup(
        (*modules, *(module for module, _ in rust)),
        tuple(declared),
        cmake.configure_reads(),
        {module.target: crate for module, crate in rust},
        cmake.linked(),
    )
    if not outside:
        _KNOWN[root] = (texts, made)
    return made


_KNOWN: dict[Path, tuple[dict[str, str | None], Makeup]] = {}
"""Folder to the files that were read and what they make up: a build asks several times, and each takes a CPU second."""

# -- setup.py ------------------------------------------------------------------------------------

_ANSWERS = {"_is_cuda": True, "_is_hip": False, "_is_cpu": False, "_is_tpu": False, "_is_xpu": False,
            "_no_device": False, "_build_custom_ops": True}  # fmt: skip
"""setup.py's own questions, as a build for CUDA answers them."""


def extensions(read: Read) -> list[tuple[str, bool]]:
    """Names of the CMake extensions that setup.py lists in a CUDA build, and whether each is optional."""
    found: dict[str, bool] = {}
    for call in _run(_python(read, "setup.py").body):
        if _called(call) == "CMakeExtension":
            name = _literal(call, "name", 0)
            if isinstance(name, str):
                found.setdefault(name, bool(_literal(call, "optional", 9)))
    return list(found.items())


def rust_programs(root: Path, read: Read | None = None) -> list[tuple[Module, Crate]]:
    """What setuptools-rust builds: the ``RustExtension`` calls of setup.py and of the tools it imports."""
    read, found = read or reader(root), dict[str, tuple[Module, Crate]]()
    tools = sorted(path.relative_to(root).as_posix() for path in root.glob("tools/*.py"))
    for path in ("setup.py", *tools):
        if "RustExtension" not in (read(path) or "") and "RustBin" not in (read(path) or ""):
            continue
        for node in ast.walk(_python(read, path)):
            if isinstance(node, ast.Call) and _called(node) in ("RustExtension", "RustBin"):
                name = _literal(node, "target", 0)
                if isinstance(name, str):
                    optional = _literal(node, "optional", 9) is not False
                    module = Module(name, Kind.RUST, (), f"{path}:{node.lineno}", optional)
                    found[name] = (module, _crate(node))
    return list(found.values())


def _crate(node: ast.Call) -> Crate:
    given = {word.arg: word.value for word in node.keywords}
    binding = given.get("binding")
    program = _called(node) == "RustBin" or (isinstance(binding, ast.Attribute) and binding.attr == "Exec")
    manifest = _literal(node, "path", 1)
    words = {key: _words(given.get(key)) for key in ("args", "features")}
    return Crate(
        manifest if isinstance(manifest, str) else "Cargo.toml", words["args"], words["features"], program
    )


def _words(value: ast.expr | None) -> tuple[str, ...]:
    items = value.elts if isinstance(value, ast.List | ast.Tuple) else []
    return tuple(str(item.value) for item in items if isinstance(item, ast.Constant))


def _python(read: Read, path: str) -> ast.Module:
    try:
        return parse_python(read(path) or "")
    except ValueError as error:
        raise BadData(f"{path} is no Python: {error}", "is this a whole vLLM source tree?") from error


def _called(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _literal(call: ast.Call, keyword: str, place: int) -> object:
    """A literal argument; False where it is not given, None where it is no literal."""
    value = next((word.value for word in call.keywords if word.arg == keyword), None)
    if value is None:
        if len(call.args) <= place:
            return False
        value = call.args[place]
    return value.value if isinstance(value, ast.Constant) else None


def _run(body: Iterable[ast.stmt]) -> Iterator[ast.Call]:
    """The calls of a module's own statements; of an ``if`` the branch that is known, or both."""
    for statement in body:
        if isinstance(statement, ast.If):
            verdict = _truth(statement.test)
            if verdict is not False:
                yield from _run(statement.body)
            if verdict is not True:
                yield from _run(statement.orelse)
        elif isinstance(statement, ast.With | ast.Try | ast.For | ast.While):
            yield from _run(statement.body)
        elif not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield from (node for node in ast.walk(statement) if isinstance(node, ast.Call))


def _truth(test: ast.expr) -> bool | None:
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        verdict = _truth(test.operand)
        return None if verdict is None else not verdict
    if isinstance(test, ast.BoolOp):
        parts = [_truth(value) for value in test.values]
        settles = isinstance(test.op, ast.Or)
        return settles if settles in parts else None if None in parts else not settles
    return _ANSWERS.get(_called(test)) if isinstance(test, ast.Call) else None


# -- CMake ---------------------------------------------------------------------------------------

_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.+/-]+)\}")
_SOURCE = re.compile(r"\.(cu|cpp|cc|cxx|c)$")
_SOURCES = re.compile(r"\.cu(?![a-z])")
_ASSIGNS = {"set": 0, "list": 1, "file": 1, "get_filename_component": 0, "cmake_path": 1}
"""Commands that fill a variable, and which argument names it."""
_OF_TARGET = {"target_sources", "target_include_directories", "target_link_libraries", "add_dependencies"}


class _Project:
    """The commands of a CMake project, asked what its targets are made from.

    A variable's content is every text that some command puts into it: which of them goes into which target is
    not followed in order, so a tree may be named that one branch does not use, and none is missed.
    """

    def __init__(self, calls: list[Call], trees: list[str]) -> None:
        self.calls = calls
        self.trees = trees
        self.texts: dict[str, list[str]] = {}
        for call in calls:
            place, words = _ASSIGNS.get(call.command.name), call.command.words()
            if place is not None and len(words) > place + 1 and words[place] + "_SOURCE_DIR" not in words:
                self.texts.setdefault(words[place], []).extend(words[place + 1 :])

    def module(self, name: str, optional: bool) -> Module:
        target = name.rsplit(".", 1)[-1]
        libraries = [call for call in self.calls if self._defines(call, target, library=True)]
        customs = [call for call in self.calls if self._defines(call, target, library=False)]
        installs = [call for call in self.calls if self._installs(call, target)]
        outer = [call.within or call for call in libraries]
        words = [word for call in [*outer, *installs, *customs] for word in call.command.words()]
        words += [
            word
            for call in self.calls
            if call.command.name in _OF_TARGET and call.values[:1] == (target,)
            for word in call.command.words()
        ]
        texts = self.closure(words)
        trees = dict.fromkeys(call.tree for call in outer if call.tree)
        trees.update(dict.fromkeys(found for text in texts for found in self.trees_of(text)))
        where = [
            f"{call.path}:{call.command.line}" for call in [*outer, *customs, *installs] if not call.tree
        ]
        if not libraries and not customs and not installs:
            raise BadData(
                f"setup.py lists {name}, and no CMake file defines or installs {target}", "report this tag"
            )
        if libraries:
            kind = Kind.KERNEL if any(_SOURCES.search(text) for text in self.closure(words)) else Kind.HOST
        elif not customs:
            kind = Kind.KERNEL  # an external tree's own CMake defines it
        else:
            kind = Kind.CUSTOM if any("DEPENDS" in call.command.words() for call in customs) else Kind.COPIED
        where_first = where[0] if where else next(iter(trees), "")
        return Module(name, kind, tuple(trees), where_first, optional, self.places(installs),
                      outside=not customs and all(call.tree for call in outer))  # fmt: skip

    def places(self, installs: list[Call]) -> tuple[str, ...]:
        """Folders that install commands name: DESTINATION, or a path below the prefix in a script."""
        found: dict[str, None] = {}
        for call in installs:
            for one, two in zip(call.values, call.values[1:], strict=False):
                if one == "DESTINATION" and two:
                    found[two.strip("/")] = None
            for word in call.command.words():
                if "CMAKE_INSTALL_PREFIX" in word and not re.search(r"file\(MAKE_DIRECTORY[^)]*\)\s*$", word):
                    paths = re.findall(r"CMAKE_INSTALL_PREFIX\}/(vllm/[\w/]*\w)", word)
                    found.update(dict.fromkeys(max(paths, key=len, default="").split() or []))
        return tuple(found)

    def _defines(self, call: Call, target: str, *, library: bool) -> bool:
        name = call.command.name
        if name == "add_custom_target" if not library else name.endswith("add_library"):
            return call.values[:1] == (target,) and (not library or "MODULE" in call.command.words())
        return False

    def _installs(self, call: Call, target: str) -> bool:
        return call.command.name == "install" and any(
            one == "COMPONENT" and two == target
            for one, two in zip(call.values, call.values[1:], strict=False)
        )

    def closure(self, words: Iterable[str]) -> list[str]:
        """The words and all that the variables in them may hold."""
        seen: set[str] = set()
        left, found = list(words), []
        while left:
            word = left.pop()
            found.append(word)
            for name in _REFERENCE.findall(word):
                if name not in seen:
                    seen.add(name)
                    left += self.texts.get(name, [])
        return found

    def trees_of(self, text: str) -> list[str]:
        """Trees one of whose folders a text names: ``${flashmla_SOURCE_DIR}``, which FetchContent sets, or a
        variable that a tree's own CMake sets under its name, as ``${CUTLASS_INCLUDE_DIR}``."""
        names = [name.lower() for name in _REFERENCE.findall(text) if name.endswith(("_DIR", "_DIRS"))]
        return [tree for tree in self.trees if any(name.startswith(f"{tree.lower()}_") for name in names)]

    def linked(self) -> tuple[str, ...]:
        """Trees that an install script links to."""
        texts = [
            text
            for call in self.calls
            if call.command.name == "install"
            for text in call.command.words()
            if "CREATE_LINK" in text or "create_symlink" in text
        ]
        return tuple(dict.fromkeys(tree for text in self.closure(texts) for tree in self.trees_of(text)))

    def configure_reads(self) -> dict[str, tuple[str, ...]]:
        """Files of external trees that vLLM's CMake reads while it configures, or lists as sources, by tree."""
        found: dict[str, dict[str, None]] = {}
        for call in self.calls:
            reads = call.command.name in ("include", "configure_file", "add_subdirectory") or (
                call.command.name == "file" and call.values[:1] in (("READ",), ("STRINGS",))
            )
            for word in () if call.tree else call.command.words():
                match = re.match(r"\$\{([\w.+-]+)_SOURCE_DIR\}/([^$*;\s]+)$", word)
                if match and match.group(1) in self.trees and (reads or _SOURCE.search(word)):
                    found.setdefault(match.group(1), {})[match.group(2)] = None
        return {tree: tuple(paths) for tree, paths in found.items()}
