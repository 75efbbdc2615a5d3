"""Which torch ops a build registers: read from the very sources that it compiles.

``TORCH_LIBRARY(_C, ops) { ops.def("rms_norm(Tensor! result, ...) -> ()"); }`` and its variants (``_FRAGMENT``,
``_EXPAND``, ``STABLE_``) declare ops; ``#ifdef USE_ROCM`` parts are left out. So ops of other platforms, which vLLM's
Python files call too, are told from those that a wheel must have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from build_recipes.build.units.graph import Graph
from build_recipes.formats.archive import entries

_BLOCK = re.compile(
    r"^\s*(?:STABLE_)?TORCH_LIBRARY(?:_FRAGMENT)?(?:_EXPAND)?\(\s*(.+),\s*(\w+)\)\s*\{", re.MULTILINE
)
_TEXT = r'"((?:[^"\\]|\\.)*)"'
_CONDITION = re.compile(r"^\s*#\s*(ifdef|ifndef|if|elif|else|endif)\b(.*)$")
_DEFINED = {"USE_ROCM": False, "__HIP_PLATFORM_AMD__": False}
_ANY = "<module>"
_MOST = 8 << 20
"""Bytes of a source file that are read."""


def of_graph(graph: Graph) -> dict[str, list[str]]:
    """Ops by namespace that the units of a configured tree register."""
    found: dict[str, set[str]] = {}
    for command in graph.commands:
        match = re.search(r" -c (\S+)", command.command)
        path = graph.folder / match.group(1) if match else None
        if path is None or not path.is_file() or path.stat().st_size > _MOST:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if "TORCH_LIBRARY" in text:
            for space, name in declared(text, command.unit.split("/")[0]):
                found.setdefault(space, set()).add(name)
    return {space: sorted(names) for space, names in sorted(found.items())}


def of_sdist(archive: Path) -> dict[str, list[str]]:
    """The same of a source distribution, for a wheel whose build is not known: files that CMakeLists.txt names.

    Other platforms have CMake files of their own. Which module a file belongs to is not read, so ops in a namespace
    that is called after the module (``TORCH_EXTENSION_NAME``) stand under ``""``: they may be in any.

    :raises DamagedArchive: it cannot be read.
    """
    texts: dict[str, str] = {}
    for entry in entries(archive):
        name = entry.path.as_posix().partition("/")[2]
        if entry.kind == "file" and (name == "CMakeLists.txt" or re.fullmatch(r"csrc/.+\.(cpp|cu)", name)):
            text = entry.read().decode("utf-8", "replace")
            if "TORCH_LIBRARY" in text or name == "CMakeLists.txt":
                texts[name] = text
    named = texts.pop("CMakeLists.txt", "")
    found: dict[str, set[str]] = {}
    for name, text in texts.items():
        if name in named:
            for space, op in declared(text, _ANY):
                found.setdefault("" if space.startswith(_ANY) else space, set()).add(op)
    return {space: sorted(ops) for space, ops in sorted(found.items())}


def declared(text: str, extension: str) -> Iterable[tuple[str, str]]:
    """Namespace and name of each op that a source file declares.

    :param extension: what ``TORCH_EXTENSION_NAME`` stands for: the module's target.
    """
    kept = _for_cuda(text)
    blocks = list(_BLOCK.finditer(kept))
    for number, block in enumerate(blocks):
        end = blocks[number + 1].start() if number + 1 < len(blocks) else len(kept)
        space = _name(block.group(1), extension)
        for words in re.findall(
            rf"\b{block.group(2)}\s*\.def\(\s*((?:{_TEXT}\s*)+)", kept[block.end() : end]
        ):
            schema = "".join(re.findall(_TEXT, words[0]))
            yield (
                space,
                re.split(r"[(.]", schema.rpartition("::")[2] if "::" in schema.split("(")[0] else schema)[0],
            )


def _name(text: str, extension: str) -> str:
    """``_C``, ``TORCH_EXTENSION_NAME`` or ``CONCAT(TORCH_EXTENSION_NAME, _cache_ops)`` as a namespace."""
    inner = re.fullmatch(r"CONCAT\((.+),\s*(\w+)\)", text.strip())
    parts = inner.groups() if inner else (text.strip(),)
    return "".join(extension if part.strip() == "TORCH_EXTENSION_NAME" else part.strip() for part in parts)


def _for_cuda(text: str) -> str:
    """A source without comments and without what only a ROCm build compiles."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    kept: list[str] = []
    stack: list[bool | None] = []  # of each condition around the line: holds, does not, or is not known
    for line in text.splitlines():
        match = _CONDITION.match(line)
        if match is None:
            if False not in stack:
                kept.append(re.sub(r"^\s*//.*", "", line))
            continue
        word, rest = match.group(1), match.group(2).strip()
        if word in ("ifdef", "ifndef", "if"):
            stack.append(_truth(word, rest))
        elif stack and word == "endif":
            stack.pop()
        elif stack:
            before = stack.pop()
            stack.append(None if before is None else not before)
    return "\n".join(kept)


def _truth(word: str, rest: str) -> bool | None:
    match = re.fullmatch(r"(!?)\s*(?:defined\s*\(?\s*)?(\w+)\s*\)?", rest.split("//", maxsplit=1)[0].strip())
    if match is None or match.group(2) not in _DEFINED:
        return None
    holds = _DEFINED[match.group(2)]
    return not holds if word == "ifndef" or match.group(1) else holds
