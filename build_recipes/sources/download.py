"""Files from a package index into the cache: resumed, retried, checked by hash, several at a time.

A file lives in ``<downloads>/<sha256>/<filename>``, so a wrong file can never stand under a right name. A
``.part`` file beside it is continued by HTTP Range after a cut. A ``.ok`` marker (`evidence.stamp`) saves
hashing a large file that was already checked and since then not written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from build_recipes.kit import console, evidence, http
from build_recipes.kit.console import counted
from build_recipes.kit.errors import HashMismatch, NetworkError, NotEnoughDisk, NotWritable, OfflineError
from build_recipes.kit.http import ATTEMPTS, backoff

if TYPE_CHECKING:
    from build_recipes.sources.lockfile import FilePin

CONNECTIONS = 4
"""Files fetched at the same time."""
_CHUNK = 1 << 18
_WORTH = 1 << 14
"""New bytes after which an attempt was worth while, so that the next one is the first again."""

Progress = Callable[[int], None]
"""Called with the number of bytes just received (negative when a part is thrown away)."""


def fetch_files(
    files: Sequence[FilePin], downloads: Path, *, offline: bool = False, progress: bool = True
) -> dict[str, Path]:
    """Bring every file into the cache and check it.

    :returns: file name to path, for all of ``files``.
    :raises OfflineError: ``offline``, and something is missing; all missing files are named.
    :raises HashMismatch: a file is not what the lock says; it was removed.
    :raises NetworkError: a host did not answer, or broke off more often than we retry.
    :raises NotEnoughDisk: the cache's disk is full, or has too little room (seen before the first byte).
    :raises NotWritable: the cache is read-only.
    """
    wanted = {pin.sha256: pin for pin in files}
    have = {digest: found for digest, pin in wanted.items() if (found := cached(pin, downloads))}
    missing = [pin for digest, pin in wanted.items() if digest not in have]
    if missing and offline:
        total = console.size(sum(pin.size for pin in missing))
        names = ", ".join(pin.filename for pin in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise OfflineError(
            f"{counted(len(missing), 'file')} ({total}) not in the cache, and the network is not to be used: {names}",
            "run once without --offline, or bring them: ./inv mirror --from BUNDLE",
        )
    if missing:
        _check_room(missing, downloads)
        have |= _fetch_all(missing, downloads, progress)
    return {pin.filename: have[pin.sha256] for pin in files}


def path_of(pin: FilePin, downloads: Path) -> Path:
    """Where a file is kept."""
    return downloads / pin.sha256 / pin.filename


def cached(pin: FilePin, downloads: Path) -> Path | None:
    """The path of a file that is there and right, else None. A wrong one is removed."""
    path = path_of(pin, downloads)
    try:
        seal = evidence.stamp(path).encode()
    except FileNotFoundError:
        return None
    marker = path.with_name(f"{path.name}.ok")
    with contextlib.suppress(OSError):
        if marker.read_bytes() == seal:
            return path
    if hash_file(path) != pin.sha256:
        path.unlink()
        return None
    with contextlib.suppress(OSError):  # a read-only cache is still a cache
        marker.write_bytes(seal)
    return path


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fetch_all(pins: list[FilePin], downloads: Path, progress: bool) -> dict[str, Path]:
    stop = threading.Event()
    total = sum(pin.size for pin in pins)
    what = pins[0].filename if len(pins) == 1 else f"{counted(len(pins), 'file')}"
    with _bar(what, total, progress) as advance, ThreadPoolExecutor(CONNECTIONS) as pool:
        jobs = {pin.sha256: pool.submit(_fetch, pin, downloads, advance, stop) for pin in pins}
        try:
            return {digest: job.result() for digest, job in jobs.items()}
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _bar(what: str, total: int, shown: bool) -> Iterator[Progress]:
    """One progress bar on a terminal, one line otherwise."""
    if not shown or not console.console().is_terminal:
        if shown:
            console.say(f"     fetch  {what}, {console.size(total)}")
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("     fetch  {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console.console(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda octets: bar.advance(task, octets)


def _fetch(pin: FilePin, downloads: Path, advance: Progress, stop: threading.Event) -> Path:
    path = path_of(pin, downloads)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # another run may be fetching the same file
            if found := cached(pin, downloads):
                part.unlink(missing_ok=True)
                return found
            _fill(pin, part, advance, stop)
            digest = hash_file(part)
            if digest != pin.sha256:
                part.unlink()
                raise HashMismatch(
                    f"{pin.url} has SHA-256 {digest}, the lock says {pin.sha256}; the file was removed",
                    "run it again; if it stays, the index serves another file: do not use it",
                )
            part.replace(path)
            path.with_name(f"{path.name}.ok").write_text(evidence.stamp(path))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _too_little(downloads, pin.size, 0) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise NotWritable(
                f"{error.filename or downloads} cannot be written: {error.strerror}",
                "set VLLM_ARMORY_CACHE to a folder you can write",
            ) from error
        raise
    return path


def _check_room(missing: list[FilePin], downloads: Path) -> None:
    """Refuse a download that cannot end well, before the first byte."""
    folder = downloads
    while not folder.exists():
        folder = folder.parent
    parts = (path_of(pin, downloads).with_name(f"{pin.filename}.part") for pin in missing)
    begun = sum(part.stat().st_size for part in parts if part.exists())
    needed, free = sum(pin.size for pin in missing) - begun, shutil.disk_usage(folder).free
    if free < needed:
        raise _too_little(downloads, needed, free)


def _too_little(downloads: Path, needed: int, free: int) -> NotEnoughDisk:
    return NotEnoughDisk(
        f"the disk of {downloads} has {console.size(free)} free, the download needs {console.size(needed)}",
        "make room, or set VLLM_ARMORY_CACHE to a folder on another disk",
    )


def _fill(pin: FilePin, part: Path, advance: Progress, stop: threading.Event) -> None:
    """Fetch what is missing of ``part``, through as many cuts as bring bytes that are worth while."""
    reason, attempt, wait, start = "", 0, 0.0, part.stat().st_size
    known = highest = start
    advance(known)
    with http.client() as session:
        while known < pin.size:
            if attempt:
                if attempt >= ATTEMPTS:
                    raise NetworkError(
                        f"{pin.url} could not be read: {reason} "
                        f"({ATTEMPTS} attempts, {known} of {pin.size} bytes)",
                        "check the network, then run the same command: it goes on from here",
                    )
                if stop.wait(max(wait, backoff(attempt))):
                    raise NetworkError("stopped", "run the same command again")
            try:
                wait, reason = _receive(session, pin, part, advance, stop), "the connection was cut"
            except http.FAILURES as error:
                wait, reason = 0.0, http.words(error)
            known = part.stat().st_size
            worth = known >= highest + _WORTH or known >= pin.size
            attempt, highest = (1, known) if worth else (attempt + 1, highest)
    if known > pin.size:
        part.unlink()
        raise _longer(pin, known)


def _longer(pin: FilePin, size: int) -> HashMismatch:
    kind = "longer than" if size > pin.size else f"{size} bytes long, not"
    return HashMismatch(
        f"{pin.url} is {kind} the {pin.size} bytes the lock says; the file was removed",
        "run it again; if it stays, the index serves another file: do not use it",
    )


def _receive(
    session: requests.Session, pin: FilePin, part: Path, advance: Progress, stop: threading.Event
) -> float:
    """One request for what is missing; returns early when the connection ends early.

    :returns: seconds that the server asks to wait before the next one.
    :raises HashMismatch: the server's file is of another size.
    """
    known = part.stat().st_size
    headers = {"Range": f"bytes={known}-"} if known else {}
    headers["Accept-Encoding"] = "identity"
    with session.get(pin.url, headers=headers, stream=True) as answer:
        status = answer.status_code
        if status in http.AGAIN:
            wait = http.asked_to_wait(answer.headers, pin.url)
            if not wait:
                answer.raise_for_status()
            return wait
        if 400 <= status < 500 and status != 416:
            raise NetworkError(
                f"{pin.url} answers {status} {console.one_line(answer.reason)}",
                "the lock may be out of date: make it again with ./inv lock",
            )
        answer.raise_for_status()
        begins, size = _extent(answer)
        if size is not None and size != pin.size:
            part.unlink()
            raise _longer(pin, size)
        if status == 416 or begins != known:
            part.write_bytes(b"")  # the server cannot resume: from the start
            advance(-known)
            if status == 416 or begins:
                raise requests.RequestException(f"the server does not go on at byte {known}")
        with part.open("ab") as stream, http.Pace(answer) as pace:
            while chunk := answer.raw.read1(_CHUNK):  # what has come is kept, also before a cut
                if stop.is_set():
                    break
                stream.write(chunk)
                advance(len(chunk))
                if stream.tell() > pin.size:
                    break
                pace.note(len(chunk))
    return 0.0


def _extent(answer: requests.Response) -> tuple[int, int | None]:
    """Where the body begins, and the size of the whole file; None where the server does not tell."""
    told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status_code == 200:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() and length.isascii() else None
    if told is None:
        return -1, None
    return int(told[1] or 0), int(told[2]) if told[2] != "*" else None
