"""The submodules of a pinned commit: .gitmodules says where, the gitlink says which commit."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from build_recipes.sources.lockfile import SubmodulePin
from build_recipes.sources.repository import Repository

_SECTION = re.compile(r'^\s*\[submodule\s+"(.+)"\]\s*$')
_ENTRY = re.compile(r"^\s*(path|url)\s*=\s*(.*?)\s*$")


def parse_gitmodules(text: str) -> dict[str, str]:
    """Submodule path to the address it has in .gitmodules."""
    table: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SECTION.match(line):
            current = table.setdefault(match.group(1), {})
        elif match := _ENTRY.match(line):
            current[match.group(1)] = match.group(2).strip('"')
    return {entry["path"]: entry["url"] for entry in table.values() if "path" in entry and "url" in entry}


def absolute(url: str, base: str) -> str:
    """A submodule's address, resolved against its repository's where it is relative (``../x.git``)."""
    if not url.startswith(("./", "../")):
        return url
    split = urlsplit(base.rstrip("/"))
    return urlunsplit(split._replace(path=posixpath.normpath(f"{split.path}/{url}")))


def submodules_of(
    repository: Repository, commit: str, skip: Callable[[str], str] = lambda _: ""
) -> list[SubmodulePin]:
    """All submodules of a commit.

    :param skip: path to the reason why the build does not need it, empty where it does.
    """
    urls = parse_gitmodules(repository.read(commit, ".gitmodules") or "")
    links = repository.gitlinks(commit)
    return [
        SubmodulePin(
            path=path, repository=absolute(urls[path], repository.url), commit=links[path], skip=skip(path)
        )
        for path in sorted(links)
        if path in urls
    ]
