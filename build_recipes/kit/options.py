"""Options of a command as fields of a dataclass: name, type, default, help and reading stand in one place.

    @dataclass(frozen=True, kw_only=True)
    class Request:
        tag: str = option("", "vLLM release tag, such as v0.12.0")

The commands take their signatures from the fields (door/command.py). A tuple is an option that can be repeated;
what is typed in another form than it is kept in (``9m``, ``A,B``) has a function that reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as it is typed."""

    field: str
    """Name of the field that gets its value."""
    name: str
    """Name of the option, with underscores."""
    help: str
    default: Any
    """Of what is typed: empty text where the option is read by a function, None where it is repeated."""
    read: Callable[[str], Any] | None = None

    @property
    def repeated(self) -> bool:
        """Whether it can be given several times."""
        return self.default is None

    def value(self, typed: Any) -> Any:
        """The field's value of what was typed. Raises UsageError, as its reader does."""
        if self.read:
            return self.read(typed or "")
        return tuple(typed or ()) if self.repeated else typed


def option(default: Value, help: str, *, name: str = "", read: Callable[[str], Value] | None = None) -> Value:
    """A field that is an option.

    :param name: how it is typed, where that is not the field's name.
    :param read: makes the value of what was typed; an empty text gives the default.
    """
    field: Value = dataclasses.field(default=default, metadata={"help": help, "name": name, "read": read})
    return field


def options(model: type) -> Iterator[Option]:
    """The options among a dataclass's fields, in their order."""
    for field in dataclasses.fields(model):
        if "help" in field.metadata:
            read = field.metadata["read"]
            typed = "" if read else None if isinstance(field.default, tuple) else field.default
            yield Option(
                field.name, field.metadata["name"] or field.name, field.metadata["help"], typed, read
            )


def filled(model: Callable[..., Value], chosen: list[Option], words: Mapping[str, Any]) -> Value:
    """The model with what was typed for the chosen options; the others keep their defaults."""
    return model(**{one.field: one.value(words[one.name]) for one in chosen})


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of ``a,b``; empty ones are passed over."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


JSON = "print one JSON document on stdout"
"""Help of ``--json``, which every command that shows something has."""
