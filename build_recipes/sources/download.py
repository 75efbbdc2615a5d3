"""Files from a package index into the cache: resumed, retried, checked by hash, several at a time.

A file lives in ``<downloads>/<sha256>/<filename>``, so a wrong file can never stand under a right name. A
``.part`` file beside it is continued by HTTP Range after a cut. A ``.ok`` marker (size and mtime) saves
hashing a large file that was already checked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import requests
import urllib3

from build_recipes.kit import console
from build_recipes.kit.errors import HashMismatch, NetworkError, NotEnoughDisk, NotWritable, OfflineError

if TYPE_CHECKING:
    from build_recipes.sources.lockfile import FilePin

CONNECTIONS = 4
"""Files fetched at the same time."""
ATTEMPTS = 6
"""Attempts in a row without a single new byte before we give up."""
TIMEOUT = (15, 60)
"""Seconds to connect, seconds without a byte."""
_CHUNK = 1 << 18

Progress = Callable[[int], None]
"""Called with the number of bytes just received (negative when a part is thrown away)."""


def backoff(attempt: int) -> float:
    """Seconds to wait before attempt ``attempt`` (from 1): 0.5, 1, 2, ... at most 20, with jitter."""
    return min(20.0, 0.5 * float(2 ** (attempt - 1))) * random.uniform(0.75, 1.25)


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
            f"{len(missing)} files ({total}) are not in the cache and the network is not to be used: {names}",
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
        stat = path.stat()
    except FileNotFoundError:
        return None
    marker = path.with_name(f"{path.name}.ok")
    seal = f"{stat.st_size} {stat.st_mtime_ns}"
    with contextlib.suppress(OSError):
        if marker.read_text() == seal:
            return path
    if hash_file(path) != pin.sha256:
        path.unlink()
        return None
    with contextlib.suppress(OSError):  # a read-only cache is still a cache
        marker.write_text(seal)
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
    what = pins[0].filename if len(pins) == 1 else f"{len(pins)} files"
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
            stat = path.stat()
            path.with_name(f"{path.name}.ok").write_text(f"{stat.st_size} {stat.st_mtime_ns}")
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
    """Fetch what is missing of ``part``, through as many cuts as bring new bytes."""
    reason, attempt, known = "", 0, part.stat().st_size
    advance(known)
    with requests.Session() as session:
        while known < pin.size:
            if attempt:
                if attempt >= ATTEMPTS:
                    raise NetworkError(
                        f"{pin.url} could not be read: {reason} "
                        f"({ATTEMPTS} attempts, {known} of {pin.size} bytes)",
                        "check the network, then run the same command: it goes on from here",
                    )
                if stop.wait(backoff(attempt)):
                    raise NetworkError("stopped", "run the same command again")
            try:
                _receive(session, pin, part, advance, stop)
                reason = "the connection was cut"
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _words(error)
            now = part.stat().st_size
            attempt = 1 if now > known else attempt + 1
            known = now
    if known > pin.size:
        part.unlink()
        raise HashMismatch(
            f"{pin.url} is longer than the {pin.size} bytes the lock says; the file was removed",
            "run it again; if it stays, the index serves another file: do not use it",
        )


def _receive(
    session: requests.Session, pin: FilePin, part: Path, advance: Progress, stop: threading.Event
) -> None:
    """One request for what is missing; returns early when the connection ends early."""
    known = part.stat().st_size
    headers = {"Range": f"bytes={known}-"} if known else {}
    with session.get(
        pin.url, headers={**headers, "Accept-Encoding": "identity"}, stream=True, timeout=TIMEOUT
    ) as answer:
        if answer.status_code == 416 or (known and answer.status_code == 200):
            part.write_bytes(b"")  # the server cannot resume: from the start
            advance(-known)
            if answer.status_code == 416:
                return
        elif 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429):
            raise NetworkError(
                f"{pin.url} answers {answer.status_code} {answer.reason}",
                "the lock may be out of date: make it again with ./inv lock",
            )
        answer.raise_for_status()
        with part.open("ab") as stream:
            while chunk := answer.raw.read1(_CHUNK):  # what has come is kept, also before a cut
                if stop.is_set():
                    return
                stream.write(chunk)
                advance(len(chunk))
                if stream.tell() > pin.size:
                    return


def _words(error: Exception) -> str:
    """The innermost cause, as people read it."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return f"{type(cause).__name__}: {cause}"[:200]


def retrying(what: str, attempt: Callable[[], requests.Response]) -> requests.Response:
    """Make a small request up to `ATTEMPTS` times.

    :param what: the address, for the message.
    :raises NetworkError: no answer, or one that says no.
    """
    reason = ""
    for count in range(1, ATTEMPTS + 1):
        try:
            answer = attempt()
            if answer.status_code < 500 and answer.status_code != 429:
                return answer
            reason = f"{answer.status_code} {answer.reason}"
        except requests.RequestException as error:
            reason = _words(error)
            if "NameResolution" in reason or "gaierror" in reason:
                break
        if count < ATTEMPTS:
            time.sleep(backoff(count))
    raise NetworkError(
        f"{what} could not be read: {reason}", "check the network, or use --offline with a lock"
    )
