"""What the fetch and patch stages left in ``src/``: believed only where its manifest says that it is as it was left.

The manifest is taken after patching. A tree with a file that differs is fetched and patched again, alone; files that
come out as they were get their old times back, so nothing is compiled again for it.
"""

from __future__ import annotations

from pathlib import Path

from build_recipes.build.stages import record
from build_recipes.kit import evidence
from build_recipes.patching import journal

NAME = "sources"


def distrust(tree: Path) -> None:
    """Forget every source tree of a build tree that is not as the last run left it, so that it is made again."""
    folder = tree / "src"
    if not folder.is_dir():
        return
    lost = evidence.damaged(tree, record.files_of(tree, NAME))
    if lost == []:
        return
    record.told("sources", lost)
    record.place(tree, "configure").unlink(missing_ok=True)  # what it put among the sources goes with them
    every = {path.name for path in folder.iterdir()}
    for top in every if lost is None else {Path(name).parts[1] for name in lost}:
        name = top.removeprefix(".").removesuffix(".source").removesuffix(journal.SUFFIX)
        (folder / f".{name}.source").unlink(missing_ok=True)
        journal.place(folder / name).unlink(missing_ok=True)


def settle(tree: Path) -> None:
    """Take the manifest of the sources as they are now: fetched and patched."""
    kept, now = evidence.load(record.files_of(tree, NAME)), names(tree)
    known = {*kept.files, *kept.links} if kept else set()
    if evidence.damaged(tree, record.files_of(tree, NAME)) != [] or not known.issuperset(now):
        evidence.keep(tree, record.files_of(tree, NAME), now)


def names(tree: Path) -> list[str]:
    """Files of the sources, without what configure put among them."""
    made = evidence.load(record.files_of(tree, "configure"))
    return [name for name in evidence.names_below(tree, "src") if not made or name not in made.files]


def generated(tree: Path) -> list[str]:
    """Files among the sources that neither fetch nor patch left there: configure made them."""
    own = evidence.load(record.files_of(tree, NAME))
    return [
        name
        for name in evidence.names_below(tree, "src")
        if own is None or (name not in own.files and name not in own.links)
    ]
