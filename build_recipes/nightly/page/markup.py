"""HTML and SVG elements as strings that are escaped once, where they are made."""

from __future__ import annotations

import html
from collections.abc import Iterable

from build_recipes.kit.console import visible


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | float | None | Iterable["Child"]
VOID = frozenset({"meta", "link", "br", "line", "circle", "path", "rect", "polyline"})


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element. ``class_`` is ``class``, ``aria_label`` is ``aria-label``; None and False are left out."""
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(visible(str(value)))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    content = join(children)
    if tag in VOID and not content:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{content}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after another: markup as it is, text escaped."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(html.escape(visible(child), quote=False))
        elif isinstance(child, (int, float)):
            parts.append(str(child))
        else:
            parts.append(join(child))
    return Markup("".join(parts))
