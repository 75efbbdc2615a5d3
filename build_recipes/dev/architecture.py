"""The map of the rooms in docs/architecture.md, made from the layers in pyproject.toml and each room's docstring.

.venv/bin/python -m build_recipes.dev.architecture
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from build_recipes.kit.data import parse_toml
from build_recipes.kit.paths import PACKAGE, PROJECT

PAGE = PROJECT / "docs/architecture.md"
BEGIN = "<!-- rooms: made by python -m build_recipes.dev.architecture -->"
END = "<!-- end of rooms -->"


def floors() -> list[list[str]]:
    """The rooms of each floor, the highest floor first, as the import contract has them."""
    contract = parse_toml((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    return [[room.strip() for room in row.split("|")] for row in contract["layers"]]


def purpose(folder: Path) -> str:
    """The first sentence of a room's docstring."""
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return " ".join(said.partition("\n\n")[0].split())


def rooms_within(folder: Path) -> list[Path]:
    """The rooms within a room, by name."""
    return sorted(path.parent for path in folder.rglob("*/__init__.py") if "project" not in path.parts)


def drawn() -> str:
    """The map: a drawing of the floors, then a line for every room."""
    lines = ["```mermaid", "flowchart TB"]
    for number, rooms in enumerate(floors()):
        lines.append(f'  subgraph f{number}[" "]')
        lines += ["    direction LR", *(f"    {room}" for room in rooms), "  end"]
    lines += [f"  f{number} --> f{number + 1}" for number in range(len(floors()) - 1)]
    lines += ["```", "", "| room | what is in it |", "|---|---|"]
    for rooms in floors():
        for room in rooms:
            folder = PACKAGE / room
            for place in (folder, *rooms_within(folder)):
                name = str(place.relative_to(PACKAGE))
                lines.append(f"| [`{name}`](../build_recipes/{name}) | {purpose(place)} |")
    return "\n".join(lines)


def written(text: str) -> str:
    """The page with today's map."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{drawn()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
    sys.stdout.write(f"{PAGE.relative_to(PROJECT)}\n")
