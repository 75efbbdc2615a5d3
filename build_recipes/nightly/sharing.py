"""The compiler cache of a night: a shared one where its server answers, this machine's own otherwise.

Read from the environment, so that a host is set up once and no secret is in a file of the project:

    SCCACHE_REDIS_ENDPOINT   tcp://host:6379   (or SCCACHE_REDIS, the older name)
    SCCACHE_BUCKET           an S3 bucket, with SCCACHE_ENDPOINT for servers other than Amazon's
    SCCACHE_GHA_ENABLED      on: GitHub Actions' cache (ACTIONS_RESULTS_URL is there then)
    CCACHE_REMOTE_STORAGE    redis://host:6379 or http://host: ccache's own sharing

sccache refuses to start where its server does not answer, and every compile would fail; so the server is
tried first, and without it the night goes on with the machine's own cache, or none, and says so.
"""

from __future__ import annotations

import os
import shutil
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from build_recipes.kit.console import warn
from build_recipes.nightly import steps

SCCACHE_SHARED = (
    "SCCACHE_REDIS_ENDPOINT", "SCCACHE_REDIS", "SCCACHE_REDIS_CLUSTER_ENDPOINTS", "SCCACHE_BUCKET",
    "SCCACHE_GHA_ENABLED",
)  # fmt: skip
CCACHE_SHARED = "CCACHE_REMOTE_STORAGE"
PORTS = {"redis": 6379, "rediss": 6379, "tcp": 6379, "http": 80, "https": 443}
TRY_S = 3.0


@dataclass(frozen=True)
class Sharing:
    """Which compiler cache the builds of a night use."""

    choice: str
    """For ``./inv build --cache``: ``auto``, ``ccache``, ``sccache`` or ``off``."""
    name: str
    """For people and the feed: ``sccache, Redis at host:6379``. Never holds a password."""
    drop: tuple[str, ...] = ()
    """Variables the builds must not see."""
    extra: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Environment of a step."""
        return {k: v for k, v in steps.environment(**self.extra).items() if k not in self.drop}


def choose(environ: Mapping[str, str] | None = None) -> Sharing:
    """Decide by the environment, and by whether the server answers."""
    env = os.environ if environ is None else environ
    asked = [name for name in SCCACHE_SHARED if env.get(name)]
    if asked:
        what, where = _sccache_server(env)
        if not shutil.which("sccache", path=env.get("PATH")):
            return _without("sccache is not installed", (*asked,))
        if where and (reason := _unreachable(*where)):
            return _without(f"{what} does not answer: {reason}", (*asked,))
        return Sharing("sccache", f"sccache, {what}", extra=_own_server(env))
    remote = env.get(CCACHE_SHARED, "")
    if remote:
        parts = urlsplit(remote.split("|")[0])
        where = (parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0))
        if parts.scheme in PORTS and (reason := _unreachable(*where)):
            return _without(
                f"{parts.scheme}://{where[0]}:{where[1]} does not answer: {reason}", (CCACHE_SHARED,)
            )
        return Sharing("ccache", f"ccache, {parts.scheme} at {where[0]}:{where[1]}")
    return Sharing("auto", "this machine's own")


def _own_server(env: Mapping[str, str]) -> dict[str, str]:
    """sccache's server process reads its settings once and outlives a build: on a port that follows from the
    settings, no server that was started for another cache answers. Where it dies, compilers run without it."""
    settings = sorted((key, value) for key, value in env.items() if key.startswith("SCCACHE_"))
    port = env.get("SCCACHE_SERVER_PORT") or str(20000 + zlib.crc32(repr(settings).encode()) % 20000)
    return {"SCCACHE_SERVER_PORT": port, "SCCACHE_IGNORE_SERVER_IO_ERROR": "1"}


def _without(reason: str, drop: tuple[str, ...]) -> Sharing:
    warn(f"the shared compiler cache is not used: {reason}; the night goes on without it")
    return Sharing("auto", f"this machine's own ({reason})", drop)


def _sccache_server(env: Mapping[str, str]) -> tuple[str, tuple[str, int] | None]:
    """What the shared cache is, and an address to try."""
    if env.get("SCCACHE_BUCKET"):
        endpoint = env.get("SCCACHE_ENDPOINT", "")
        parts = urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
        return f"S3 bucket {env['SCCACHE_BUCKET']}", (
            (parts.hostname, parts.port or PORTS.get(parts.scheme, 443)) if parts.hostname else None
        )
    address = env.get("SCCACHE_REDIS_ENDPOINT") or env.get("SCCACHE_REDIS")
    if address:
        parts = urlsplit(address)
        where = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 6379)
        return f"Redis at {where[0]}:{where[1]}", where
    if env.get("SCCACHE_REDIS_CLUSTER_ENDPOINTS"):
        parts = urlsplit(env["SCCACHE_REDIS_CLUSTER_ENDPOINTS"].split(",")[0])
        return "a Redis cluster", (parts.hostname or "", parts.port or 6379)
    return "GitHub Actions' cache", None


def _unreachable(host: str, port: int) -> str:
    """Why a server cannot be reached; empty where it can."""
    try:
        with socket.create_connection((host, port), timeout=TRY_S):
            return ""
    except OSError as error:
        return error.strerror or str(error)
