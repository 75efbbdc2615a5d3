"""Evidence that files are what they were: what a crash, a full or a bad disk can leave is not believed without it.

A manifest names files with their size, their SHA-256 and the state of their inode. The state is looked at first:
while one kernel runs, a file with the same inode, size, mtime and ctime has not been written (no program can set a
ctime), so a check costs one `stat` a file. After a reboot, a copy or any write the content is hashed again.

SHA-256 and nothing faster: with the CPU's instructions for it (every Arm of this project has them) 1 GiB takes
0.55 s on one core, and it is the hash that the house has (docs/evidence/torn-trees).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from build_recipes.kit.data import Model, read_sealed, write_sealed
from build_recipes.kit.hashing import file_sha256


class File(msgspec.Struct, frozen=True, array_like=True):
    """One file, as it was seen."""

    size: int
    """Bytes."""
    sha256: str
    mtime_ns: int
    ctime_ns: int
    inode: int


class Manifest(Model, frozen=True):
    """Files and links below a folder."""

    boot: str
    """The kernel's boot id while the states were taken; empty where it cannot be told."""
    files: dict[str, File]
    links: dict[str, str]
    """Symbolic links, and where they lead."""


def boot_id() -> str:
    """Identity of the running kernel; empty where it cannot be told, and then every check hashes."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def names_below(root: Path, *places: str) -> list[str]:
    """All files and links below folders of ``root`` (or the places themselves), relative to ``root``, sorted."""
    found: list[str] = []
    for place in places:
        start = root / place
        if start.is_symlink() or start.is_file():
            found.append(place)
        for folder, folders, files in os.walk(start):
            head = "" if Path(folder) == root else Path(folder).relative_to(root).as_posix() + "/"
            found += [head + name for name in files]
            found += [head + name for name in folders if Path(folder, name).is_symlink()]
    return sorted(found)


def take(root: Path, names: Iterable[str], known: Mapping[int, File] | None = None) -> Manifest:
    """The manifest of files below ``root``.

    :param known: inode to what was just shown of it (a hard link has the content of its twin).
    """
    links: dict[str, str] = {}
    plain: list[str] = []
    for name in names:
        if (root / name).is_symlink():
            links[name] = os.readlink(root / name)  # noqa: PTH115
        else:
            plain.append(name)
    with ThreadPoolExecutor() as pool:
        files = dict(zip(plain, pool.map(lambda name: _seen(root / name, known or {}), plain), strict=True))
    return Manifest(boot=boot_id(), files=files, links=links)


def _seen(path: Path, known: Mapping[int, File]) -> File:
    stat = path.stat()
    twin = known.get(stat.st_ino)
    same = twin and (twin.size, twin.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    digest = twin.sha256 if twin and same else file_sha256(path)
    return File(stat.st_size, digest, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def load(path: Path) -> Manifest | None:
    """A manifest that was kept; None where it is not there or not whole."""
    return read_sealed(path, Manifest)


def keep(
    root: Path,
    path: Path,
    names: Iterable[str],
    known: Mapping[int, File] | None = None,
    anew: tuple[str, ...] = (),
) -> Manifest:
    """Take the manifest of ``names`` and keep it in ``path``.

    A file with the content that the manifest before had for it gets its old time back: a build tool must not take
    what was made again for something new.

    :param anew: beginnings of names whose new times stay.
    """
    before = load(path)
    path.unlink(missing_ok=True)
    now = take(root, names, known)
    if before is not None:
        now = _settled(root, before, now, anew)
    write_sealed(path, now)
    return now


def _retimed(path: Path, old: File, now: File) -> File:
    """Give a file whose content did not change its old time back, as far as it may be written."""
    if old.mtime_ns == now.mtime_ns:
        return now
    with contextlib.suppress(OSError):
        os.utime(path, ns=(old.mtime_ns, old.mtime_ns))
    return _seen(path, {now.inode: msgspec.structs.replace(now, mtime_ns=path.stat().st_mtime_ns)})


def _settled(root: Path, before: Manifest, now: Manifest, anew: tuple[str, ...]) -> Manifest:
    files = dict(now.files)
    for name, file in now.files.items():
        old = before.files.get(name)
        if name.startswith(anew) or old is None:
            continue
        if old.sha256 == file.sha256:
            files[name] = _retimed(root / name, old, file)
    return msgspec.structs.replace(now, files=files)


def damaged(root: Path, path: Path) -> list[str] | None:
    """Files that are not what the manifest in ``path`` says; None where there is no whole manifest.

    A file with the right content and another time gets its time back.
    """
    manifest = load(path)
    if manifest is None:
        return None
    here = boot_id()
    lost = [name for name, target in manifest.links.items() if _link(root / name) != target]
    doubtful: list[str] = []
    for name, file in manifest.files.items():
        try:
            stat = os.stat(f"{root}/{name}", follow_symlinks=False)  # noqa: PTH116 (tens of thousands of them)
        except OSError:
            lost.append(name)
            continue
        if stat.st_size != file.size:
            lost.append(name)
        elif (
            not here
            or here != manifest.boot
            or (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) != (file.inode, file.mtime_ns, file.ctime_ns)
        ):
            doubtful.append(name)
    if doubtful:
        again = take(root, [name for name in doubtful if (root / name).is_file()])
        lost += [name for name in doubtful if name not in again.files]
        wrong = [name for name, file in again.files.items() if file.sha256 != manifest.files[name].sha256]
        lost += wrong
        fresh = {
            name: _retimed(root / name, manifest.files[name], file)
            for name, file in again.files.items()
            if name not in wrong
        }
        if not lost:  # the same content under new states: the next check is a stat again
            whole = msgspec.structs.replace(manifest, boot=here, files={**manifest.files, **fresh})
            with contextlib.suppress(OSError):  # a read-only cache is slower, not wrong
                write_sealed(path, whole)
    return sorted(lost)


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return None


def restate(root: Path, path: Path) -> None:
    """Note new states of files that were just shown to be right and since then only got links."""
    manifest = load(path)
    if manifest is not None:
        known = {(root / name).stat().st_ino: file for name, file in manifest.files.items()}
        with contextlib.suppress(OSError):
            write_sealed(path, take(root, [*manifest.files, *manifest.links], known))


def twins(paths: Iterable[Path]) -> dict[int, File]:
    """Inode to file, of all the manifests that are whole."""
    manifests = filter(None, map(load, paths))
    return {file.inode: file for manifest in manifests for file in manifest.files.values()}


def renew(root: Path, path: Path, *names: str) -> None:
    """Take files again that were changed on purpose since their manifest was kept."""
    manifest = load(path)
    if manifest is not None:
        fresh = take(root, names)
        write_sealed(path, msgspec.structs.replace(manifest, files={**manifest.files, **fresh.files}))


def stamp(path: Path) -> str:
    """What must be unchanged for a file not to have been written since, as one line (see the module's text)."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino} {boot_id() or 'unknown'}"
