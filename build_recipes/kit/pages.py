"""HTML pages from templates. Every value is escaped by the template engine, and made visible first."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from build_recipes.kit.console import visible

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def environment(package: str, folder: str = "pages") -> Environment:
    """Templates of a package's folder: autoescape always, an undefined name is an error.

    :param package: dotted name, such as ``build_recipes.wheelhouse``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )


def page(package: str, name: str, **values: Any) -> str:
    """The template ``name`` of a package, filled."""
    return environment(package).get_template(name).render(values)
