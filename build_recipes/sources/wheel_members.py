"""A few files out of a large wheel on an index, by HTTP range requests.

The official vLLM wheel holds the Python files of triton_kernels: some 250 kB of 436 MB. The hash of each
member is in the lock, so nothing else of the wheel has to be fetched or believed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from build_recipes.formats.bounds import safe_member
from build_recipes.formats.inflate import Archive
from build_recipes.formats.wheel import parse_record
from build_recipes.kit import http
from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import DamagedArchive, HashMismatch, NetworkError, OfflineError
from build_recipes.sources.download import hash_file
from build_recipes.sources.lockfile import FilePin, MemberPin, WheelMembers

_BLOCK = 1 << 17


class RemoteFile:
    """A file on a server that answers range requests, read in blocks that are kept."""

    def __init__(self, url: str, size: int) -> None:
        self.url, self.size = url, size
        self.received = 0
        """Bytes that came over the network."""
        self._blocks: dict[int, bytes] = {}

    def read_at(self, offset: int, count: int) -> bytes:
        """The bytes there; fewer at the end. Raises NetworkError."""
        end = min(self.size, offset + count)
        first = offset // _BLOCK
        blocks = [self._block(number) for number in range(first, -(-end // _BLOCK))]
        return b"".join(blocks)[offset - first * _BLOCK : end - first * _BLOCK]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            first = number * _BLOCK
            last = min(self.size, first + _BLOCK) - 1
            headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
            answer = http.ask(self.url, headers=headers, most=_BLOCK, read=(206,))
            if answer.status != 206:
                raise NetworkError(
                    f"{self.url} does not give parts of a file (status {answer.status})",
                    "fetch the repository instead: --mirror URL=DIR",
                )
            body = answer.body
            if len(body) != last - first + 1:
                raise NetworkError(
                    f"{self.url}: {len(body)} bytes came of {last - first + 1}", "run it again"
                )
            self.received += len(body)
            self._blocks[number] = body
        return self._blocks[number]


def list_members(wheel: FilePin, inner: str, suffix: str = ".py") -> WheelMembers:
    """The files below a folder of a wheel, with the hashes of their content.

    Each is read and compared with the wheel's own RECORD. Empty where there is no such folder.

    :raises NetworkError: the server does not answer, or gives no parts.
    :raises HashMismatch: a member differs from RECORD.
    """
    members = []
    with opened(wheel) as archive:
        record = parse_record(record_of(archive).decode("utf-8", "replace"), wheel.filename)
        for name in sorted(archive.members):
            if not name.startswith(f"{inner}/") or not name.endswith(suffix):
                continue
            content = archive.read(name)
            digest = hashlib.sha256(content).digest()
            if name not in record or record[name].sha256 != digest:
                raise HashMismatch(
                    f"{name} in {wheel.filename} differs from its RECORD", "do not use this wheel"
                )
            path = str(safe_member(name.removeprefix(f"{inner}/"), wheel.filename))
            members.append(MemberPin(path=path, sha256=digest.hex(), size=len(content)))
    return WheelMembers(wheel=wheel, inner=inner, members=members)


def opened(wheel: FilePin) -> Archive:
    """A wheel on its index, read in places. Raises NetworkError, and what `Archive` raises."""
    return Archive(Path(wheel.filename), source=RemoteFile(wheel.url, wheel.size))


def record_of(archive: Archive) -> bytes:
    """RECORD of a wheel.

    :raises DamagedArchive: it has none, or one of more than 64 MiB (0.26.0's has 0.6 million bytes).
    """
    names = [name for name in archive.members if name.endswith(".dist-info/RECORD")]
    if len(names) != 1:
        raise DamagedArchive(
            f"{archive.path.name} has {len(names)} RECORDs: it is not a wheel", "do not use it"
        )
    return archive.read(names[0])


def member_files(source: WheelMembers, downloads: Path, *, offline: bool) -> dict[str, Path]:
    """Every member by its path, in the cache and checked; read from the wheel where it is not there.

    :raises OfflineError: not in the cache, and the network is not to be used.
    :raises HashMismatch: a member is not what the lock says.
    """
    found, lacking = {}, []
    for member in source.members:
        path = downloads / member.sha256 / Path(member.path).name
        if path.is_file() and hash_file(path) == member.sha256:
            found[member.path] = path
        else:
            lacking.append((member, path))
    if lacking and offline:
        raise OfflineError(
            f"{counted(len(lacking), 'file')} of {source.wheel.filename} are not in the cache and the network is "
            "not to be used",
            "run once without --offline, or bring them: ./inv mirror --from BUNDLE",
        )
    if lacking:
        with opened(source.wheel) as archive:
            for member, path in lacking:
                content = archive.read(f"{source.inner}/{member.path}")
                if hashlib.sha256(content).hexdigest() != member.sha256:
                    raise HashMismatch(
                        f"{source.inner}/{member.path} in {source.wheel.filename} is not what the lock says",
                        "do not use this wheel; make the lock again and look at what moved",
                    )
                write_atomic(path, content)
                found[member.path] = path
    return found
