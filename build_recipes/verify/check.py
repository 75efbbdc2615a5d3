"""`./inv verify-omni` for one pair: find what was asked for, judge it, remember the verdict."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from build_recipes.kit import console, paths
from build_recipes.kit.errors import ArmoryError, CouldNotCheck, OmniBreaks
from build_recipes.kit.paths import Places
from build_recipes.verify.judge.answers import MISSING
from build_recipes.verify.judge.matrix import kept_table
from build_recipes.verify.judge.moved import History
from build_recipes.verify.judge.resolve import Resolver
from build_recipes.verify.judge.suggest import known, suggest
from build_recipes.verify.judge.table import Table
from build_recipes.verify.judge.verdict import CLEAN, Report, judge
from build_recipes.verify.read import releases
from build_recipes.verify.read.store import Store, code_digest
from build_recipes.verify.read.tree import OMNI, VLLM, Tree, no_collection, open_tree


@dataclass(frozen=True)
class Asked:
    """What the command line names; empty strings for defaults."""

    tag: str = ""
    omni: str = ""
    vllm: str = ""


class Checker:
    """Judges pairs, with one store for all of them."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.store = Store(places.cache / "compat" / "parsed.sqlite")
        self._trees: dict[tuple[str, str], Tree] = {}
        self._answers: list[tuple[str, Table]] | None = None

    # -- what was asked

    def vllm(self, asked: Asked) -> Tree:
        """The vLLM of a command line: a file or a folder, a tag, or what this project built last."""
        if asked.vllm:
            return self.file(asked.vllm, VLLM)
        return self.release(VLLM, asked.tag or default_tag(self.places))

    def omni(self, asked: Asked, vllm: Tree) -> Tree:
        """The vllm-omni of a command line: a version, ``latest``, a file or a folder, or the newest release
        without a break."""
        if asked.omni == "latest":
            return self.release(
                OMNI, releases.listing(OMNI, self.places, max_age=releases.FRESH).releases[-1].version
            )
        if asked.omni:
            known = releases.listing(OMNI, self.places).get(asked.omni) if not _is_path(asked.omni) else None
            if known or not _is_path(asked.omni):
                return self.release(OMNI, asked.omni)
            return self.file(asked.omni, OMNI)
        return self.newest_clean(vllm)

    def newest_clean(self, vllm: Tree) -> Tree:
        """The newest release without a break; where every one has some, the nearest in version.

        What a matrix has told is believed for releases that break; the one that is taken is judged now.
        """
        published = releases.listing(OMNI, self.places, max_age=releases.FRESH).releases
        counts = known(self.store)
        for release in reversed(published):
            count = counts.get(release.version, vllm.version)
            if count:
                continue
            tree = self.release(OMNI, release.version)
            if self.judge(tree, vllm, calls=False).verdict == CLEAN:
                return tree
        near = min(published, key=lambda r: _distance(r.version, vllm.version))
        return self.release(OMNI, near.version)

    def release(self, package: str, version: str) -> Tree:
        """A release from the package index.

        :raises UnknownTag: or `CouldNotCheck`: there is none, or it cannot be had.
        """
        release = releases.find(package, version, self.places)
        key = (package, release.version)
        if key not in self._trees:
            path = releases.fetch(release, package, self.places)
            self._trees[key] = open_tree(path, package, self.store, release.sha256)
        return self._trees[key]

    def file(self, name: str, package: str) -> Tree:
        """A wheel, an sdist or a folder."""
        return open_tree(Path(name).expanduser(), package, self.store)

    def requirement(self, asked: Asked, omni: Tree) -> str:
        """What uv is asked to install for a vllm-omni."""
        if asked.omni and _is_path(asked.omni):
            return str(Path(asked.omni).expanduser().resolve())
        return str(releases.fetch(releases.find(OMNI, omni.version, self.places), OMNI, self.places))

    # -- verdicts

    def baseline(self, omni: Tree, vllm: Tree) -> Tree | None:
        """The vLLM a vllm-omni release was made for: the same version, else the nearest below in its minor."""
        version = _version(omni.version)
        if version is None:
            return None
        if _version(vllm.version) == Version(version.base_version):
            return vllm
        try:
            known = releases.listing(VLLM, self.places).releases
            same = [r for r in known if Version(r.version).release[:2] == version.release[:2]]
            if not same:
                return None
            best = min(
                same, key=lambda r: (Version(r.version) > Version(version.base_version), Version(r.version))
            )
            exact = next((r for r in same if Version(r.version) == Version(version.base_version)), best)
            return self.release(VLLM, exact.version)
        except ArmoryError as error:
            console.warn(f"calls are not compared: {error.args[0]}")
            return None

    def judge(self, omni: Tree, vllm: Tree, calls: bool = True) -> Report:
        """The verdict on a pair, from the store where it was judged before."""
        baseline = self.baseline(omni, vllm) if calls else None
        kind = f"report {code_digest()}"
        names = [omni.identity, vllm.identity, baseline.identity if baseline is not None else ""]
        key = bytes.fromhex("".join(names))
        kept = self.store.get(kind, key)
        if kept is not None:
            return self._with_suggestions(msgspec.msgpack.decode(kept, type=Report))
        with no_collection():
            report = judge(omni, vllm, baseline, self._history(vllm, baseline))
        self.store.put_many(kind, {key: msgspec.msgpack.encode(report)})
        return self._with_suggestions(report)

    def _with_suggestions(self, report: Report) -> Report:
        report.suggest = suggest(known(self.store), report.omni, report.vllm)
        return report

    def _history(self, vllm: Tree, baseline: Tree | None) -> History | None:
        """Who had a name before: the releases a matrix has asked, else the vLLM that is compared with."""
        version = _version(vllm.version)
        resolver = Resolver(baseline) if baseline is not None else None

        def had(module: str, name: str) -> str | None:
            for older, table in reversed(self._tables()):
                if (version is None or Version(older) < version) and table.has(module, name):
                    return f"last in {older}"
            if resolver is None or baseline is None:
                return None
            found = resolver.name(module, name) if name else resolver.module(module)
            return f"was in {baseline.version}" if found.status not in MISSING else None

        return had

    def _tables(self) -> list[tuple[str, Table]]:
        if self._answers is None:
            published = releases.listing(VLLM, self.places).releases
            self._answers = [
                (r.version, t) for r in published if (t := kept_table(self.store, r)) is not None
            ]
        return self._answers


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def default_tag(places: Places) -> str:
    """The tag of the newest wheel in ``wheels/``, else of the newest lock.

    :raises CouldNotCheck: there is neither.
    """
    built = []
    for path in places.wheels.glob("vllm-*.whl"):
        try:
            built.append((path.stat().st_mtime, parse_wheel_filename(path.name)[1]))
        except InvalidWheelFilename:
            continue
    if built:
        return f"v{max(built)[1].public}"
    locks = [Version(path.stem) for folder in paths.lock_folders() for path in folder.glob("v*.toml")]
    if locks:
        return f"v{max(locks)}"
    raise CouldNotCheck("no wheel is built and no lock is there", "name a tag: --tag v0.12.0")


def wheel_of(asked: Asked, places: Places) -> Path:
    """The wheel that ``--run`` installs: the one given, else the newest in ``wheels/`` of the tag.

    :raises CouldNotCheck: there is none.
    """
    if asked.vllm.endswith(".whl"):
        return Path(asked.vllm).expanduser().resolve()
    version = Version((asked.tag or default_tag(places)).removeprefix("v"))
    built = []
    for path in places.wheels.glob("vllm-*.whl"):
        with contextlib.suppress(InvalidWheelFilename):
            if parse_wheel_filename(path.name)[1].public == version.public:
                built.append((path.stat().st_mtime, path))
    if not built:
        raise CouldNotCheck(
            f"wheels/ has no vLLM {version} to import",
            f"./inv build --tag v{version}, or --vllm WHEEL, or --stub",
        )
    return max(built)[1]


def verdict_error(report: Report) -> OmniBreaks:
    """The exit of a pair that breaks."""
    count = sum(n for tier, n in report.counts.items() if tier != "platform")
    first = next(entry for entry in report.breaks if entry.tier != "platform")
    what = f"{first.module}.{first.name}" if first.name else first.module
    near = report.suggest.get("nearest", {})
    words = [f"--omni {near['omni']}"] if near.get("omni") else []
    words += [f"--tag v{near['vllm']}"] if near.get("vllm") else []
    advice = (
        f"no break was found with {' or '.join(words)}"
        if words
        else "--matrix shows the pairs without a break"
    )
    return OmniBreaks(
        f"vllm-omni {report.omni} would not import with vLLM {report.vllm}: {count} names are missing, "
        f"the first is {what}",
        advice,
    )


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith((".whl", ".gz", ".zip")) or Path(text).exists()


def _distance(one: str, other: str) -> tuple[int, int]:
    a, b = Version(one).release, (_version(other) or Version("0.0")).release
    minor = abs((a[0] - b[0]) * 1000 + a[1] - b[1])
    return minor, 0 if a >= b else 1


def show(report: Report, limit: int = 30) -> None:
    """The verdict for people."""
    words = "no import break found" if report.verdict == CLEAN else "breaks"
    console.say(f"vllm-omni {report.omni} on vLLM {report.vllm}: {words}", "bold")
    rows = [
        [e.tier, e.module, e.name or "(module)", f"{e.file}:{e.line}", e.moved_to or "-"]
        for e in report.breaks[:limit]
    ]
    if rows:
        console.table("Missing at import", ["tier", "vLLM module", "name", "asked in", "where it went"], rows)
        first = report.breaks[0]
        console.say(
            f"the first is reached by {' > '.join(name.removeprefix('vllm_omni.') for name in first.chain)}"
        )
    if len(report.breaks) > limit:
        console.say(f"... and {len(report.breaks) - limit} more (--json has all)")
    guarded = [
        e for e in report.warnings if e.kind in ("missing-module", "missing-name", "missing-attribute")
    ]
    if guarded:
        console.say(
            f"{len(guarded)} more names are missing where nothing fails at import (--json lists them)"
        )
