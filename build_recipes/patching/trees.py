"""The source trees that patches are examined on: vLLM's from its source distributions, external ones from git.

Only the files that patches and intents read are taken out, once, into the cache.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from build_recipes.formats.archive import unpack
from build_recipes.formats.bounds import safe_member
from build_recipes.kit import paths
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import ArmoryError, UnknownTag
from build_recipes.kit.once import filled
from build_recipes.kit.paths import Places
from build_recipes.patching.series import REPAIR, Variant, parse_version
from build_recipes.sources.cmake.trees import Declaration, Scan
from build_recipes.sources.download import fetch_files
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import FilePin
from build_recipes.sources.repository import Repository

WANTED = re.compile(
    r"CMakeLists\.txt|setup\.py|pyproject\.toml|cmake/.*|requirements/.*\.txt|use_existing_torch\.py"
    r"|vllm/(envs|version|_version)\.py|vllm/(platforms|utils|config|plugins|logging_utils|third_party|vllm_flash_attn)/.*\.py"
    r"|vllm/(__init__|env_override|logger|ray/.*|attention/.*|v1/__init__|v1/worker/gpu_worker)\.py"
    r"|vllm/v1/attention/(__init__|backend|backends/(__init__|registry|mla/__init__|mla/prefill/\w+))\.py"
    r"|csrc/.*(sm100|sm120|scaled_mm_entry|cutlass_extensions/common|generate)[^/]*"
    r"|tools/(setup|build)[^/]*\.py|rust/.*\.toml|Cargo\.toml|build_backend/.*"
)
"""Files of a vLLM tree that a patch changes or an intent reads."""
TREE_FILES = re.compile(r"CMakeLists\.txt|cmake/.*|vllm_flash_attn/.*\.py")
"""Files of an external tree that are read; of all others only the names count (CMake's GLOB)."""


class Sdist(Model, frozen=True):
    """One source distribution on PyPI."""

    version: str
    url: str
    sha256: str
    size: int
    """Bytes."""


class _Sdists(Model, frozen=True):
    sdist: list[Sdist]


@functools.lru_cache(maxsize=4)
def sdists(home: Path = paths.PATCHES) -> dict[str, Sdist]:
    """Every source distribution from 0.10.2 on, by version, oldest first."""
    found = load_toml(home / "sdists.toml", _Sdists, REPAIR).sdist
    return {entry.version: entry for entry in sorted(found, key=lambda entry: Version(entry.version))}


def pin(version: str) -> FilePin:
    """The file of a version.

    :raises UnknownTag: PyPI has no source distribution of it.
    """
    known = sdists()
    number = str(parse_version(version))
    if number not in known:
        near = min(known, key=lambda text: _distance(Version(text), Version(number)))
        raise UnknownTag(
            f"PyPI has no source distribution of vLLM {number} from 0.10.2 on; the nearest is {near}",
            f"--tag v{near}",
        )
    entry = known[number]
    return FilePin(
        project="vllm",
        version=number,
        filename=f"vllm-{number}.tar.gz",
        url=entry.url,
        sha256=entry.sha256,
        size=entry.size,
        group="source",
    )


def _distance(one: Version, other: Version) -> tuple[int, int, int]:
    a, b = ((*v.release, 0, 0)[:3] for v in (one, other))
    return abs(a[0] - b[0]), abs(a[1] - b[1]), abs(a[2] - b[2])


def fetch(versions: list[str], places: Places, *, offline: bool = False) -> None:
    """Bring the source distributions into the cache, several at a time. Errors as `fetch_files`."""
    missing = [pin(version) for version in versions if not folder(version, places).is_dir()]
    if missing:
        fetch_files(missing, places.downloads, offline=offline)


def folder(version: str, places: Places) -> Path:
    """Where the wanted files of a version are, or will be."""
    kind = hashlib.sha256(WANTED.pattern.encode()).hexdigest()[:8]
    return places.cache / "patching" / f"vllm-{pin(version).sha256[:16]}-{kind}"


def vllm_tree(version: str, places: Places, *, offline: bool = False) -> Path:
    """The wanted files of a vLLM version, as a plain folder that must not be written.

    :raises UnknownTag: PyPI has no source distribution of it.
    :raises UnsafeArchive: the archive is damaged or has a member outside its folder.
    """
    into = folder(version, places)
    if into.is_dir():
        return into
    entry = pin(version)
    archive = fetch_files([entry], places.downloads, offline=offline)[entry.filename]

    return filled(
        into, lambda beside: unpack(archive, beside, lambda name: bool(WANTED.fullmatch(name)), top=True)
    )


def declarations(tree: Path) -> dict[str, Declaration]:
    """The external trees that a vLLM tree's CMake declares, by lower-case name."""

    def read(name: str) -> str | None:
        path = tree / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    return {entry.name.lower(): entry for entry in Scan().project(read)}


def external_tree(entry: Declaration, library: Library, places: Places, *, fetching: bool) -> Path | None:
    """What CMake sees of an external tree: its CMake and Python files, and the names of all others.

    :param fetching: whether it may be brought over the network; else None where it is not here.
    """
    repository = _repository(entry, library, fetching)
    if repository is None:
        return None
    into = places.cache / "patching" / f"{entry.name.lower()}-{entry.revision[:16]}"
    if into.is_dir():
        return into

    def fill(beside: Path) -> None:
        for name in repository.git("ls-tree", "-r", "-z", "--name-only", entry.revision).split("\0"):
            if not name:
                continue
            path = beside / safe_member(name, entry.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = repository.read(entry.revision, name) if TREE_FILES.fullmatch(name) else ""
            path.write_text(text or "", encoding="utf-8")

    return filled(into, fill)


def _repository(entry: Declaration, library: Library, fetching: bool) -> Repository | None:
    given = library.given(entry.repository) or library.own(entry.repository)
    if given.git_dir.exists() and given.has(entry.revision):
        return given
    if not fetching or library.given(entry.repository) is not None:
        return None
    return library.with_commit(entry.repository, entry.revision)


def base_files(
    variant: Variant, names: tuple[str, ...], places: Places, *, fetching: bool = False, offline: bool = True
) -> Mapping[str, bytes] | None:
    """The files a variant was written against, for a 3-way merge; None where they are not to be had.

    :param fetching: whether vLLM's may be taken from the cached or a fetched source distribution.
    """
    try:
        if variant.tree != "vllm":
            tree = places.cache / "patching" / f"{variant.tree}-{variant.base[:16]}"
        elif fetching:
            tree = vllm_tree(variant.base, places, offline=offline)
        else:
            tree = folder(variant.base, places)
        return {name: (tree / name).read_bytes() for name in names}
    except (OSError, ArmoryError):
        return None
