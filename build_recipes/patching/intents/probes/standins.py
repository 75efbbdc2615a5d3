"""Modules that are not installed, as objects that answer everything and do nothing."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any


class Anything(types.ModuleType):
    """A module whose every attribute is another one; it can be called, subclassed and used as a decorator."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = Anything(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value

    def __call__(self, *words: Any, **named: Any) -> Any:
        return words[0] if len(words) == 1 and callable(words[0]) and not named else self

    def __or__(self, other: Any) -> Any:  # in annotations
        return self

    __ror__ = __or__

    def __getitem__(self, key: Any) -> Any:
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes an `Anything` of every module below the given packages that is not there already."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".", maxsplit=1)[0] in self.packages:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def install(*packages: str) -> None:
    """Stand in for these packages and all below them."""
    sys.meta_path.insert(0, Finder(*packages))
