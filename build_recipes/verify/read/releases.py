"""Which releases of a project there are, and their files in the cache.

What an index said is kept: a release that was once listed is checked without a network from then on (its
file is in the cache under its hash, or is fetched by that hash).
"""

from __future__ import annotations

import time
from pathlib import Path

from packaging.version import Version

from build_recipes.facts.versions import nearest
from build_recipes.kit import console
from build_recipes.kit.data import Model, load_json, write_atomic
from build_recipes.kit.errors import ArmoryError, BadData, CouldNotCheck, UnknownTag
from build_recipes.kit.paths import Places

FRESH = 12 * 3600.0
"""Seconds for which a listing is not read again when all releases are asked for."""
SINCE = {"vllm": "0.8.5"}
"""The oldest release that is listed. vllm-omni began on vLLM 0.11; some releases before it are kept, so that
the matrix shows where a pair stops to work on that side too."""


class Release(Model, frozen=True):
    """One release and the one file of it that is read."""

    version: str
    filename: str
    url: str
    sha256: str


class Listing(Model, frozen=True):
    """All releases of a project, oldest first."""

    project: str
    read: float
    """When the index was asked, in seconds since 1970."""
    releases: list[Release]

    def get(self, version: str) -> Release | None:
        """The release of a version, however it is spelled."""
        try:
            wanted = Version(version.removeprefix("v"))
        except ValueError:
            return None
        return next((r for r in self.releases if Version(r.version) == wanted), None)


def listing(project: str, places: Places, *, max_age: float = float("inf")) -> Listing:
    """The releases of a project.

    :param max_age: seconds after which what is kept is asked for again; where the index does not answer,
        what is kept is used, with a warning.
    :raises CouldNotCheck: nothing is kept and the index does not answer.
    """
    path = places.cache / "compat" / f"releases-{project}.json"
    kept: Listing | None = None
    if path.exists():
        try:
            kept = load_json(path, Listing)
        except BadData:
            path.unlink(missing_ok=True)
    if kept is not None and time.time() - kept.read < max_age:
        return kept
    try:
        found = Listing(project=project, read=time.time(), releases=_ask(project))
    except ArmoryError as error:
        if kept is None:
            raise CouldNotCheck(
                f"the releases of {project} are not known: {error.args[0]}",
                "check the network, or give files: --omni FILE --vllm FILE",
            ) from error
        console.warn(
            f"{error.args[0]}; going by the releases as of {time.strftime('%F', time.gmtime(kept.read))}"
        )
        return kept
    import msgspec

    write_atomic(path, msgspec.json.format(msgspec.json.encode(found), indent=1))
    return found


def find(project: str, version: str, places: Places) -> Release:
    """The release of a version.

    :raises UnknownTag: vLLM has no such release; the nearest are named.
    :raises CouldNotCheck: the project has no such release, or the index cannot be reached.
    """
    known = listing(project, places)
    found = known.get(version)
    if found is None and time.time() - known.read > 60:
        known = listing(project, places, max_age=0.0)
        found = known.get(version)
    if found is not None:
        return found
    near = [
        tag.removeprefix("v")
        for tag in nearest(f"v{version.removeprefix('v')}", [f"v{r.version}" for r in known.releases])
    ]
    if project == "vllm":
        raise UnknownTag(
            f"vLLM has no release {version} on PyPI (from {SINCE['vllm']} on); the nearest are "
            + ", ".join(f"v{n}" for n in near),
            f"--tag v{near[0]}",
        )
    raise CouldNotCheck(
        f"{project} has no release {version}; the nearest are {', '.join(near)}",
        f"--omni {near[0]}" if project == "vllm-omni" else f"--package {project}=={near[0]}",
    )


def fetch(release: Release, project: str, places: Places) -> Path:
    """The file of a release, from the cache or the index, checked against its hash.

    :raises CouldNotCheck: it is not in the cache and cannot be fetched.
    """
    path = places.downloads / release.sha256 / release.filename
    if path.exists():
        return path
    from build_recipes.sources.download import fetch_files
    from build_recipes.sources.lockfile import FilePin
    from build_recipes.sources.registry import content_length

    try:
        pin = FilePin(
            project=project,
            version=release.version,
            filename=release.filename,
            url=release.url,
            sha256=release.sha256,
            size=content_length(release.url),
            group="compat",
        )
        return fetch_files([pin], places.downloads)[release.filename]
    except ArmoryError as error:
        raise CouldNotCheck(f"{release.filename} cannot be fetched: {error.args[0]}", error.advice) from error


def _ask(project: str) -> list[Release]:
    from build_recipes.sources.registry import packages

    best: dict[Version, tuple[tuple[int, str], Release]] = {}
    for entry in packages(project):
        digest = entry.digests.get("sha256")
        if not entry.version or not digest or entry.is_yanked:
            continue
        try:
            version = Version(entry.version)
        except ValueError:
            continue
        if version < Version(SINCE.get(project, "0")) or entry.package_type not in ("sdist", "wheel"):
            continue
        rank = (_rank(entry.filename), entry.filename)
        release = Release(version=entry.version, filename=entry.filename, url=entry.url, sha256=digest)
        if version not in best or rank < best[version][0]:
            best[version] = (rank, release)
    return [best[version][1] for version in sorted(best)]


def _rank(filename: str) -> int:
    """A pure wheel is what pip installs; then the sdist; then a wheel for this project's machines."""
    if filename.endswith("-none-any.whl"):
        return 0
    if not filename.endswith(".whl"):
        return 1
    return 2 if "aarch64" in filename else 3
