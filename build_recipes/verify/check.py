"""`./inv verify-omni` for one pair: find what was asked for, judge it, remember the verdict."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from build_recipes.kit import console, paths
from build_recipes.kit.errors import ArmoryError, CouldNotCheck, OmniBreaks
from build_recipes.kit.paths import Places, user_path
from build_recipes.verify import packages
from build_recipes.verify.judge.suggest import known, suggest
from build_recipes.verify.judge.verdict import BREAKS, CLEAN, ENTRY_POINTS, UNDECIDED, Break, Report, judge
from build_recipes.verify.packages import Package
from build_recipes.verify.read import releases
from build_recipes.verify.read.store import Store, code_digest
from build_recipes.verify.read.tree import VLLM, Tree, no_collection, open_tree


@dataclass(frozen=True)
class Asked:
    """What the command line names; empty strings for defaults."""

    tag: str = ""
    omni: str = ""
    """The package: a version, ``latest``, a file or a folder."""
    vllm: str = ""


class Checker:
    """Judges pairs of one package and vLLM, with one store for all of them."""

    def __init__(self, places: Places, package: Package | None = None) -> None:
        self.places = places
        self.package = package or packages.named("vllm-omni")
        self.store = Store(places.cache / "compat" / "parsed.sqlite")
        self._trees: dict[tuple[str, str], Tree] = {}

    # -- what was asked

    def vllm(self, asked: Asked) -> Tree:
        """The vLLM of a command line: a file or a folder, a tag, or what this project built last."""
        if asked.vllm:
            return self.file(asked.vllm, VLLM)
        return self.release(VLLM, asked.tag or default_tag(self.places))

    def omni(self, asked: Asked, vllm: Tree) -> Tree:
        """The package of a command line: a version, ``latest``, a file or a folder, or the newest release without
        a break."""
        module = self.package.module
        if asked.omni == "latest":
            return self.release(module, self.published(releases.FRESH)[-1].version)
        if asked.omni and not _is_path(asked.omni):
            return self.release(module, asked.omni)
        if asked.omni:
            listed = (
                releases.listing(self.package.distribution, self.places).get(asked.omni)
                if _is_version(asked.omni)
                else None
            )
            return self.release(module, asked.omni) if listed else self.file(asked.omni, module)
        return self.newest_clean(vllm)

    def published(self, max_age: float = float("inf")) -> list[releases.Release]:
        """The package's releases, oldest first."""
        return releases.listing(self.package.distribution, self.places, max_age=max_age).releases

    def newest_clean(self, vllm: Tree) -> Tree:
        """The newest release without a break; where every one has some, the nearest in version.

        What a matrix has told is believed for releases that break; the one that is taken is judged now. Of other
        packages (see `Package.default`) the newest stable release is taken.
        """
        module, published = self.package.module, self.published(releases.FRESH)
        if self.package.default == "newest":
            stable = [r for r in published if not Version(r.version).is_prerelease]
            return self.release(module, (stable or published)[-1].version)
        counts = known(self.store, self.package.distribution)
        for release in reversed(published):
            count = counts.get(release.version, vllm.version)
            if count:
                continue
            tree = self.release(module, release.version)
            if self.judge(tree, vllm, calls=False).verdict == CLEAN:
                return tree
        near = min(published, key=lambda r: _distance(r.version, vllm.version))
        return self.release(module, near.version)

    def release(self, module: str, version: str) -> Tree:
        """A release from the package index.

        :raises UnknownTag: or `CouldNotCheck`: there is none, or it cannot be fetched.
        """
        project = VLLM if module == VLLM else self.package.distribution
        release = releases.find(project, version, self.places)
        key = (module, release.version)
        if key not in self._trees:
            path = releases.fetch(release, project, self.places)
            self._trees[key] = open_tree(path, module, self.store, release.sha256)
        return self._trees[key]

    def file(self, name: str, module: str) -> Tree:
        """A wheel, an sdist or a folder."""
        return open_tree(user_path(name), module, self.store)

    def requirement(self, asked: Asked, omni: Tree) -> str:
        """What uv is asked to install for the package."""
        if asked.omni and _is_path(asked.omni):
            return str(user_path(asked.omni).resolve())
        project = self.package.distribution
        return str(releases.fetch(releases.find(project, omni.version, self.places), project, self.places))

    # -- verdicts

    def baseline(self, omni: Tree, vllm: Tree) -> Tree | None:
        """The vLLM a release of the package was made for; None where nothing says it.

        By its record: the newest that its requirements allow; the same version, else the nearest below in its
        minor; or a version.
        """
        version = _version(omni.version)
        rule = self.package.baseline
        try:
            if rule == packages.REQUIRES:
                return self._required(omni, vllm)
            if rule != packages.SAME_MINOR:
                return self.release(VLLM, rule)
            if version is None:
                return None
            base = Version(version.base_version)
            if _version(vllm.version) == base:
                return vllm
            known = releases.listing(VLLM, self.places).releases
            same = [r for r in known if Version(r.version).release[:2] == version.release[:2]]
            if not same:
                return None
            best = min(same, key=lambda r: (Version(r.version) > base, Version(r.version)))
            exact = next((r for r in same if Version(r.version) == base), best)
            return self.release(VLLM, exact.version)
        except ArmoryError as error:
            console.warn(f"calls are not compared: {error.args[0]}")
            return None

    def _required(self, omni: Tree, vllm: Tree) -> Tree | None:
        wanted = packages.requirement(omni)
        if wanted is None:
            return None
        if _version(vllm.version) is not None and wanted.contains(vllm.version, prereleases=True):
            return vllm
        known = releases.listing(VLLM, self.places).releases
        allowed = [r.version for r in known if wanted.contains(r.version)]
        return self.release(VLLM, allowed[-1]) if allowed else None

    def judge(self, omni: Tree, vllm: Tree, calls: bool = True) -> Report:
        """The verdict on a pair, from the store where it was judged before. It is of the three archives alone: what
        else the store holds, and who was judged before, changes nothing of it. `Report.suggest` is beside it, and says
        which matrix it is from.
        """
        baseline = self.baseline(omni, vllm) if calls else None
        kind = f"report {code_digest()}"
        names = [omni.identity, vllm.identity, baseline.identity if baseline is not None else ""]
        key = bytes.fromhex("".join(names))
        kept = self.store.get(kind, key)
        if kept is not None:
            return self._with_suggestions(msgspec.msgpack.decode(kept, type=Report))
        with no_collection():
            report = judge(omni, vllm, baseline)
        report.package = self.package.distribution
        self.store.put_many(kind, {key: msgspec.msgpack.encode(report)})
        return self._with_suggestions(report)

    def _with_suggestions(self, report: Report) -> Report:
        report.suggest = suggest(known(self.store, self.package.distribution), report.omni, report.vllm)
        return report


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except ValueError:
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
        return user_path(asked.vllm).resolve()
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
    found = decisive(report.breaks)
    first = found[0]
    near = report.suggest.get("nearest", {})
    option = "--omni {}" if report.package == "vllm-omni" else f"--package {report.package}=={{}}"
    words = [option.format(near["omni"])] if near.get("omni") else []
    words += [f"--tag v{near['vllm']}"] if near.get("vllm") else []
    advice = (
        f"no break was found with {' or '.join(words)}"
        if words
        else "--matrix shows the pairs without a break"
    )
    return OmniBreaks(
        f"{report.package} {report.omni} would not import with vLLM {report.vllm}: {counted(found)}, "
        f"the first is {asked_for(first)}",
        advice,
    )


def unread_error(report: Report) -> CouldNotCheck:
    """The exit of a pair of which not all was read."""
    path, problem = next(iter(report.unread.items()))
    return CouldNotCheck(
        f"no import break was found, but {len(report.unread)} files that the import needs could not be read; "
        f"the first is {path}: {problem}",
        "read the file under the Python it is written for, or give another archive",
    )


def asked_for(entry: Break) -> str:
    """What a break is about, dotted."""
    return f"{entry.module}.{entry.name}" if entry.name else entry.module


def decisive(entries: list[Break]) -> list[Break]:
    """Breaks that decide: those of an entry point or a model."""
    return [entry for entry in entries if entry.tier != "platform"]


def counted(entries: list[Break]) -> str:
    """``3 names are missing in 7 places``."""
    names = len({(entry.module, entry.name) for entry in entries})
    what = "1 name is missing" if names == 1 else f"{names} names are missing"
    return what if names == len(entries) else f"{what} in {len(entries)} places"


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith((".whl", ".gz", ".zip")) or Path(text).exists()


def _distance(one: str, other: str) -> tuple[int, int]:
    a, b = Version(one).release, (_version(other) or Version("0.0")).release
    minor = abs((a[0] - b[0]) * 1000 + a[1] - b[1])
    return minor, 0 if a >= b else 1


def _is_version(text: str) -> bool:
    return _version(text) is not None


WORDS = {CLEAN: "no import break found", BREAKS: "breaks", UNDECIDED: "unknown"}


def show(report: Report, limit: int = 30) -> None:
    """The verdict for people."""
    line = console.paragraph
    line(f"{report.package} {report.omni} on vLLM {report.vllm}: {WORDS[report.verdict]}", style="bold")
    for path, problem in list(report.unread.items())[:limit]:
        line(f"not read: {path}: {problem}")
    for entry in report.breaks[:limit]:
        line(f"{entry.tier:<8}  {asked_for(entry)}  ({entry.kind})")
        line(f"{entry.file}:{entry.line}", indent="    ")
        if entry.moved_to:
            line(_went(entry.moved_to), indent="    ")
    if report.breaks:
        names = [name.removeprefix(f"{report.breaks[0].chain[0]}.") for name in report.breaks[0].chain]
        line(f"the first is reached by {' > '.join(names)}")
    if len(report.breaks) > limit:
        line(f"... and {len(report.breaks) - limit} more (--json has all)")
    for entry in report.warnings:
        if entry.file == ENTRY_POINTS:
            line(f"its own entry point {entry.module}:{entry.name or ''} is not there".replace(": is", " is"))
    if report.guarded:
        line(f"behind a guard or in a function: {counted(report.guarded)} (--json lists them)")
        for entry in report.guarded[:5]:
            line(f"{asked_for(entry)}  ({entry.guard})", indent="    ")
            line(f"{entry.file}:{entry.line}", indent="      ")


def _went(moved_to: str) -> str:
    return moved_to if moved_to.startswith(("last in", "was in")) else f"now in {moved_to}"
