"""Git over the network: what a server has, and single commits of it.

GitPython drives git. A commit is fetched alone (depth 1, by its hash) where the server allows it, else by
its tag, else with all branches; whatever came, the commit itself must be there in the end. There is no fall
back to HEAD.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import git
from git.cmd import handle_process_output

from build_recipes.kit import console
from build_recipes.kit.errors import NetworkError
from build_recipes.kit.http import ATTEMPTS, backoff
from build_recipes.sources.repository import ENVIRONMENT, Repository, config_options, last_words, missing

_REFUSED = (
    "not our ref",
    "find remote ref",
    "unadvertised object",
    "does not allow request",
    "no such remote ref",
)
"""The server answers, and does not give this revision."""
_UNKNOWN = (
    "authentication failed",
    "could not read username",
    "not found",
    "does not exist",
    "not appear to be a git repository",
)
"""The server answers, and does not give this repository."""
_SILENCE = 120.0
"""Seconds for which a host that did not answer is not asked again."""
_silent: dict[str, tuple[float, str]] = {}


def ls_remote(url: str, *patterns: str) -> dict[str, str]:
    """Reference name to hash, as the server has it now.

    :raises NetworkError: no answer.
    """

    def ask() -> str:
        command = [
            "git",
            "-c",
            "http.lowSpeedLimit=1000",
            "-c",
            "http.lowSpeedTime=30",
            "ls-remote",
            "--",
            url,
            *patterns,
        ]
        return str(git.Git().execute(command, env=ENVIRONMENT, with_extended_output=False))

    rows = (line.split("\t", 1) for line in _retry(url, ask).splitlines() if "\t" in line)
    return {name: digest for digest, name in rows}


def _retry(url: str, attempt: Callable[[], str]) -> str:
    """What ``attempt`` gives, tried again while that can help.

    :raises git.GitCommandError: the server answers, and refuses.
    :raises NetworkError: it does not answer. Its host is then not asked again for a while.
    """
    host = urlsplit(url).netloc
    since, reason = _silent.get(host, (0.0, ""))
    if host and since and time.monotonic() - since < _SILENCE:
        raise _unread(url, reason)
    for count in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except git.GitCommandError as error:
            reason, text = last_words(error), str(error.stderr).lower()
            if any(words in text for words in _REFUSED):
                raise
            if any(words in text for words in _UNKNOWN):
                raise _unread(url, reason) from error
            if "could not resolve" in text:
                break
        if count < ATTEMPTS:
            time.sleep(backoff(count))
    _silent[host] = (time.monotonic(), reason)
    raise _unread(url, reason)


def _unread(url: str, reason: str) -> NetworkError:
    return NetworkError(f"{url} cannot be read: {reason}", f"check the network, or give --mirror {url}=DIR")


@contextlib.contextmanager
def held(git_dir: Path) -> Iterator[None]:
    """Hold one of our mirrors against other runs, and make it ready (locks of a killed git are removed)."""
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    with git_dir.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (git_dir / "HEAD").exists():
            git.Repo.init(git_dir, bare=True, mkdir=True, initial_branch="none")
        for stale in [*git_dir.glob("*.lock"), *git_dir.glob("objects/pack/tmp_*")]:
            stale.unlink(missing_ok=True)
        yield


class _Progress(git.RemoteProgress):
    """git's progress as one line on a terminal."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.last = 0.0

    def update(self, op_code: int, cur_count: Any, max_count: Any = None, message: str = "") -> None:
        if console.console().is_terminal and time.monotonic() - self.last > 0.2:
            self.last = time.monotonic()
            share = f"{100 * float(cur_count) / float(max_count):3.0f} %" if max_count else f"{cur_count:.0f}"
            console.console().print(f"     fetch  {self.url}  {share} {message}", end="\r", markup=False)


def fetch_commit(repository: Repository, commit: str, revision: str) -> None:
    """Bring one commit into our mirror: alone, else by its tag, else with everything."""
    console.say(f"     fetch  {repository.url} at {revision or commit[:12]}")
    ways = [([f"+{commit}:refs/armory/{commit}"], 1)]
    if revision and revision != commit:
        ways.append(([f"+refs/tags/{revision}:refs/tags/{revision}"], 1))
    ways.append((["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"], 0))
    for specs, depth in ways:
        try:
            _retry(repository.url, functools.partial(_fetch_once, repository, specs, depth))
        except git.GitCommandError:
            continue  # this way is refused; the next is larger
        if repository.has(commit):
            repository.git("update-ref", f"refs/armory/{commit}", commit)
            return
    raise missing(repository.url, commit, "any branch or tag")


def fetch_history(repository: Repository, commit: str) -> None:
    """Bring the commits before one into our mirror, without their files, and all tags: for ``git describe``.

    :raises NetworkError: no answer.
    :raises git.GitCommandError: the server gives no history without files.
    """
    shallow = ["--unshallow"] if (repository.git_dir / "shallow").exists() else []
    words = ["fetch", "--quiet", "--force", "--tags", "--filter=tree:0", *shallow, "--", repository.url]
    _retry(repository.url, lambda: repository.git(*words, f"+{commit}:refs/armory/{commit}"))


def _fetch_once(repository: Repository, specs: list[str], depth: int) -> str:
    progress = _Progress(repository.url)
    command = [
        "git",
        *config_options(repository.git_dir),
        f"--git-dir={repository.git_dir}",
        "fetch",
        "--progress",
    ]
    command += [
        "--no-tags",
        "--force",
        *([f"--depth={depth}"] if depth else []),
        "--",
        repository.url,
        *specs,
    ]
    # not Remote.fetch: it cannot read git's answer to a refspec that begins with a hash
    process = git.Git(repository.git_dir).execute(
        command, as_process=True, universal_newlines=True, env=ENVIRONMENT
    )
    handle_process_output(process, None, progress.new_message_handler(), finalizer=None, decode_streams=False)
    said = [*progress.error_lines, *(line for line in progress.other_lines if "fatal" in line)]
    process.wait(stderr="\n".join(said))
    return ""
