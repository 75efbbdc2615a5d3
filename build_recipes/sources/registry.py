"""The package index: which files a version has, with address, hash and size."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import requests
from packaging.tags import Tag
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version
from pypi_simple import ACCEPT_ANY, DistributionPackage, NoSuchProjectError, PyPISimple

from build_recipes.kit.errors import BadData, NetworkError
from build_recipes.sources.download import ATTEMPTS, TIMEOUT, backoff, retrying
from build_recipes.sources.lockfile import FilePin

PYPI = "https://pypi.org/simple"


@functools.lru_cache(maxsize=256)
def packages(project: str, index: str = PYPI) -> tuple[DistributionPackage, ...]:
    """All files of a project.

    :raises NetworkError: the index does not answer or does not know the project.
    """
    import time

    reason = ""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with PyPISimple(index) as client:
                page = client.get_project_page(project, timeout=TIMEOUT[1], accept=ACCEPT_ANY)
            return tuple(page.packages)
        except NoSuchProjectError as error:
            raise NetworkError(f"{index} has no project {project}", "check the name and the index") from error
        except requests.RequestException as error:
            reason = f"{type(error).__name__}"
            if "NameResolution" in str(error):
                reason = "its host name cannot be resolved"
                break
        if attempt < ATTEMPTS:
            time.sleep(backoff(attempt))
    raise NetworkError(
        f"the package index {index} cannot be read: {reason} (asked for {project})",
        "check the network; a tag whose lock is there needs no index",
    )


def releases(project: str, index: str = PYPI) -> list[str]:
    """Versions of a project that have a source distribution, oldest first."""
    found = set()
    for package in packages(project, index):
        if package.package_type == "sdist" and package.version and not package.is_yanked:
            try:
                found.add(Version(package.version))
            except InvalidVersion:
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
        except (InvalidSdistFilename, InvalidWheelFilename, InvalidVersion):
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
    headers = {"Accept-Encoding": "identity"}
    answer = retrying(url, lambda: requests.head(url, timeout=TIMEOUT, headers=headers, allow_redirects=True))
    if not answer.ok or "content-length" not in answer.headers:
        raise NetworkError(f"{url} answers {answer.status_code} without a length", "run it again later")
    return int(answer.headers["content-length"])
