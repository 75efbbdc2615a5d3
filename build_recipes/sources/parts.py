"""Long lists that locks have in common (a torch's wheels, the toolkit's), kept once: ``locks/parts/NAME-HASH.toml``.

In a lock ``wheels_from = ["cuda-0123456789abcdef", ...]`` stands for ``wheels``. The name ends with the hash of the
list; a lock's digest is that of the whole content, so an edited part is noticed like an edited lock.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from build_recipes.kit import paths
from build_recipes.kit.data import parse_toml, write_atomic

Plain = dict[str, Any]
"""A lock, or a table of it, as TOML has it."""
_LONG = 8
"""Shorter lists stay in the lock."""


def take_out(plain: Plain, folder: Path) -> Plain:
    """A lock whose long lists are replaced by the names of parts, which are written into ``folder``/parts."""
    names: dict[str, list[Plain]] = {}
    for table, key, name in _places(plain):
        entries = table.get(key, [])
        if len(entries) < _LONG:
            continue
        groups = itertools.groupby(entries, lambda entry: entry.get("group", "")) if name == "" else None
        pieces = [(g, list(part)) for g, part in groups] if groups else [(name, entries)]
        for title, part in pieces:
            names[f"{title}-{_hash(part)}"] = part
        table[f"{key}_from"] = [f"{title}-{_hash(part)}" for title, part in pieces]
        del table[key]
    for name, part in names.items():
        path = folder / "parts" / f"{name}.toml"
        if not path.is_file():
            write_atomic(path, "# Part of locks; do not edit.\n" + tomli_w.dumps({"entries": part}))
    return plain


def put_back(plain: Plain, folder: Path) -> Plain:
    """The whole lock again. Parts that ``folder`` has not are the project's own.

    :raises ValueError: a part is not there, or is no such list.
    """
    for table, key, _ in _places(plain):
        wanted = table.pop(f"{key}_from", None)
        if wanted is not None and not isinstance(wanted, list):
            raise ValueError(f"{key}_from is no list of parts")
        if wanted is not None:
            table[key] = [entry for name in wanted for entry in _read(str(name), folder)]
    return plain


def used(folder: Path) -> set[str]:
    """Names of the parts that some lock in ``folder`` needs."""
    texts = (path.read_text(encoding="utf-8") for path in folder.glob("v*.toml"))
    return {name for text in texts for name in re.findall(r'"([\w.+-]+-[0-9a-f]{16})"', text)}


def remove_unused(folder: Path) -> None:
    """Remove the parts that no lock needs any more."""
    keep = used(folder)
    for path in (folder / "parts").glob("*.toml"):
        if path.stem not in keep:
            path.unlink()


def _places(plain: Plain) -> Iterator[tuple[Plain, str, str]]:
    """Where a lock has long lists: the table, the key, a title (empty: one part for each group).

    What should be a table and is none is passed over here; the lock's model refuses it.
    """
    yield plain, "wheels", ""
    for torch in _tables(plain.get("torch")):
        yield torch, "files", f"torch-{torch.get('version', '')}"
    for tree in _tables(plain.get("trees")):
        for wheel in _tables([tree.get("from_wheel")]):
            yield wheel, "members", f"{tree.get('name', '')}-{tree.get('revision', '')}"


def _tables(value: object) -> list[Plain]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _hash(entries: list[Plain]) -> str:
    return hashlib.sha256(msgspec.json.encode(entries, order="deterministic")).hexdigest()[:16]


def _read(name: str, folder: Path) -> list[Plain]:
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(f"{name!r} is no part of a lock")
    for place in (folder, paths.PACKAGE / "locks"):
        path = place / "parts" / f"{name}.toml"
        if path.is_file():
            entries = parse_toml(path.read_text(encoding="utf-8")).get("entries")
            if not isinstance(entries, list):
                raise ValueError(f"{path} has no entries")
            return entries
    raise ValueError(f"its part {name} is not in {folder / 'parts'}")
