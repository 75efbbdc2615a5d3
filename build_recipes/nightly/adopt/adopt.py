"""Follow vLLM: bring a new release, or a commit of main, into the project as one change, and say what moved.

Every step is a command of this program, as a person would type it; one that fails stops none of the others and is told
in the report. What it writes is what a person would commit: the lock, the table of releases and ranges, the survey,
companions, and a report under docs/adopted.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from packaging.version import Version

from build_recipes.build.survey.publish import LOG
from build_recipes.facts import device as devices
from build_recipes.facts import versions
from build_recipes.formats.archive import unpack_sdist
from build_recipes.kit import paths
from build_recipes.kit.console import duration, say, step, warn
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import ArmoryError, LockMissing, RevisionMissing, UsageError
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places
from build_recipes.nightly import steps
from build_recipes.nightly.adopt import report
from build_recipes.sources import registry
from build_recipes.sources.derive import derive, differs, new_range, new_release
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import Lock, diff_locks, load_lock, lock_path
from build_recipes.sources.modules import Makeup, makeup
from build_recipes.sources.own import is_release, own_lock, own_source

OMNI = 3
"""Releases of vllm-omni that a new tag is held against, and tags that the newest of them is held against."""
FACTS = paths.PACKAGE / "facts/vllm.toml"


@dataclass(frozen=True)
class Did:
    """One command of an adoption."""

    name: str
    command: str
    state: str
    """As `steps.Outcome` has it."""
    exit: int | None
    seconds: float
    said: list[str] = field(default_factory=list)
    """Its last words where it did not pass."""


@dataclass
class Adoption:
    """What became of a tag."""

    tag: str
    before: str
    """The release that it is compared with."""
    steps: list[Did] = field(default_factory=list)
    moved: dict[str, list[str]] = field(default_factory=dict)
    """Kind (``pins``, ``facts``, ``modules``, ``Python files``...) to lines."""
    patches: dict[str, str] = field(default_factory=dict)
    """Patch to its state."""
    omni: list[dict[str, Any]] = field(default_factory=list)
    """``tag``, ``omni``, ``verdict``, ``breaks``: the row of this tag, then the column of the newest vllm-omni."""
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Device to its cell of the survey, with its companions."""
    person: list[str] = field(default_factory=list)
    """What needs a person."""


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    tag: str
    mirrors: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    docs: Path = paths.PROJECT / "docs"


def newest() -> list[str]:
    """Final releases on the index that have no lock here, oldest first; those older than every lock are let be.

    :raises NetworkError: the index does not answer.
    """
    known = [version for version in registry.releases("vllm") if not Version(version).is_prerelease]
    locked = [Version(path.stem[1:]) for folder in paths.lock_folders() for path in folder.glob("v*.toml")]
    last = max(locked, default=Version("0"))
    return [f"v{version}" for version in sorted(known, key=Version) if Version(version) > last]


def adopt(asked: Asked, places: Places) -> Adoption:
    """Go through all steps for a tag.

    :raises NotATag: it is not a release of vLLM: `look_ahead` is for those.
    :raises UnknownTag: no such release.
    """
    version = versions.version_of(asked.tag)
    versions.check_known(asked.tag, registry.releases("vllm", kinds=("sdist", "wheel")))
    done = Adoption(asked.tag, _before(version))
    runner = _Runner(done, places.build / "adopt" / asked.tag)
    _facts(done, places)
    runner.run("lock", ["lock", "--tag", asked.tag, *_mirrors(asked)])
    if lock_path(asked.tag).is_file():
        _pins(done)
        _patches(runner, asked)
        _omni(runner, asked)
        _survey(runner, asked)
        _companions(runner, asked)
    else:
        done.person.append(f"there is no lock: {' '.join(done.steps[-1].said[-2:])}")
    done = _without_places(done, asked, places)
    write_report(done, asked.docs)
    return done


def look_ahead(asked: Asked, places: Places) -> Adoption:
    """What a branch, a commit or a candidate moves beside the newest release: its lock is made, nothing of the project
    is changed.

    :raises LockMissing: it could not be brought here.
    :raises UsageError: it is a release.
    """
    if is_release(asked.tag):
        raise UsageError(f"{asked.tag} is a release", f"./inv adopt --tag {asked.tag}")
    done = Adoption(asked.tag, _before("999"))
    runner = _Runner(done, places.build / "adopt" / asked.tag.replace("/", "-"))
    runner.run("lock", ["lock", "--tag", asked.tag, *_mirrors(asked)])
    own = own_source(asked.tag, "sdist", places)
    assert own is not None
    try:
        changes = diff_locks(load_lock(done.before), own_lock(own, places))
        done.moved["pins"] = [f"{one.what}: {one.before or '-'} -> {one.after or '-'}" for one in changes]
    except LockMissing as error:
        done.person.append(str(error.args[0]))
    _compare(done, own.folder, places)
    said = differs(derive(own.folder), versions.for_version(own.version))
    done.person += [
        f"its release needs {name} {now}; vllm.toml has {was}" for name, (was, now) in said.items()
    ]
    for omni in registry.releases("vllm-omni", kinds=("sdist", "wheel"))[-1:]:
        _pair(runner, asked.tag, omni, ["--vllm", str(own.folder)])
    return _without_places(done, asked, places)


def _without_places(done: Adoption, asked: Asked, places: Places) -> Adoption:
    """The same, less the folders of this machine: it goes into the project."""
    text = json.dumps(asdict(done))
    for mirror in asked.mirrors:
        text = text.replace(mirror.partition("=")[2], "MIRROR")
    for name in ("build", "cache", "wheels"):
        text = text.replace(str(getattr(places, name)), name.upper())
    return msgspec.convert(json.loads(text), Adoption)


def write_report(done: Adoption, docs: Path) -> Path:
    """Write docs/adopted: the tag's page and document, and the table of all."""
    folder = docs / "adopted"
    write_atomic(folder / f"{done.tag}.json", json.dumps(asdict(done), indent=1) + "\n")
    write_atomic(folder / f"{done.tag}.md", report.page(done))
    known = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("v*.json")]
    known.sort(key=lambda one: Version(one["tag"][1:]), reverse=True)
    write_atomic(folder / "README.md", report.table(known))
    return folder / f"{done.tag}.md"


# -- the steps -----------------------------------------------------------------------------------


@dataclass
class _Runner:
    """Runs commands and keeps what became of them."""

    done: Adoption
    logs: Path

    def run(self, name: str, words: list[str]) -> Any:
        """Run ``./inv WORDS --json``. Returns its document; None where it printed none."""
        shown = [word for at, word in enumerate(words) if "--mirror" not in (word, words[at - 1])]
        command = shlex.join(["./inv", *shown])
        step(name, command)
        log = self.logs / f"{name.replace(' ', '-')}.log"
        remove_tree(log) if log.is_dir() else log.unlink(missing_ok=True)
        outcome = steps.run([*words, "--json"], log, env=steps.environment(), deadline=None)
        said = [line for line in outcome.excerpt if line.strip()][-6:] if outcome.state != "passed" else []
        self.done.steps.append(
            Did(name, command, outcome.state, outcome.exit, round(outcome.seconds, 1), said)
        )
        if outcome.state == "passed":
            say(f"            passed in {duration(outcome.seconds)}")
        else:
            warn(f"{name}: {outcome.state} (exit code {outcome.exit})")
        return outcome.document


def _mirrors(asked: Asked) -> list[str]:
    return [word for mirror in asked.mirrors for word in ("--mirror", mirror)]


def _before(version: str) -> str:
    """The newest release below a version that has a lock; empty where there is none."""
    older = [
        path.stem
        for folder in paths.lock_folders()
        for path in folder.glob("v*.toml")
        if Version(path.stem[1:]) < Version(version)
    ]
    return max(older, key=lambda tag: Version(tag[1:]), default="")


@contextlib.contextmanager
def _tree(tag: str, places: Places) -> Iterator[Path]:
    """The source distribution of a release, unpacked for a moment; by its lock's hash where there is a lock."""
    version = versions.version_of(tag)
    pin = load_lock(tag).vllm.sdist if lock_path(tag).is_file() else None
    pin = pin or next(iter(registry.file_pins("vllm", version, "source", None)), None)
    if pin is None:
        raise RevisionMissing(
            f"PyPI has no source distribution of vLLM {tag}", f"./inv lock --tag {tag} --source git"
        )
    folder = places.build / "adopt" / f"{tag}.source"
    try:
        yield unpack_sdist(fetch_files([pin], places.downloads)[pin.filename], folder)
    finally:
        remove_tree(folder)


def _facts(done: Adoption, places: Places) -> None:
    """The table of releases and ranges from the tag's own files, and its modules beside those of the release before."""
    version = versions.version_of(done.tag)
    try:
        with _tree(done.tag, places) as tree:
            found = derive(tree)
            _compare(done, tree, places)
        old, text = versions.for_version(version), FACTS.read_text(encoding="utf-8")
        other = differs(found, old)
        if version not in versions.facts().releases:
            text = new_release(text, version)
            done.moved["releases"] = [f"{version} is new in facts/vllm.toml"]
            if other:
                text = new_range(text, version, found, old)
                done.moved["range"] = [f"{name}: {was} -> {is_}" for name, (was, is_) in other.items()]
                done.person.append(
                    "read the new range in facts/vllm.toml: torch_index, alternatives, gcc_of, refused are the old"
                )
            write_atomic(FACTS, text)
            versions.facts.cache_clear()
        elif other:
            said = ", ".join(f"{name}: {was}, and the tag says {is_}" for name, (was, is_) in other.items())
            done.person.append(f"facts/vllm.toml says otherwise than the tag: {said}")
    except (ArmoryError, OSError) as error:
        done.person.append(f"its own files could not be read: {error.args[0]}")


def _compare(done: Adoption, tree: Path, places: Places) -> None:
    """What a tree asks for and is made of, beside the release before."""
    if done.before:
        with _tree(done.before, places) as before:
            done.moved["facts"] = _changed(asdict(derive(before)), asdict(derive(tree)))
            done.moved["modules"] = _modules(makeup(before), makeup(tree))


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {old[name]} -> {new[name]}" for name in new if old[name] != new[name]]


def _modules(old: Makeup, new: Makeup) -> list[str]:
    """Modules that came, went, or are made another way."""
    was, now = ({module.target: module for module in one.modules} for one in (old, new))
    lines = [f"+ {name} ({now[name].kind.value})" for name in now if name not in was]
    lines += [f"- {name} ({was[name].kind.value})" for name in was if name not in now]
    for name in was.keys() & now.keys():
        if was[name].kind != now[name].kind:
            lines.append(f"{name}: {was[name].kind.value} -> {now[name].kind.value}")
        if was[name].trees != now[name].trees:
            lines.append(f"{name}: made from {', '.join(now[name].trees) or 'vLLM alone'}")
    return sorted(lines)


def _pins(done: Adoption) -> None:
    """What moved between the two locks, and what the new one could not pin."""
    new: Lock = load_lock(done.tag)
    if done.before:
        changes = diff_locks(load_lock(done.before), new)
        done.moved["pins"] = [f"{one.what}: {one.before or '-'} -> {one.after or '-'}" for one in changes]
    open_trees = [tree.name for tree in new.trees if not tree.commit]
    if open_trees:
        done.person.append(
            f"no commit is pinned for {', '.join(open_trees)}: ./inv lock --tag {done.tag} where their hosts answer"
        )
    if not any(pin.files for pin in new.torch):
        done.person.append("no torch of the lock can be fetched")


def _patches(runner: _Runner, asked: Asked) -> None:
    document = runner.run("patches", ["patches", "--tag", asked.tag, *_mirrors(asked)])
    for cell in (document or {}).get("cells", ()):
        runner.done.patches[cell["patch"]] = cell["state"]
        if cell["state"] in ("conflict", "intent lost", "gap"):
            runner.done.person.append(
                f"patch {cell['patch']}: {cell['state']} {cell.get('detail', '')}".strip()
            )


def _omni(runner: _Runner, asked: Asked) -> None:
    """This tag against the newest releases of vllm-omni, and the newest of those against the tags before."""
    try:
        known = registry.releases("vllm-omni", kinds=("sdist", "wheel"))[-OMNI:]
    except ArmoryError as error:
        runner.done.person.append(f"vllm-omni was not looked at: {error.args[0]}")
        return
    version = Version(asked.tag[1:])
    tags = [f"v{one}" for one in versions.facts().releases if Version(one) < version][-OMNI:]
    pairs = [(asked.tag, omni) for omni in reversed(known)] + [(tag, known[-1]) for tag in reversed(tags)]
    for tag, omni in pairs:
        _pair(runner, tag, omni, ["--tag", tag])
    runner.run("omni matrix", ["verify-omni", "--matrix", "--record"])
    mine = [row for row in runner.done.omni if row["tag"] == asked.tag]
    if mine and all(row["verdict"] == "breaks" for row in mine):
        runner.done.person.append("no release of vllm-omni that was tried fits it yet")


def _pair(runner: _Runner, tag: str, omni: str, vllm: list[str]) -> None:
    document = runner.run(f"omni {tag} {omni}", ["verify-omni", *vllm, "--omni", omni]) or {}
    row = {"tag": tag, "omni": omni, "verdict": document.get("verdict", "not judged")}
    runner.done.omni.append({**row, "breaks": len(document.get("breaks") or ())})


def _survey(runner: _Runner, asked: Asked) -> None:
    words = ["survey", "--tag", asked.tag, "--docs", *_mirrors(asked)]
    if asked.devices:
        words += ["--device", ",".join(asked.devices)]
    document = runner.run("survey", words)
    for cell in document or ():
        told = {key: cell[key] for key in ("stage", "missing", "modules", "cpu_s", "gib")}
        line = LOG.sub("", str(cell["error"]).partition("\n")[0])
        runner.done.devices[cell["device"]] = {**told, "error": line}
        if cell["stage"] != "done":
            runner.done.person.append(f"{cell['device']}: the survey stops at {cell['stage']}: {line}")
        for target, row in cell["modules"].items():
            if row.get("none"):
                runner.done.person.append(f"{cell['device']}: {row['none']} units of {target} do not load")


def _companions(runner: _Runner, asked: Asked) -> None:
    names = asked.devices or tuple(n for n, d in devices.devices().items() if d.machine == "aarch64")
    documents = {}
    for name in names:
        document = runner.run(f"companions {name}", ["companions", "--tag", asked.tag, "--device", name])
        if isinstance(document, dict) and "companions" in document:
            documents[name] = document["companions"]
        else:
            last = runner.done.steps[-1]
            runner.done.person.append(f"{name}: companions: {' '.join(last.said[-2:]) or last.state}")
    judged(runner.done, documents)


def judged(done: Adoption, documents: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """What runs beside vLLM on each device, and what does not, each with its devices.

    :param documents: device to ``companions`` of what ``./inv companions --json`` prints.
    """
    absent: dict[str, list[str]] = {}
    for name, rows in documents.items():
        done.devices.setdefault(name, {})["companions"] = {
            row["name"]: f"{row['version']} {row['code']}".strip() for row in rows
        }
        for row in rows:
            if not row["runs"]:
                absent.setdefault(
                    f"{row['name']} {row['version']} ({row['code']})".replace("  ", " "), []
                ).append(name)
    done.person += [f"{what} does not run on {', '.join(where)}" for what, where in absent.items()]
