"""Which local repository stands in for which address: ``--mirror URL=DIR`` and the configuration.

The configuration is a ``[mirrors]`` table, address to folder, in ``armory.toml`` of the checkout (of the folder
one stands in, where the program is installed) and in ``~/.config/vllm-armory/config.toml``. An option wins over
``armory.toml``, and that over the user's file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import UsageError
from build_recipes.kit.paths import configuration_files, user_path


class Configuration(Model, frozen=True, kw_only=True):
    """A configuration file."""

    mirrors: dict[str, str] = msgspec.field(default_factory=dict)
    """Repository address to folder; a relative folder starts at the file's own."""


def key(url: str) -> str:
    """The address of a repository without what does not matter: case, ``.git``, a trailing slash, scheme.

    ``https://github.com/NVIDIA/cutlass.git/`` and ``git@github.com:nvidia/cutlass`` are the same.

    :raises UsageError: it is no address.
    """
    text = url.strip().rstrip("/").removesuffix(".git").rstrip("/").lower()
    text = re.sub(r"^[\w.-]+@([\w.-]+):", r"\1/", text)
    try:
        split = urlsplit(text)
    except ValueError as error:
        raise UsageError(
            f"{url!r} is no address: {error}", "https://github.com/nvidia/cutlass is one"
        ) from None
    return (split.netloc.rpartition("@")[2] + split.path) if split.scheme and split.netloc else text


def configured_mirrors(options: Sequence[str] = ()) -> dict[str, Path]:
    """All mirrors by `key`: the configuration's, then ``URL=DIR`` options over them.

    :raises BadData: a configuration file is broken.
    :raises UsageError: a pair without ``=``, or a folder that is no git repository.
    """
    table: dict[str, Path] = {}
    for file in configuration_files():
        if file.is_file():
            table |= mirrors_of(file)
    return table | parse_mirrors(options)


def mirrors_of(file: Path) -> dict[str, Path]:
    """The mirrors of one configuration file, by `key`. Raises as `configured_mirrors`."""
    found = load_toml(file, Configuration).mirrors
    return {key(url): check_mirror(url, file.parent / user_path(folder)) for url, folder in found.items()}


def parse_mirrors(pairs: Sequence[str]) -> dict[str, Path]:
    """``URL=DIR`` options as a table by `key`. Raises `UsageError`."""
    table = {}
    for pair in pairs:
        url, equals, folder = pair.partition("=")
        if not equals or not url or not folder:
            raise UsageError(
                f"--mirror {pair}: give it as URL=DIR", "--mirror https://github.com/nvidia/cutlass=DIR"
            )
        table[key(url)] = check_mirror(url, Path(folder))
    return table


def check_mirror(url: str, folder: Path) -> Path:
    """``folder`` as an absolute path, when a git repository is there. Raises `UsageError`."""
    path = user_path(folder).resolve()
    if not (path / "objects").is_dir() and not (path / ".git").exists():
        raise UsageError(
            f"the mirror of {url} is to be {path}, which is no git repository",
            f"git clone --mirror {url} {path}",
        )
    return path
