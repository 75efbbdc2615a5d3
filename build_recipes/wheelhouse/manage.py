"""`./inv index` and `./inv retag`: from what was typed to what is shown."""

from __future__ import annotations

import dataclasses
import ipaddress
import shlex
import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from build_recipes.audit.run import check_named
from build_recipes.kit import console
from build_recipes.kit.errors import UsageError
from build_recipes.kit.pages import page
from build_recipes.kit.paths import Places, user_path
from build_recipes.wheelhouse.index import Entry, write_index
from build_recipes.wheelhouse.rewrite import Edits, rewrite
from build_recipes.wheelhouse.serve import IndexServer, server


def index(*, serve: bool, host: str, port: int, json: bool) -> None:
    """Write the index of wheels/, show it, serve it where that is asked.

    :param host: address to listen on; loopback by default, where no other machine reaches it.

    :raises ArmoryError: see `write_index` and `server`.
    """
    wheels = Places.from_environment().wheels
    entries = write_index(wheels)
    if json:
        console.emit_json([dataclasses.asdict(entry) for entry in entries])
    else:
        rows = [[one.project, one.version, console.size(one.size), one.file, one.sha256] for one in entries]
        console.table(f"{wheels}", ["project", "version", "size", "file", "sha256"], rows)
    if serve:
        running = server(wheels, port, host)
        address, lines = seen_at(running), how_to_install(entries, seen_at(running))
        running.front = page(__package__, "front.html", address=address, lines=lines, entries=entries)
        console.say(
            f"serving {address}/simple/ (Ctrl-C ends it); {address}/ in a browser says how to install"
        )
        if not running.loopback:
            console.warn(
                "every machine that reaches this address can fetch these wheels; there is no password, no TLS"
            )
        for line in lines:
            console.say(f"next  {line}")
        if not entries:
            console.say("there is no wheel yet: ./inv build --tag v0.12.0 makes one")
        with running:
            running.serve_forever()


def seen_at(running: IndexServer) -> str:
    """The address that a client types: of this machine in its network, where all are listened on."""
    host, port = str(running.server_address[0]), running.server_address[1]
    if ipaddress.ip_address(host).is_unspecified:
        with socket.socket(running.address_family, socket.SOCK_DGRAM) as asking:
            try:  # no packet is sent: the kernel says which of its addresses a route starts from
                asking.connect(("2001:db8::1" if ":" in host else "192.0.2.1", 9))
                host = str(asking.getsockname()[0])
            except OSError:
                host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def how_to_install(entries: Sequence[Entry], address: str) -> list[str]:
    """The lines that install the newest vLLM of the index, for pip and for uv.

    The exact version is named, else pip takes a newer one of PyPI; what vLLM needs comes from PyPI. pip ignores an
    index without TLS that is not on loopback, unless it is told.
    """
    own = [entry for entry in entries if entry.project == "vllm"]
    if not own:
        return []
    wanted = shlex.quote(f"vllm=={max(own, key=lambda entry: Version(entry.version)).version}")
    host = urlsplit(address).hostname or ""
    trusted = "" if host in ("127.0.0.1", "::1", "localhost") else f" --trusted-host {host}"
    where = f"--extra-index-url {address}/simple/"
    return [f"uv pip install {where} {wanted}", f"pip install {where}{trusted} {wanted}"]


def retag(wheel: str, *, platform: str, version: str, requires: tuple[str, ...], to: str) -> None:
    """Rewrite a wheel.

    :raises ArmoryError: see `rewrite`.
    """
    check_named(wheel, "retag")
    path = user_path(wheel)
    lines = {}
    for line in requires:
        try:
            lines[Requirement(line).name] = line
        except InvalidRequirement as error:
            raise UsageError(f"'{line}' is not a requirement", "write it as torch==2.11.0") from error
    started = time.monotonic()
    done = rewrite(
        path,
        user_path(to) if to else path.parent,
        Edits(version=version, platform=platform, requires=lines),
    )
    console.say(
        f"{done} ({console.size(done.stat().st_size)}, {console.duration(time.monotonic() - started)})"
    )
