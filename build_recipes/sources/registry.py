"""The package index: which files a version has, with address, hash and size."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from packaging.tags import Tag
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version
from pypi_simple import ACCEPT_ANY, DistributionPackage, ProjectPage

from build_recipes.kit import http
from build_recipes.kit.console import one_line
from build_recipes.kit.errors import BadData, NetworkError
from build_recipes.sources.lockfile import FilePin

PYPI = "https://pypi.org/simple"


@functools.lru_cache(maxsize=256)
def packages(project: str, index: str = PYPI) -> tuple[DistributionPackage, ...]:
    """All files of a project.

    :raises NetworkError: the index does not answer or does not know the project.
    """
    answer = http.ask(f"{index.rstrip('/')}/{canonicalize_name(project)}/", headers={"Accept": ACCEPT_ANY})
    if answer.status == 404:
        raise NetworkError(f"{index} has no project {project}", "check the name and the index")
    return listed(answer, project)


def listed(answer: http.Answer, project: str) -> tuple[DistributionPackage, ...]:
    """The files on a page of an index (PEP 503 or 691).

    :raises NetworkError: it is no such page.
    """
    kind = answer.headers.get("Content-Type", "text/html").partition(";")[0].strip().lower()
    try:
        if answer.status != 200:
            raise ValueError(f"status {answer.status} {answer.reason}")
        if kind == "application/vnd.pypi.simple.v1+json":
            return tuple(ProjectPage.from_json_data(json.loads(answer.body), answer.url).packages)
        if kind not in ("application/vnd.pypi.simple.v1+html", "text/html"):
            raise ValueError(f"a document of type {kind}")
        return tuple(ProjectPage.from_html(project, answer.body, base_url=answer.url).packages)
    except Exception as error:  # whatever the parsers say of bytes from outside: this is no index
        raise NetworkError(
            f"the package index at {answer.url} cannot be read: {one_line(str(error))} (asked for {project})",
            "check the address; a tag whose lock is there needs no index",
        ) from error


def releases(project: str, index: str = PYPI, *, kinds: Collection[str] = ("sdist",)) -> list[str]:
    """Versions of a project that have a file of one of these kinds (``sdist``, ``wheel``), oldest first."""
    found = set()
    for package in packages(project, index):
        if package.package_type in kinds and package.version and not package.is_yanked:
            try:
                found.add(Version(package.version))
            except ValueError:
                continue
    return [str(version) for version in sorted(found)]


def file_pins(
    project: str, version: str, group: str, tags: frozenset[Tag] | None, index: str = PYPI
) -> list[FilePin]:
    """The wheels of a version that fit any of ``tags``; its source distribution where ``tags`` is None.

    :returns: sorted by file name; empty where none fits.
    """
    chosen: list[DistributionPackage] = []
    for package in packages(project, index):
        try:
            if tags is None:
                name, found = parse_sdist_filename(package.filename)
            else:
                name, found, _, has = parse_wheel_filename(package.filename)
                if not has & tags:
                    continue
        except (InvalidSdistFilename, InvalidWheelFilename, ValueError):
            continue
        if name == canonicalize_name(project) and found == Version(version) and not package.is_yanked:
            chosen.append(package)
    with ThreadPoolExecutor(8) as pool:
        pins = list(pool.map(lambda package: _pin(package, str(version), group), chosen))
    return sorted(pins, key=lambda pin: pin.filename)


def _pin(package: DistributionPackage, version: str, group: str) -> FilePin:
    digest = package.digests.get("sha256")
    if not digest:
        raise BadData(
            f"{package.url} has no SHA-256 in its index", "use an index that gives hashes (PEP 503)"
        )
    return FilePin(
        project=canonicalize_name(package.project or ""),
        version=version,
        filename=package.filename,
        url=package.url,
        sha256=digest,
        size=package.size if package.size is not None else content_length(package.url),
        group=group,
    )


@functools.lru_cache(maxsize=4096)
def content_length(url: str) -> int:
    """Size of a file in bytes, from a HEAD request (an HTML index has no sizes)."""
    answer = http.ask(url, method="HEAD", headers={"Accept-Encoding": "identity"})
    length = answer.headers.get("Content-Length", "")
    if answer.status != 200 or not (length.isascii() and length.isdecimal()):
        raise NetworkError(f"{url} answers {answer.status} without a length", "run it again later")
    return int(length)
