"""Packages that import vLLM: what a verdict has to know of one, from its metadata or from ``packages.toml``."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import UsageError
from build_recipes.verify.read.syntax import OTHER_PLATFORMS, VLLM
from build_recipes.verify.read.tree import Tree

SAME_MINOR, REQUIRES = "same-minor", "requires"

_ENTRY = re.compile(r"^\s*[\w.-]+\s*=\s*([\w.]+)(?:\s*:\s*([\w.]+))?", re.M)
_PLUGINS = re.compile(r"\[vllm\.platform_plugins\]([^\[]*)")
_VERSION = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*(\S+))?$")


class Package(Model, frozen=True):
    """One package."""

    distribution: str
    """Its name on the package index."""
    module: str
    """The name it is imported by."""
    entry: tuple[str, ...] = ()
    """Modules that serving needs and that its metadata does not name."""
    platform: str = ""
    """A word for the platform that it is for, where its metadata does not register one."""
    default: str = "newest"
    """The release that is judged where none is named: ``newest``, or ``clean`` (the newest without a break)."""
    baseline: str = REQUIRES
    """The vLLM it was made for: ``requires`` (the newest that its requirements allow), ``same-minor`` (the same
    version, else the nearest of its minor), or a version."""


class Packages(Model, frozen=True):
    """``packages.toml``."""

    families: list[list[str]]
    package: list[Package]


class Asked(NamedTuple):
    """A package as a user names it."""

    name: str
    version: str
    """Empty for the newest that can work."""


@functools.cache
def known() -> Packages:
    """What comes with the project."""
    return load_toml(Path(__file__).with_name("packages.toml"), Packages)


def asked(text: str) -> Asked:
    """``NAME`` or ``NAME==VERSION``.

    :raises UsageError: it is neither.
    """
    found = _VERSION.match(text.strip())
    if found is None:
        raise UsageError(
            f"'{text}' is no package", "--package NAME==VERSION, such as --package lmcache==0.5.6"
        )
    return Asked(str(canonicalize_name(found[1])), found[2] or "")


def named(distribution: str) -> Package:
    """The record of a distribution; made from its name where there is none."""
    name = str(canonicalize_name(distribution))
    for entry in known().package:
        if entry.distribution == name:
            return entry
    return Package(distribution=name, module=name.replace("-", "_"))


def of(tree: Tree) -> Package:
    """The record of what a tree holds."""
    for entry in known().package:
        if entry.module == tree.package:
            return entry
    return Package(distribution=tree.index.name or tree.package.replace("_", "-"), module=tree.package)


def entry_points(tree: Tree) -> list[str]:
    """The package itself, the modules its metadata names as commands and plugins, and what the record adds."""
    return list(dict.fromkeys([tree.package, *(module for module, _ in registered(tree)), *of(tree).entry]))


def registered(tree: Tree) -> list[tuple[str, str]]:
    """Commands and plugins of its metadata: module, and the name in it (empty for the module itself)."""
    found = _ENTRY.findall(tree.index.extras.get("entry_points.txt", ""))
    return [(module, name) for module, name in found if module.partition(".")[0] == tree.package]


def platforms(tree: Tree) -> frozenset[str]:
    """Words for the platform that a plugin is for; none for a package that is for any."""
    record = of(tree)
    plugin = _PLUGINS.search(tree.index.extras.get("entry_points.txt", ""))
    words = {record.platform} if record.platform else set[str]()
    if plugin is not None:
        text = f"{record.distribution} {record.module} {plugin[1]}"
        words.update(re.split(r"[\W_]+", text.lower()))
    known_words = OTHER_PLATFORMS | {word for family in known().families for word in family}
    words &= known_words
    return frozenset(words | {w for family in known().families if words & set(family) for w in family})


def requirement(tree: Tree) -> SpecifierSet | None:
    """The versions of vLLM that a package's own metadata asks for, with or without an extra."""
    for line in tree.index.requires:
        try:
            found = Requirement(line)
        except InvalidRequirement:
            continue
        if canonicalize_name(found.name) == VLLM and found.specifier:
            return found.specifier
    return None
