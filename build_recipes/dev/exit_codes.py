"""The table of exit codes in docs/troubleshooting.md, made from errors.py.

.venv/bin/python -m build_recipes.dev.exit_codes      # writes it again; a test compares
"""

from __future__ import annotations

from build_recipes.kit import errors, paths
from build_recipes.kit.data import write_atomic

DOCUMENT = paths.PROJECT / "docs/troubleshooting.md"
BEGIN = "<!-- exit codes: made by python -m build_recipes.dev.exit_codes -->"
END = "<!-- end of exit codes -->"


def causes() -> list[type[errors.ArmoryError]]:
    """Every error a user can meet, by exit code."""
    found: list[type[errors.ArmoryError]] = []
    left = [errors.ArmoryError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if kind is not errors.ArmoryError and kind.__module__ == errors.__name__:
            found.append(kind)
    return sorted(found, key=lambda kind: (kind.exit_code, kind.__name__))


def table() -> str:
    """The table as Markdown."""
    lines = ["| code | cause | what it means |", "|---|---|---|"]
    for kind in causes():
        meaning = " ".join((kind.__doc__ or "").split("\n\n", maxsplit=1)[0].split())
        lines.append(f"| {kind.exit_code} | {kind.__name__} | {meaning} |")
    return "\n".join(lines) + "\n"


def replaced(document: str) -> str:
    """A document with the table between its marks made again. Raises `ValueError` where it has no marks."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no '{BEGIN}' and '{END}'")
    return f"{head}{BEGIN}\n{table()}{END}{tail}"


if __name__ == "__main__":
    write_atomic(DOCUMENT, replaced(DOCUMENT.read_text(encoding="utf-8")))
