"""Evidence for what ninja made: objects by the unit's journal, everything else by a record taken after a whole run.

An output that does not have the size and hash that were written down when it was made is removed before ninja runs,
so that ninja makes it again, alone. (GNU ld links an empty object without a word.)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from build_recipes.build.units.costs import read_journal
from build_recipes.build.units.graph import Graph
from build_recipes.kit import process
from build_recipes.kit.data import read_sealed, write_sealed
from build_recipes.kit.hashing import file_sha256

NO_OUTPUT = ("phony", "RERUN_CMAKE", "CLEAN", "HELP")
"""Rules of CMake's ninja files whose outputs are no products of the build."""

Print = tuple[int, str]
"""Size in bytes, SHA-256."""


def products(graph: Graph) -> list[str]:
    """Outputs of the whole build file that are there, as ninja names them.

    CMake names a custom command's output twice, below the folder and by its whole path; each is given once.
    """
    text = process.capture([graph.ninja, "-t", "targets", "all"], cwd=graph.folder)
    rows = (line.rpartition(": ") for line in text.splitlines())
    named = {graph.folder / name: name for name, _, rule in reversed(list(rows)) if rule not in NO_OUTPUT}
    return [name for path, name in reversed(named.items()) if path.is_file()]


def seen(graph: Graph, names: list[str]) -> dict[str, Print]:
    """Size and hash of outputs."""

    def look(name: str) -> Print:
        path = graph.folder / name
        return path.stat().st_size, file_sha256(path)

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(look, names), strict=True))


def written(journal: Path) -> dict[str, Print]:
    """What the compilers wrote: object to size and hash, from the journal of units."""
    return {
        row["output"]: (row["size"], row["sha256"])
        for row in read_journal(journal)
        if row["code"] == 0 and row.get("sha256")
    }


def distrust(graph: Graph, journal: Path, linked: Path) -> list[str]:
    """Remove the outputs that are not what was written down; returns their names.

    :param journal: of the units.
    :param linked: record of the outputs that are no units (`settle`).
    """
    said = {**(read_sealed(linked, dict[str, Print]) or {}), **written(journal)}
    now = seen(graph, products(graph))
    wrong = [name for name, print_ in now.items() if said.get(name) != print_]
    for name in wrong:
        (graph.folder / name).unlink()
    return wrong


def settle(graph: Graph, journal: Path, linked: Path) -> None:
    """Write down what a whole run of ninja made beside its units."""
    units = written(journal)
    write_sealed(linked, seen(graph, [name for name in products(graph) if name not in units]))
