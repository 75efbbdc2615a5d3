"""The sources of a plan: vLLM, and of the external trees those that the device compiles or packages.

Which modules a tree is made for is in the lock; whether anything of them is compiled for the device is known from
the survey. A tree that only other devices need may be missing: CMake gets a placeholder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build import selection
from build_recipes.build.modules import LEFT_OUT
from build_recipes.build.plan import Plan
from build_recipes.build.units import surveyed
from build_recipes.build.whole import PLACEHOLDER
from build_recipes.kit.console import step, warn
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import SourceIncomplete
from build_recipes.sources.fetch import Fetched, fetch
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import TreePin
from build_recipes.sources.mirrors import configured_mirrors
from build_recipes.sources.modules import makeup
from build_recipes.sources.repository import slug


@dataclass(frozen=True)
class Lack:
    """A tree that cannot be fetched, or not be pinned."""

    tree: TreePin
    needed_by: tuple[str, ...]
    """Targets that are asked for, that are made from it, and that the device compiles something of, by the survey."""
    perhaps: tuple[str, ...]
    """The same where the survey does not know: CMake will tell."""
    reason: str
    advice: str
    """The command that brings it."""


def fetch_sources(plan: Plan, *, whatever: bool = False) -> Fetched:
    """Bring the sources; a placeholder stands for a tree that cannot be fetched.

    Whether the device compiles anything of it is known from the survey, else when CMake has run
    (`compile.check_sources`).

    :param whatever: go on without any tree.
    :raises SourceIncomplete: a missing tree that an asked module needs.
    :raises UsageError: ``--only`` or ``--without`` names no module of the tag, which the plan could not know.
    """
    request = plan.request
    got = fetch(
        plan.lock,
        source=request.source if request.source in ("sdist", "git") else Path(request.source).resolve(),
        mirrors=configured_mirrors(request.mirrors),
        offline=request.offline,
        places=plan.places,
        into=plan.tree / "src",
    )
    trees, tag = dict(got.trees), makeup(got.vllm)
    selection.check(request, plan.tag, [module.target for module in tag.modules])
    for name, reason in got.missing.items():
        lack = lacking(plan, plan.lock.tree(name), tag.users(name), reason)
        if lack.needed_by and not plan.request.smoke and not whatever:
            raise SourceIncomplete(*refusal(plan, [lack]))
        warn(f"{name} is left out: {reason.splitlines()[0]}")
        trees[name] = _placeholder(plan.tree / "src" / f"{name}{LEFT_OUT}", reason, tag.read.get(name, ()))
    step("fetch", f"vLLM {plan.version} and {len(got.trees)} of {len(plan.lock.trees)} external trees")
    return Fetched(got.vllm, trees, got.missing, got.seals, got.commit)


def refusal(plan: Plan, lacks: Sequence[Lack]) -> tuple[str, str]:
    """What is wrong, and what to type, where trees are missing that the device compiles something of."""
    targets = list(dict.fromkeys(target for lack in lacks for target in lack.needed_by))
    return (
        f"{plan.device_name} compiles {', '.join(targets)} from sources that cannot be fetched:\n"
        + "\n".join(f"  {lack.tree.name}: {lack.reason}" for lack in lacks),
        f"{'; '.join(lack.advice for lack in lacks)}; or leave the modules out, which makes the wheel a partial one: "
        f"--without {','.join(targets)}",
    )


def foreseen(plan: Plan) -> list[Lack]:
    """What `fetch_sources` will miss, as far as it can be told now: pins that the lock lacks and, offline or where
    a mirror stands in, commits that are not on this machine. Nothing is fetched."""
    library = library_of(plan)
    found = []
    for tree in plan.lock.trees:
        if tree.from_wheel is not None:
            continue
        reason = ""
        if not tree.commit:
            reason = tree.unresolved
        elif not library.here(tree.repository, tree.commit):
            if (mirror := library.given(tree.repository)) is not None:
                reason = f"the mirror {mirror.git_dir} has no {tree.commit[:12]}"
            elif plan.request.offline:
                reason = f"{tree.commit[:12]} is not in the cache, and the network is not to be used"
        if reason:
            found.append(lacking(plan, tree, tree.users, reason))
    return found


def lacking(plan: Plan, tree: TreePin, users: Iterable[str], reason: str) -> Lack:
    """What it means for a plan that a tree cannot be fetched.

    :param users: targets that are made from it.
    """
    known = surveyed.units_of(plan.tag, plan.device.arch_list) or {}
    wanted = [target for target in users if selection.wanted(plan.request, target)]
    return Lack(
        tree,
        tuple(target for target in wanted if known.get(target)),
        tuple(target for target in wanted if known.get(target) is None),
        reason,
        _advice(plan, tree, library_of(plan)),
    )


def library_of(plan: Plan) -> Library:
    """Where a plan's repositories are had."""
    return Library(plan.places.git, configured_mirrors(plan.request.mirrors), plan.request.offline)


def _advice(plan: Plan, tree: TreePin, library: Library) -> str:
    if not tree.commit:  # no clone helps a build whose lock has no commit
        return (
            f"./inv lock {plan.words} pins it where there is a network, or with a clone: "
            f"./inv lock {plan.words} --mirror {tree.repository}=/path/to/clone"
        )
    pins = [
        (tree.repository, tree.commit),
        *((sub.repository, sub.commit) for sub in tree.submodules if not sub.skip),
    ]
    absent = [url for url, commit in pins if not library.here(url, commit)] or [tree.repository]
    clones = " && ".join(f"git clone --mirror {url} /path/to/{slug(url)}" for url in absent)
    options = " ".join(f"--mirror {url}=/path/to/{slug(url)}" for url in absent)
    return f"where there is a network: {clones}; then add {options}"


def _placeholder(folder: Path, reason: str, read: Iterable[str]) -> Path:
    """A folder that CMake can be pointed to where a tree is left out: configure wants all of them to exist.

    :param read: files that CMake reads while it configures.
    """
    texts = dict.fromkeys(("CMakeLists.txt", *read), PLACEHOLDER + b"\n")
    for name, text in {**texts, "LEFT_OUT": reason.encode() + b"\n"}.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != text:
            write_atomic(folder / name, text)  # CMake would take an untouched text for a new one
    return folder
