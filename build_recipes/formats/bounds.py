"""What every reader of archives holds to: how much may come out, and where a name may lead.

A member's name is text from outside. It becomes a path only here, and only where it stays inside of its folder,
is no longer than a file system takes, and stands where no file or link stands already.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from build_recipes.kit.console import counted, one_line
from build_recipes.kit.errors import ArmoryError, DamagedArchive, UnsafeArchive

ADVICE = "do not use this archive; remove it and fetch it again"


@dataclass(frozen=True)
class Bounds:
    """The most that may come out of one archive."""

    members: int = 200_000
    member: int = 4 << 30
    """Bytes of one member."""
    total: int = 16 << 30
    """Bytes of all members."""
    free: int = 64 << 20
    """Bytes up to which `ratio` is not asked."""
    ratio: int = 60
    """Bytes that come out for one that lies in the file; vLLM's sources and modules do 2 to 15."""

    def most(self, packed: int) -> int:
        """Bytes that may come out of ``packed`` bytes."""
        return min(self.total, max(self.free, self.ratio * packed))


WHEEL = Bounds(member=1 << 30, total=8 << 30)
"""A vLLM wheel: a module is read into memory whole."""
BUNDLE = Bounds(member=16 << 30, total=128 << 30)
"""All sources of a build: packs of git objects, wheels of torch."""
LONGEST_NAME, LONGEST_PATH, DEEPEST = 255, 1024, 64
"""Bytes of one name, bytes of a path, folders one in the other. Linux takes 255 and 4096."""
MOST_LINKS, MOST_HOPS = 10_000, 40
"""Symbolic links of an archive, and how many of them one may go through (as in Linux)."""


_PART = r"\.?[A-Za-z0-9_+@=,~-][A-Za-z0-9_.+@=,~-]*"
_PLAIN = re.compile(rf"{_PART}(?:/{_PART}){{0,{DEEPEST - 1}}}")


def is_plain(name: str) -> bool:
    """Whether a name is of the common kind that `safe_member` takes as it is: a quick way past it."""
    return len(name) <= LONGEST_NAME and _PLAIN.fullmatch(name) is not None


def safe_member(name: str, archive: str) -> PurePosixPath:
    """The path of a member, when it stays inside its folder.

    :raises UnsafeArchive: absolute, with ``..``, a drive, a backslash or a control character; not UTF-8, too
        long or too deep.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|.*\\", name, re.DOTALL):
        raise UnsafeArchive(
            f"{archive} has a member that climbs out of its folder: '{one_line(name)}'", ADVICE
        )
    _check_text(name, archive)
    return path


def _check_text(name: str, archive: str) -> None:
    """Refuse what no file of a source tree is called."""
    try:
        octets = name.encode()
    except UnicodeEncodeError as error:
        raise UnsafeArchive(f"{archive} has a name that is no UTF-8: '{one_line(name)}'", ADVICE) from error
    parts = octets.split(b"/")
    if (
        len(octets) > LONGEST_PATH
        or len(parts) > DEEPEST
        or (len(octets) > LONGEST_NAME and any(len(part) > LONGEST_NAME for part in parts))
    ):
        raise UnsafeArchive(f"{archive} has a name that is too long or too deep: '{one_line(name)}'", ADVICE)
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise UnsafeArchive(f"{archive} has a control character in a name: '{one_line(name)}'", ADVICE)


@dataclass
class Names:
    """The members of one archive so far: what each path is, so that none is in the way of another."""

    archive: str
    bounds: Bounds
    kinds: dict[str, str] = field(default_factory=dict)
    """Path to ``file``, ``folder`` or ``link``."""
    links: dict[str, str] = field(default_factory=dict)
    """Path of a symbolic link to its target, as written."""

    def add(self, path: PurePosixPath | str, kind: str, *, again: bool = False) -> None:
        """Note a member.

        :param again: a file may come a second time, as in a tar that was appended to.
        :raises UnsafeArchive: it lies below a file or a link, or something else is called so.
        """
        name = above = str(path)
        while (above := above.rpartition("/")[0]) and (known := self.kinds.get(above)) != "folder":
            if known:
                raise UnsafeArchive(
                    f"{self.archive}: '{one_line(name)}' would be written through a {known}", ADVICE
                )
            self.kinds[above] = "folder"
        seen = name in self.kinds
        old = self.kinds.setdefault(name, kind)
        if len(self.kinds) > 2 * self.bounds.members:
            raise UnsafeArchive(
                f"{self.archive} has more than {counted(self.bounds.members, 'member')}", ADVICE
            )
        if (old, kind) != ("folder", "folder") and seen and not (again and old == kind == "file"):
            raise UnsafeArchive(f"{self.archive} has two members called '{one_line(name)}'", ADVICE)

    def link(self, path: PurePosixPath, target: str) -> None:
        """Note a symbolic link; where it ends is asked when all are known (`check_links`)."""
        _check_text(target, self.archive)
        self.add(path, "link")
        self.links[path.as_posix()] = target
        if len(self.links) > MOST_LINKS:
            raise UnsafeArchive(f"{self.archive} has more than {MOST_LINKS} links", ADVICE)

    def check_links(self) -> None:
        """Follow every link, through other links as well.

        :raises UnsafeArchive: one ends outside, or goes in a circle.
        """
        for path, target in self.links.items():
            at, left, hops = path.split("/")[:-1], [target], 0
            while left:
                part, _, rest = left.pop().partition("/")
                if rest:
                    left.append(rest)
                inside = True
                if part == "..":
                    inside = bool(at)
                    del at[-1:]
                elif part not in ("", "."):
                    at.append(part)
                further = self.links.get("/".join(at)) if part not in ("", ".", "..") else None
                if further is not None:
                    at.pop()
                    left.append(further)
                    hops += 1
                    inside = not further.startswith("/")
                if not target or target.startswith("/") or not inside or hops > MOST_HOPS:
                    where = "in a circle" if hops > MOST_HOPS else "outside"
                    raise UnsafeArchive(
                        f"{self.archive}: '{one_line(path)}' links to '{one_line(target)}', {where}", ADVICE
                    )


@contextlib.contextmanager
def reading(archive: str, kind: type[DamagedArchive] = DamagedArchive) -> Iterator[None]:
    """Bytes from outside are read by a parser that is not ours: whatever it raises says that they are damaged.

    A system call that failed (a full disk, no permission) is passed on as it is.

    :raises DamagedArchive: or the ``kind`` of it that the caller tells.
    """
    try:
        yield
    except ArmoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = one_line(str(error) or type(error).__name__)
        raise kind(f"{archive} is damaged or cut short: {why}", ADVICE) from error
