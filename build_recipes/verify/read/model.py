"""What is kept of one parsed Python file: enough to answer every later question without its text.

A file is read once per content. ``Surface`` is what others can import from it, ``Flow`` is what happens
when it is itself imported. Both are positional (array-like) on disk, so that a thousand of them load in
some tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

import msgspec


class Row(msgspec.Struct, array_like=True, gc=False):
    """Base of the summary classes: stored as an array, not tracked by the garbage collector."""


# -- what others can import ----------------------------------------------------------------------

CLASS, FUNCTION, VALUE, IMPORT = "c", "f", "v", "i"

ALWAYS, SOMETIMES, TYPING = 0, 1, 2
"""When a definition exists: on every import; under a condition or in a ``try``; for type checkers only."""


class Definition(Row):
    """One name of a module's namespace."""

    kind: str
    """`CLASS`, `FUNCTION`, `VALUE` or `IMPORT`."""
    when: int
    """`ALWAYS`, `SOMETIMES` or `TYPING`."""
    line: int
    """Where it is bound first."""
    target: str = ""
    """For an import ``module`` or ``module:name``, with leading dots where it is relative; for a value made
    by calling a name, that name."""


class Parameter(Row):
    """One parameter of a function."""

    name: str
    kind: str
    """``p`` positional only, ``a`` either, ``k`` keyword only, ``*`` and ``**``."""
    default: bool


class Function(Row):
    """The signature of a function or method."""

    line: int
    parameters: list[Parameter]
    decorators: list[str]
    """Dotted names as written; ``?`` for anything else."""


class Class(Row):
    """A class as it is written."""

    line: int
    bases: list[str]
    """Dotted names as written; ``?`` for an expression. A subscript (``Base[T]``) counts as its base."""
    keywords: list[str]
    """Keywords of the class statement, as written (``metaclass=ABCMeta``), and ``kw_only`` of a decorator."""
    decorators: list[str]
    methods: dict[str, Function]
    attributes: list[str]
    """Names bound in the body other than methods, with a value."""
    fields: dict[str, int]
    """Annotated names: 0 without a value, 1 with one, 2 for ``ClassVar``, 3 ``field(init=False)``,
    4 keyword only, 5 with a ``default_factory``."""
    instance: list[str]
    """Names assigned as ``self.name`` in a method."""


class Lazy(Row):
    """A module's ``__getattr__``."""

    keys: list[str]
    """Names it surely answers."""
    raises: bool
    """Whether it ends in an error for names it does not know. Where not, every import succeeds as None."""
    known: bool
    """Whether ``keys`` are all it answers."""
    targets: dict[str, str]
    """Where a key is taken from, where the body tells it: ``module`` or ``module:name``, dots as written."""


class Surface(Row):
    """What others can import from a module."""

    names: dict[str, Definition]
    stars: list[str]
    """Modules of ``from x import *``."""
    exported: list[str] | None
    """``__all__`` where it is plain; None where there is none."""
    lazy: Lazy | None
    dynamic: bool
    """The namespace is written by other means: ``globals().update``, ``sys.modules[__name__] = ...``."""
    functions: dict[str, Function]
    classes: dict[str, Class]
    patches: list[str]
    """Attributes set from outside a class body: ``Name.attribute``."""


# -- what happens when it is imported --------------------------------------------------------------


class Import(Row, tag="i"):
    """``import module`` (``names`` empty) or ``from module import names``."""

    line: int
    module: str
    names: list[str]


class Load(Row, tag="a"):
    """An attribute of something imported is read: ``target`` is ``module`` or ``module:name``.

    A part of ``path`` in brackets is a key: ``X.__dict__["name"]`` is ``["__dict__", "[name]"]``.
    """

    line: int
    target: str
    path: list[str]


class Call(Row, tag="c"):
    """Something is called that this file defined or imported.

    ``target`` as in `Load`, or ``:name`` for what this file defines; ``super:Class`` and ``self:Class`` for
    methods of a class of this file.
    """

    line: int
    target: str
    path: list[str]
    positional: int
    """Number of positional arguments; -1 with a star argument."""
    keywords: list[str]
    open: bool
    """Has a ``**`` argument."""


class Patch(Row, tag="p"):
    """An attribute of something imported is set; with an empty path a whole entry of ``sys.modules``."""

    line: int
    target: str
    path: list[str]


class Raise(Row, tag="r"):
    """An exception is raised."""

    line: int
    error: str
    """Last part of its class's name; empty where it is the one that is handled, or not plain."""


class Leave(Row, tag="l"):
    """A function returns."""

    line: int


class Make(Row, tag="m"):
    """A class is made: its metaclass and its bases' ``__init_subclass__`` run."""

    line: int
    name: str
    bases: list[str]
    """Dotted names as written."""
    metaclass: str


class Handler(Row):
    """One ``except`` clause."""

    types: list[str]
    """Last parts of the exceptions' names, ``?`` for one that cannot be told; empty for a bare ``except``."""
    body: list[Node]


class Try(Row, tag="t"):
    """A ``try`` statement."""

    line: int
    body: list[Node]
    handlers: list[Handler]
    orelse: list[Node]
    final: list[Node]


class If(Row, tag="f"):
    """A branch. ``test``: 1 surely true, 0 surely false, 2 true here and false on other platforms,
    3 the reverse, -1 not known."""

    line: int
    test: int
    text: str
    body: list[Node]
    orelse: list[Node]
    ask: str = ""
    """The condition for `judge.conditions`, where it asks something of a package: names are ``_('target')``."""


class With(Row, tag="w"):
    """``with contextlib.suppress(...)``."""

    line: int
    types: list[str]
    body: list[Node]


Node = Union[Import, Load, Call, Patch, Raise, Leave, Make, Try, If, With]  # noqa: UP007  (msgspec reads it at run time)


BODY, HANDLER, ORELSE, FINAL = "body", "handler", "else", "finally"

Around = tuple[tuple["Node", str], ...]
"""The compound statements around a statement, from the outside in, each with the part that it is in."""


def walk(nodes: list[Node], around: Around = ()) -> Iterator[tuple[Node, Around]]:
    """Every statement in the order of the file, those inside others too, with what is around it."""
    for node in nodes:
        yield node, around
        if isinstance(node, Try):
            yield from walk(node.body, (*around, (node, BODY)))
            for handler in node.handlers:
                yield from walk(handler.body, (*around, (node, HANDLER)))
            yield from walk(node.orelse, (*around, (node, ORELSE)))
            yield from walk(node.final, (*around, (node, FINAL)))
        elif isinstance(node, If):
            yield from walk(node.body, (*around, (node, BODY)))
            yield from walk(node.orelse, (*around, (node, ORELSE)))
        elif isinstance(node, With):
            yield from walk(node.body, (*around, (node, BODY)))


class Flow(Row):
    """What happens when a module is imported, and in each of its functions when it is called."""

    body: list[Node]
    functions: dict[str, list[Node]]
    """Body per qualified name (``name`` or ``Class.name``); only those that hold something to look at."""
    mentions: list[str]
    """Dotted names of the own project found in string constants: workers and the like, loaded by name."""
    selves: dict[str, dict[str, int]]
    """By class whose bases may be of an imported project: attributes read of ``self``, with a line."""
    versions: dict[str, str]
    """Functions that compare vLLM's version with what they are given, and how: ``{"is_at_least": ">="}``."""
    deferred: list[str]
    """Functions whose body a call alone does not run: generators and coroutines."""
    importing: list[str] = []
    """Of vLLM's own files: functions that import something and are not in ``functions``, because no import of this file
    calls them. Another one's may."""


class Summary(Row):
    """All that is kept of one file."""

    surface: Surface
    flow: Flow
    problem: str = ""
    """Why the file could not be read, where it could not."""
