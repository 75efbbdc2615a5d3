"""A command from its options class: what is typed becomes one frozen value, what fails one text and exit code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from invoke.context import Context
from invoke.tasks import Task

from build_recipes.door.frame import door
from build_recipes.kit.options import filled, options

POSITIONAL_OR_KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD


def command(
    model: type,
    *,
    take: Collection[str] = (),
    without: Collection[str] = (),
    help: Mapping[str, str] | None = None,
    positional: Collection[str] = (),
    repeated: Collection[str] = (),
) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make a command of ``function(options, *, own=...)``.

    Its options are those of ``model`` (see kit/options.py) and then the function's own keyword parameters.

    :param take: names of the model's options it has; all of them where it is empty.
    :param without: names of those it does not have.
    :param help: of the function's own parameters; also in place of the model's, where it means less here.
    :param positional: options that are typed without their names, too, and are needed.
    :param repeated: of the function's own parameters those that can be given several times.
    """

    def decorate(function: Callable[..., None]) -> Task[Any]:
        chosen = [one for one in options(model) if (not take or one.name in take) and one.name not in without]
        own = list(inspect.signature(function).parameters.values())[1:]
        texts = {**{one.name: one.help for one in chosen}, **(help or {})}
        given = {one.name for one in chosen}
        json = "json" in given or any(one.name == "json" for one in own)

        def body(c: Context, **words: Any) -> None:
            with door(json and words["json"]):
                mine = {one.name: words[one.name] for one in own}
                function(filled(model, chosen, words), **mine)

        body.__doc__, body.__name__, body.__module__ = (
            function.__doc__,
            function.__name__,
            function.__module__,
        )
        body.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter("c", POSITIONAL_OR_KEYWORD),
                *(
                    inspect.Parameter(
                        one.name,
                        POSITIONAL_OR_KEYWORD,
                        default=inspect.Parameter.empty if one.name in positional else one.default,
                    )
                    for one in chosen
                ),
                *(one.replace(kind=POSITIONAL_OR_KEYWORD) for one in own),
            ]
        )
        return Task(
            body,
            auto_shortflags=False,
            positional=positional,
            iterable=[*(one.name for one in chosen if one.repeated), *repeated],
            help=texts,
        )

    return decorate
