"""The modules of one release, with a summary of each that is made on first need."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
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

R = TypeVar("R")

VLLM, OMNI = "vllm", "vllm_omni"

_SURFACE_CODE = ("lazy", "model", "outline", "surface", "syntax")
"""Modules of this package that make a surface."""

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
    """One release, wheel, sdist or folder of vLLM or vllm-omni.

    :param load: reads the contents again, when a file that has no summary yet is asked for.
    :param whole: parse function bodies that nothing is asked of too, so that an error in one is seen. What
        was published parses (checked over all releases), so it can do without.
    """

    def __init__(
        self, index: Index, store: Store, load: Callable[[], archive.Contents], *, whole: bool
    ) -> None:
        self.index, self.store, self._load, self.whole = index, store, load, whole
        self._contents: archive.Contents | None = None
        self.problems: dict[str, str] = dict(index.unread)
        self.modules = modules_of(index.files)
        self.products = products_of(index)
        self._surfaces: dict[str, Surface | None] = {}
        self._summaries: dict[str, Summary] = {}

    @property
    def package(self) -> str:
        """``vllm`` or ``vllm_omni``."""
        return self.index.package

    @property
    def version(self) -> str:
        """The version its metadata gives; empty for a bare tree."""
        return self.index.version

    @property
    def identity(self) -> str:
        """A digest of all file contents."""
        state = hashlib.blake2b(digest_size=16)
        for path, content in sorted(self.index.files.items()):
            state.update(path.encode() + b"\0" + content)
        return state.hexdigest()

    def source(self, path: str) -> bytes:
        """The content of a file."""
        if self._contents is None:
            self._contents = self._load()
        return self._contents.files[path]

    def forget(self) -> None:
        """Let go of the contents; summaries stay."""
        self._contents = None
        self._summaries.clear()

    def surface(self, module: str) -> Surface | None:
        """The surface of a module; None where its file could not be read or it has none (a namespace)."""
        if module in self._surfaces:
            return self._surfaces[module]
        path = self.modules.get(module, "")
        found: Surface | None = None
        if module in self._summaries:
            found = self._summaries[module].surface
        elif path and path not in self.index.unread:
            kind, key = f"surface {code_digest(*_SURFACE_CODE)}", self.index.files[path]
            kept = self.store.get(kind, key)
            if kept is not None:
                found = _SURFACE.decode(kept)
            else:
                with no_collection():
                    read = parse(self.source(path), read_surface, whole=self.whole)
                if isinstance(read, str):
                    found = _UNREADABLE
                    self.problems[path] = read
                else:
                    found = read
                self.store.put_later(kind, key, _ENCODER.encode(found))
            if found == _UNREADABLE:
                self.problems.setdefault(path, "does not parse")
                found = None
        self._surfaces[module] = found
        return found

    def summaries(self) -> dict[str, Summary]:
        """Summaries of all modules (for vllm-omni: every file is looked at)."""
        if self._summaries:
            return self._summaries
        kind = f"summary {code_digest(*_SURFACE_CODE, 'expressions', 'flow', 'scope')}"
        kept = self.store.get_many(kind, set(self.index.files.values()))
        fresh: dict[bytes, bytes] = {}
        with no_collection():
            self._summarise(kept, fresh)
        self.store.put_many(kind, fresh)
        return self._summaries

    def _summarise(self, kept: dict[bytes, bytes], fresh: dict[bytes, bytes]) -> None:
        for module, path in self.modules.items():
            if not path or path in self.index.unread:
                continue
            key = self.index.files[path]
            if key in kept:
                summary = _SUMMARY.decode(kept[key])
            else:
                summary = summarise(self.source(path), whole=self.whole)
                kept[key] = fresh[key] = _ENCODER.encode(summary)
            if summary.problem:
                self.problems[path] = summary.problem
            self._summaries[module] = summary

    def save(self) -> None:
        """Keep the surfaces that were made since the last time."""
        self.store.flush()


_ENCODER = msgspec.msgpack.Encoder()
_SURFACE = msgspec.msgpack.Decoder(Surface)
_SUMMARY = msgspec.msgpack.Decoder(Summary)
_INDEX = msgspec.msgpack.Decoder(Index)
_UNREADABLE = Surface({}, [], None, None, True, {}, {}, ["?"])


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

    if path.is_dir() or not path.exists():
        contents = load()
        return _with(contents, make_index(contents), store, load, whole=True)
    key = bytes.fromhex(sha256 or file_sha256(path))
    kind = f"index {package} {code_digest('archive', 'tree')}"
    kept = store.get(kind, key)
    if kept is not None:
        return Tree(_INDEX.decode(kept), store, load, whole=sha256 is None)
    contents = load()
    index = make_index(contents)
    store.put_many(kind, {key: _ENCODER.encode(index)})
    return _with(contents, index, store, load, whole=sha256 is None)


def _with(
    contents: archive.Contents,
    index: Index,
    store: Store,
    load: Callable[[], archive.Contents],
    *,
    whole: bool,
) -> Tree:
    tree = Tree(index, store, load, whole=whole)
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


def parse(data: bytes, reader: Callable[[Outline], R], *, whole: bool) -> R | str:
    """What a reader makes of a source file, or why it cannot be parsed."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = data.decode(tokenize.detect_encoding(BytesIO(data).readline)[0])
        except (SyntaxError, LookupError, UnicodeDecodeError):
            return f"is not UTF-8 (byte {error.start})"
    try:
        return reader(Outline(text, whole=whole))
    except SyntaxError as error:
        return f"does not parse: {error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"does not parse: {error}"


def summarise(data: bytes, *, whole: bool) -> Summary:
    """The summary of one file of vllm-omni."""

    def read(outline: Outline) -> Summary:
        return Summary(read_surface(outline), read_flow(outline, (VLLM, OMNI), OMNI))

    found = parse(data, read, whole=whole)
    if isinstance(found, str):
        return Summary(_UNREADABLE, Flow([], {}, [], {}), found)
    return found
