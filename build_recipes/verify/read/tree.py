"""The modules of one release, with a summary of each that is made on first need."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import msgspec

from build_recipes.kit.hashing import file_sha256
from build_recipes.verify.read import archive
from build_recipes.verify.read.flow import read_flow
from build_recipes.verify.read.model import Flow, Summary, Surface
from build_recipes.verify.read.outline import Outline
from build_recipes.verify.read.store import Store, code_digest
from build_recipes.verify.read.surface import read_surface
from build_recipes.verify.read.syntax import VLLM

R = TypeVar("R")

OMNI = "vllm_omni"

_EXTENSION = re.compile(r"""CMakeExtension\(\s*(?:name\s*=\s*)?["']([\w.]+)["']""")
_PRODUCT = re.compile(r"""vllm/((?:vllm_flash_attn|third_party/\w+))/""")


class Index(msgspec.Struct, array_like=True):
    """What is kept of an archive."""

    origin: str
    package: str
    name: str
    version: str
    requires: list[str]
    files: dict[str, bytes]
    """Content digest (16 bytes) by path."""
    unread: dict[str, str]
    compiled: list[str]
    extras: dict[str, str]
    mentions: list[str]


class Tree:
    """One release, wheel, sdist or folder of vLLM or of a package that imports it.

    :param path: where it was read.
    :param load: reads the contents again, when a file that has no summary yet is asked for.
    :param whole: parse function bodies that nothing is asked of too, so that an error in one is seen. What
        was published parses (checked over all releases), so it can do without.
    """

    def __init__(
        self, index: Index, path: Path, store: Store, load: Callable[[], archive.Contents], *, whole: bool
    ) -> None:
        self.index, self.path, self.store, self._load, self.whole = index, path, store, load, whole
        self._contents: archive.Contents | None = None
        self.problems: dict[str, str] = dict(index.unread)
        self.modules = modules_of(index.files)
        self.products = products_of(index)
        self._summaries: dict[tuple[str, str], Summary | None] = {}
        self._all: dict[str, Summary] = {}

    @property
    def package(self) -> str:
        """``vllm``, or the package that is judged."""
        return self.index.package

    @property
    def version(self) -> str:
        """The version its metadata gives; empty for a bare tree."""
        return self.index.version

    @property
    def identity(self) -> str:
        """A digest of all that a verdict is made from: contents, metadata, compiled modules, and the name."""
        return hashlib.blake2b(_ENCODER.encode(self.index), digest_size=16).hexdigest()

    def look_anew(self) -> None:
        """Forget which files were met that could not be read: the next verdict has met none yet."""
        self.problems = dict(self.index.unread)

    @property
    def looked_at(self) -> set[str]:
        """Modules that were asked for so far."""
        return {module for module, _ in self._summaries}

    def source(self, path: str) -> bytes:
        """The content of a file."""
        if self._contents is None:
            self._contents = self._load()
        return self._contents.files[path]

    def forget(self) -> None:
        """Let go of the contents; summaries stay."""
        self._contents = None
        self._summaries.clear()
        self._all.clear()

    def surface(self, module: str) -> Surface | None:
        """The surface of a module; None where its file could not be read or it has none (a namespace)."""
        found = self.summary(module)
        return found.surface if found is not None and not found.problem else None

    def unread(self, module: str) -> str:
        """Why the file of a module could not be read; empty where it could."""
        found = self.summary(module)
        return found.problem if found is not None else ""

    def summary(self, module: str, more: str = "") -> Summary | None:
        """The summary of a module; None for a module without a file.

        :param more: with all functions (`flow.EVERY`), or with the methods of classes that inherit (`flow.HEIRS`);
            what an import does is kept otherwise.
        """
        asked = module, more
        if asked not in self._summaries:
            self._summaries[asked] = self._summary(module, more)
        found = self._summaries[asked]
        if found is not None and found.problem:
            self.problems[self.modules[module]] = found.problem
        return found

    def _summary(self, module: str, more: str) -> Summary | None:
        path = self.modules.get(module, "")
        if path in self.index.unread:
            return unreadable(self.index.unread[path])
        if not path:
            return None
        kind, key = self._kind(more), self.index.files[path]
        kept = self.store.get(kind, key)
        if kept is not None:
            return _SUMMARY.decode(kept)
        with no_collection():
            found = summarise(self.source(path), self.package, whole=self.whole, more=more)
        self.store.put_later(kind, key, _ENCODER.encode(found))
        return found

    def _kind(self, more: str = "") -> str:
        return " ".join(["summary", self.package, *["whole"] * self.whole, more, code_digest("read")])

    def summaries(self) -> dict[str, Summary]:
        """Summaries of all modules, in the order of their names (of the package every file is looked at)."""
        if not self._all:
            kept = self.store.get_many(self._kind(), set(self.index.files.values()))
            for module, path in sorted(self.modules.items()):
                if path and (module, "") not in self._summaries and self.index.files[path] in kept:
                    self._summaries[module, ""] = _SUMMARY.decode(kept[self.index.files[path]])
                if path:
                    self._all[module] = self.summary(module) or unreadable("")
            self.store.flush()
        return self._all

    def save(self) -> None:
        """Keep the summaries that were made since the last time."""
        self.store.flush()


class Summaries(Mapping[str, Summary]):
    """The summaries of a tree, each made on first need."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __getitem__(self, module: str) -> Summary:
        found = self.tree.summary(module)
        if found is None:
            raise KeyError(module)
        return found

    def __iter__(self) -> Iterator[str]:
        return (module for module, path in self.tree.modules.items() if path)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, module: object) -> bool:
        return bool(self.tree.modules.get(str(module)))


_ENCODER = msgspec.msgpack.Encoder()
_SUMMARY = msgspec.msgpack.Decoder(Summary)
_INDEX = msgspec.msgpack.Decoder(Index)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Without the garbage collector: syntax trees hold no cycles, and looking for some costs a third more."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def open_tree(path: Path, package: str, store: Store, sha256: str | None = None) -> Tree:
    """The tree of a wheel, an sdist or a folder.

    :param sha256: its digest where it is known (a pinned download); read from the file otherwise.
    :raises CouldNotCheck: see `archive.read`.
    """

    def load() -> archive.Contents:
        return archive.read(path, package)

    if not path.is_file():
        contents = load()
        return _with(contents, make_index(contents), path, store, load, whole=True)
    key = bytes.fromhex(sha256 or file_sha256(path))
    kind = f"index {package} {code_digest('archive', 'tree')}"
    kept = store.get(kind, key)
    if kept is not None:
        index = msgspec.structs.replace(_INDEX.decode(kept), origin=path.name)
        return Tree(index, path, store, load, whole=sha256 is None)
    contents = load()
    index = make_index(contents)
    store.put_many(kind, {key: _ENCODER.encode(index)})
    return _with(contents, index, path, store, load, whole=sha256 is None)


def _with(
    contents: archive.Contents,
    index: Index,
    path: Path,
    store: Store,
    load: Callable[[], archive.Contents],
    *,
    whole: bool,
) -> Tree:
    tree = Tree(index, path, store, load, whole=whole)
    tree._contents = contents
    return tree


def make_index(contents: archive.Contents) -> Index:
    """Digest every file."""
    return Index(
        origin=contents.origin,
        package=contents.package,
        name=contents.name,
        version=contents.version,
        requires=contents.requires,
        files={path: hashlib.blake2b(data, digest_size=16).digest() for path, data in contents.files.items()},
        unread=contents.unread,
        compiled=contents.compiled,
        extras=contents.extras,
        mentions=sorted(contents.mentions),
    )


def modules_of(paths: Iterable[str]) -> dict[str, str]:
    """Path by dotted module name; folders without ``__init__`` are there too, with an empty path."""
    found: dict[str, str] = {}
    for path in paths:
        parts = path.removesuffix(".py").split("/")
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    for name in list(found):
        while name := name.rpartition(".")[0]:
            found.setdefault(name, "")
    return found


def products_of(index: Index) -> frozenset[str]:
    """Modules that the build makes and that no sdist holds: dotted names, each with all below it."""
    setup = index.extras.get("setup.py", "")
    found = {f"{index.package}._version", *_EXTENSION.findall(setup)}
    found.update("vllm." + match.replace("/", ".") for match in _PRODUCT.findall(setup))
    found.update(path.partition(".")[0].replace("/", ".") for path in index.compiled)
    return frozenset(found)


def _decoded(data: bytes) -> str:
    """The text of a source file, by the encoding that it says it has.

    :raises SyntaxError: it says one that there is not, or another than its first bytes do.
    :raises UnicodeDecodeError: it is not in that encoding.
    :raises LookupError: that encoding is of no text.
    """
    second = data.find(b"\n", data.find(b"\n") + 1)
    if b"coding" not in data[: second if second >= 0 else None]:
        return data.decode("utf-8-sig")
    encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    return data.decode(encoding)


def parse(data: bytes, reader: Callable[[Outline], R], *, whole: bool) -> R | str:
    """What a reader makes of a source file, or why it cannot be parsed."""
    try:
        text = _decoded(data)
    except UnicodeDecodeError as error:
        return f"is not {error.encoding.upper()} (byte {error.start})"
    except (SyntaxError, LookupError) as error:
        return f"does not parse: {error.msg if isinstance(error, SyntaxError) else error}"
    try:
        return reader(Outline(text, whole=whole))
    except SyntaxError as error:
        return f"does not parse: {error.msg} (line {error.lineno})"
    except (RecursionError, MemoryError):
        return "does not parse: it is nested too deeply"
    except ValueError as error:
        return f"does not parse: {error}"


def unreadable(problem: str) -> Summary:
    """Stands for a file that could not be read."""
    return Summary(
        Surface({}, [], None, None, True, {}, {}, []),
        Flow([], {}, [], {}, {}, []),
        problem or "cannot be read",
    )


def summarise(data: bytes, package: str, *, whole: bool, more: str = "") -> Summary:
    """The summary of one file of a package.

    :param whole: parse all of it, so that an error in a function's body is seen.
    :param more: what is kept of functions, see `Tree.summary`.
    """
    roots = (VLLM,) if package == VLLM else (VLLM, package)

    def read(outline: Outline) -> Summary:
        return Summary(read_surface(outline), read_flow(outline, roots, package, more))

    found = parse(data, read, whole=whole)
    return unreadable(found) if isinstance(found, str) else found


__all__ = ["OMNI", "VLLM", "Summaries", "Tree", "open_tree"]
