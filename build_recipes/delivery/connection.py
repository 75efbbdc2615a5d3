"""A connection to a board: Fabric, with keys alone and a host key that is known."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_recipes.delivery.looked import Looked, looked
from build_recipes.kit.console import one_line
from build_recipes.kit.errors import BoardFailed

if TYPE_CHECKING:
    from fabric import Connection

LOOK = Path(__file__).with_name("board.py")
BLOCK = 1 << 18
TIMEOUT_S = 30


@dataclass(frozen=True)
class Said:
    """What a command on the board printed."""

    code: int
    out: str
    err: str


class Board:
    """One board; every command is a list of words."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name
        self.ssh = _ssh(connection, name)
        """The command that logs in."""

    def run(self, words: Sequence[str], on_line: Callable[[str], None] | None = None) -> Said:
        """Run a command on the board and wait for its end."""
        done = self._connection.run(shlex.join(words), hide=True, warn=True, in_stream=False, pty=False)
        if on_line:
            for line in done.stderr.splitlines():
                on_line(line)
        return Said(int(done.exited), str(done.stdout), str(done.stderr))

    def must(self, words: Sequence[str], what: str) -> Said:
        """Run a command that has to succeed.

        :raises BoardFailed: it did not; its last words are given.
        """
        said = self.run(words)
        if said.code:
            last = one_line(" ".join((said.err or said.out).split())[-600:], 600)
            raise BoardFailed(
                f"{self.name}: {what} failed ({said.code}): {last}", f"{self.ssh}, and type: {words[0]}"
            )
        return said

    def look(self, files: Sequence[str] = ()) -> Looked:
        """What the board is, and which of ``files`` it has; nothing is written there.

        :raises BoardFailed: it has no python3, or does not say what it is asked.
        """
        said = self.run(["python3", "-c", LOOK.read_text(encoding="utf-8"), json.dumps(list(files))])
        try:
            return looked(said.out, files)
        except ValueError as error:
            last = one_line((said.err or said.out).strip()[-300:] or str(error), 300)
            raise BoardFailed(
                f"{self.name} could not be looked at: {last}", "apt-get install python3 on the board"
            ) from None

    def send(self, source: Path, target: str, had: int, on_bytes: Callable[[int], None]) -> None:
        """Append what is missing of a file: everything after its first ``had`` bytes."""
        sftp = self._connection.sftp()
        with source.open("rb") as stream, sftp.open(target, "ab" if had else "wb") as sink:
            sink.set_pipelined(True)
            stream.seek(had)
            while block := stream.read(BLOCK):
                sink.write(block)
                on_bytes(len(block))

    def read(self, path: str, limit: int = 16 << 20) -> bytes:
        """A file of the board, at most ``limit`` bytes of it. Raises `OSError`."""
        with self._connection.sftp().open(path, "rb") as stream:
            return bytes(stream.read(limit))

    def rename(self, old: str, new: str) -> None:
        """Put a finished file in its place."""
        self._connection.sftp().posix_rename(old, new)

    def write(self, path: str, content: str) -> None:
        """Write a small text file."""
        self._connection.sftp().putfo(io.BytesIO(content.encode()), path)


def _ssh(connection: Connection, name: str) -> str:
    if connection.port == 22:
        return f"ssh {name}"
    return f"ssh -p {connection.port} {connection.user}@{connection.host}"


@contextlib.contextmanager
def connected(to: str, port: int = 0) -> Iterator[Board]:
    """A board by its ssh name (``user@thor.local``, or a host of ~/.ssh/config), while the block runs.

    No password is asked for or sent, and a host key that is not known, or has changed, is refused.

    :raises BoardFailed: it cannot be reached, its key is not known, or it takes none of our keys.
    """
    import fabric
    import paramiko

    connection = fabric.Connection(
        to,
        port=port or None,
        connect_timeout=TIMEOUT_S,
        connect_kwargs={"password": None, "look_for_keys": True},
    )
    connection.client.load_system_host_keys()
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    ssh = _ssh(connection, to)
    copying = ssh.replace("ssh", "ssh-copy-id", 1)
    try:
        connection.open()
    except paramiko.BadHostKeyException:
        raise BoardFailed(
            f"the host key of {to} is not the one that is known: another machine, or a new system on it",
            f"compare its key on the board itself, then: ssh-keygen -R {connection.host}; {ssh}",
        ) from None
    except (paramiko.AuthenticationException, paramiko.PasswordRequiredException) as error:
        raise BoardFailed(
            f"{to} takes none of your keys ({error})", f"{copying}, then run the same command again"
        ) from None
    except paramiko.SSHException as error:
        if "authentication methods" in str(error):
            raise BoardFailed(f"there is no key to log in to {to} with", f"ssh-keygen, {copying}") from None
        if "not found in known_hosts" in str(error):
            raise BoardFailed(
                f"the host key of {to} is not known", f"{ssh}, compare its key, and answer yes"
            ) from None
        raise BoardFailed(f"{to}: {error}", ssh) from None
    except (OSError, EOFError) as error:
        raise BoardFailed(f"{to} cannot be reached: {error}", f"{ssh} says why") from None
    try:
        yield Board(connection, to)
    except (paramiko.SSHException, EOFError, ConnectionError) as error:
        raise BoardFailed(
            f"the connection to {to} broke: {error}", "the same command goes on from here"
        ) from None
    finally:
        connection.close()
