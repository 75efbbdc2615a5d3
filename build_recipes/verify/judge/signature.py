"""Whether a call binds to a signature, and whether an override still takes what its base takes."""

from __future__ import annotations

from build_recipes.verify.read.model import Call, Class, Function, Parameter

_TRANSPARENT = frozenset(
    {
        "staticmethod",
        "classmethod",
        "abstractmethod",
        "contextmanager",
        "asynccontextmanager",
        "override",
        "final",
    }
    | {"cache", "lru_cache", "no_grad", "inference_mode", "deprecated", "wraps", "instrument", "disable"}
)
"""Decorators that leave a function's parameters as they are."""


def is_plain(function: Function) -> bool:
    """Whether the parameters are those a caller meets."""
    return all(name.rpartition(".")[2] in _TRANSPARENT for name in function.decorators)


def bound(function: Function, by_instance: bool) -> list[Parameter]:
    """Parameters a caller gives, of a method that is found on an instance (or on its class)."""
    names = {name.rpartition(".")[2] for name in function.decorators}
    if "staticmethod" in names:
        return function.parameters
    return function.parameters[1:] if by_instance or "classmethod" in names else function.parameters


def problem(parameters: list[Parameter], call: Call) -> str:
    """Why a call cannot bind; empty where it can, or where a star argument hides it."""
    names = {p.name for p in parameters if p.kind in "ak"}
    takes_any = any(p.kind == "**" for p in parameters)
    for keyword in call.keywords:
        if keyword not in names and not takes_any:
            return f"takes no keyword {keyword!r}"
    positional = [p for p in parameters if p.kind in "pa"]
    if call.positional > len(positional) and not any(p.kind == "*" for p in parameters):
        return f"takes {len(positional)} positional arguments, {call.positional} are given"
    if call.positional < 0 or call.open:
        return ""
    twice = next(
        (p.name for p in positional[: call.positional] if p.name in call.keywords and p.kind == "a"), ""
    )
    if twice:
        return f"gets {twice!r} twice"
    given = {p.name for p in positional[: call.positional]} | set(call.keywords)
    for parameter in parameters:
        if parameter.kind in "pak" and not parameter.default and parameter.name not in given:
            return f"needs {parameter.name!r}"
    return ""


def constructor(chain: list[Class]) -> list[Parameter] | None:
    """Parameters of a dataclass-like class, from its fields; None where it is none.

    :param chain: the class and its bases, nearest first.
    """
    if not any(_has_fields(entry) for entry in chain):
        return None
    found: dict[str, Parameter] = {}
    for entry in reversed(chain):
        keyword_only = any("kw_only=True" in keyword for keyword in entry.keywords)
        for name, how in entry.fields.items():
            if how in (2, 3) or name in ("_", "KW_ONLY"):
                found.pop(name, None)
                continue
            found[name] = Parameter(name, "k" if keyword_only or how == 4 else "a", how != 0)
        for name in entry.attributes:
            if name in found:
                found[name] = Parameter(name, found[name].kind, True)
    return list(found.values())


def disorder(chain: list[Class], twice: bool) -> str:
    """Why a class cannot be made from the fields of its bases and its own; empty where it can.

    :param chain: the class and its bases, nearest first.
    :param twice: two decorators make a dataclass of it: the first takes the ``default_factory`` out of the
        class body, so that the second finds no default.
    """
    own = chain[0].fields
    defaulted = ""
    for parameter in constructor(chain) or []:
        if parameter.kind != "a":
            continue
        if not parameter.default or (twice and own.get(parameter.name) == 5):
            if defaulted:
                return f"has {parameter.name!r} without a default after {defaulted!r} with one"
        else:
            defaulted = parameter.name
    return ""


def _has_fields(entry: Class) -> bool:
    made = {name.rpartition(".")[2] for name in entry.decorators}
    return bool(made & {"dataclass", "config"}) or any(
        base in ("msgspec.Struct", "Struct", "NamedTuple", "typing.NamedTuple") for base in entry.bases
    )


def misfit(base: Function, override: Function) -> str:
    """What a caller of ``base`` may give that ``override`` does not take; empty where it takes all."""
    theirs, ours = bound(base, True), bound(override, True)
    if not theirs or any(p.kind in ("*", "**") for p in ours):
        return ""
    known = {p.name for p in ours}
    room = sum(1 for p in ours if p.kind in "pa")
    for index, parameter in enumerate(theirs):
        if parameter.kind in "ak" and parameter.name not in known and index >= room:
            return f"does not take {parameter.name!r}"
        if parameter.kind == "k" and parameter.name not in known:
            return f"does not take {parameter.name!r}"
    told = {p.name for p in theirs}
    positional = sum(1 for p in theirs if p.kind in "pa")
    for index, parameter in enumerate(ours):
        if (
            not parameter.default
            and parameter.kind in "ak"
            and parameter.name not in told
            and index >= positional
        ):
            return f"needs {parameter.name!r}, which no caller gives"
    return ""
