"""Which of a tag's modules are asked for: ``--only`` and ``--without``, held against the modules that the tag has.

A plan knows them from a source folder's own setup.py and CMake, or for a release from what the survey recorded of it.
Where it knows neither, the build says it as soon as the source is there, before the toolchain is.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

from build_recipes.build.request import Request
from build_recipes.build.units import surveyed
from build_recipes.kit.errors import UsageError
from build_recipes.sources.modules import makeup


def modules_of(tag: str, folder: Path | None = None) -> tuple[str, ...]:
    """Targets of a tag's modules, sorted; empty where nothing here knows them.

    :param folder: a source that is no release: its own files say it.
    """
    if folder is not None:
        return tuple(sorted(module.target for module in makeup(folder).modules))
    return surveyed.targets(tag)


def wanted(request: Request, target: str) -> bool:
    """Whether a module is asked for."""
    return (not request.only or target in request.only) and target not in request.without


def check(request: Request, tag: str, names: Collection[str]) -> None:
    """Refuse names that are none of the tag's modules, and a choice that leaves none.

    :param names: targets of all modules of the tag; empty where they are not known.
    :raises UsageError: naming the nearest, and all that the tag has.
    """
    if not request.only and not request.without:
        return
    have = f"{tag} has: {', '.join(sorted(names))}"
    for option, words in (("--only", request.only), ("--without", request.without)):
        for word in words if names else ():
            if word not in names:
                near = nearest(word, names)
                meant = f"; did you mean {option} {near}?" if near else ""
                raise UsageError(f"{tag} has no module {word[:60]}{meant}", have)
    if not any(wanted(request, name) for name in names or request.only or ("",)):
        raise UsageError(
            "--only and --without leave no module to build", have if names else "leave one of them out"
        )


def asked(request: Request, names: Iterable[str]) -> list[str]:
    """Of a tag's modules those that are to be built."""
    return [name for name in names if wanted(request, name)]


def nearest(word: str, names: Collection[str]) -> str:
    """The module that was most likely meant by a word: by setup.py's long name, by its beginning, by its spelling;
    empty where none is like it."""
    plain = word.rpartition(".")[2].lower()
    longer = sorted((name for name in names if name.lower().startswith(plain)), key=len) if plain else []
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(plain, by_lower, n=1)
    if plain in by_lower:
        return by_lower[plain]
    return longer[0] if longer else by_lower[near[0]] if near else ""


def note(request: Request, tag: str, version: str, arch_list: str, names: Collection[str]) -> str:
    """What a plan has to say of a choice of modules before anything is fetched; empty where that is nothing.

    :param arch_list: `Device.arch_list`.
    :param names: what `modules_of` says.
    """
    words = [*request.only, *request.without]
    if not words:
        return ""
    if not names:
        like, _ = surveyed.nearest(tag, version, arch_list)
        others = f"; {like} has: {', '.join(surveyed.targets(like))}" if like else ""
        return f"whether {tag} has {', '.join(words)} is told once its source is here{others}"
    known = surveyed.units_of(tag, arch_list) or {}
    none = [name for name in request.only if known.get(name) == ()]
    return f"CMake compiles nothing of {', '.join(none)} for this device" if none else ""
