"""`./inv deliver`: a wheel, its companions and this program to a board; installed, qualified, the result brought back.

The order: look, copy what is not there (by checksum; a file that was cut goes on), install without an index,
qualify within the board's memory rules. A second delivery copies nothing that is there.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version

from build_recipes.delivery.bundle import REQUIREMENTS, Bundle, bundle, installing, serve_line
from build_recipes.delivery.connection import Board, connected
from build_recipes.delivery.looked import Looked, qualified
from build_recipes.delivery.programs import uv_program
from build_recipes.facts.device import device, told_by
from build_recipes.formats import abi
from build_recipes.kit import console, paths
from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import ArmoryError, BoardFailed, QualifyFailed
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.qualify.report import FAILED, path_of
from build_recipes.sources.download import fetch_files
from build_recipes.sources.tool_wheels import REPLACEABLE, tool_wheels

HOME = ".cache/vllm-armory"
"""Folder below the board's home that is written."""


@dataclass(frozen=True)
class Delivery:
    """What happened on one board."""

    board: str
    looked: dict[str, Any]
    copied: int
    """Bytes that were sent."""
    there: int
    """Bytes that were there already."""
    environment: str
    serve: str
    """The line that starts vLLM, from here."""
    qualified: dict[str, Any] | None
    """The document of qualify; None where it was not asked for."""
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    """Why it did not end well; empty where it did."""
    advice: str = ""
    """What to do about it."""

    @property
    def tiers(self) -> dict[str, str]:
        """Tier of qualify to its result; empty where it did not run."""
        return {one["name"]: one["result"] for one in (self.qualified or {}).get("tiers", [])}


def deliver(
    wheel: Path,
    boards: Sequence[str],
    *,
    device: str,
    python: str,
    bare: bool,
    tiers: str,
    port: int,
    env: str,
) -> list[Delivery]:
    """Deliver to every board, one after another; one that fails does not stop the others.

    :param tiers: of qualify; empty for none.
    :raises BoardFailed: one board alone: its own error. Of several, `judge` tells those that failed.
    """
    places = Places.from_environment()
    made = bundle(wheel, places, device=device, python=python, bare=bare)
    done = []
    for name in boards:
        try:
            with connected(name, port) as board:
                done.append(_deliver(board, made, places, tiers, env))
        except ArmoryError as error:
            if len(boards) == 1:
                raise
            console.warn(str(error.args[0]))
            failed = Delivery(name, {}, 0, 0, "", "", None, failed=str(error.args[0]), advice=error.advice)
            done.append(failed)
    _keep(wheel, done)
    return done


def _keep(wheel: Path, done: Sequence[Delivery]) -> None:
    """Write beside the wheel what qualify found: the document of a board where it did not pass, if there is one."""
    tried = [one for one in done if one.tiers]
    if tried:
        shown = next((one for one in tried if FAILED in one.tiers.values()), tried[-1])
        boards = {one.board: one.tiers for one in tried}
        document = {**(shown.qualified or {}), "board": shown.board, "boards": boards}
        write_atomic(path_of(wheel), json.dumps(document, indent=1))


def _deliver(board: Board, made: Bundle, places: Places, tiers: str, env: str) -> Delivery:
    seconds: dict[str, float] = {}
    looked = board.look()
    console.step("look", f"{board.name}: {described(looked)}")
    check(board.name, looked, made)
    home = f"{looked['home']}/{HOME}"
    key = next(iter(made.files.values()))[1][:16]
    folder, tool = f"{home}/delivery/{key}", f"{home}/tool"
    environment = env or f"{looked['home']}/vllm-env"
    board.must(["mkdir", "-p", folder, f"{tool}/wheels"], "making a folder")
    started = time.monotonic()
    uv = f"{tool}/uv"
    program = uv_program(made.device.machine, places)
    files = {f"{folder}/{name}": path for name, (path, _) in made.files.items()} | {uv: program}
    digests = {f"{folder}/{name}": digest for name, (_, digest) in made.files.items()}
    digests[uv] = file_sha256(program)
    manifest = made.wheel.with_name(made.wheel.name.removesuffix(".whl") + ".manifest.json")
    if manifest.is_file():  # qualify reads there what was left out on purpose
        files[f"{folder}/{manifest.name}"], digests[f"{folder}/{manifest.name}"] = (
            manifest,
            file_sha256(manifest),
        )
    copied, there = copy(board, files, digests)
    for name, text in made.texts.items():
        board.write(f"{folder}/{name}", text)
    board.must(["chmod", "0755", uv], "making uv a program")
    seconds["copy"] = round(time.monotonic() - started, 1)
    started = time.monotonic()
    console.step("install", f"{counted(len(made.files), 'file')} into {board.name}:{environment}")
    steps = installing(
        uv, environment, folder, made.python, under=made.companions is None, toolkit=made.toolkit
    )
    for words in steps:
        board.must(["env", "UV_NO_CONFIG=1", f"UV_CACHE_DIR={home}/uv-cache", *words], "installing")
    seconds["install"] = round(time.monotonic() - started, 1)
    qualified = None
    if tiers:
        started = time.monotonic()
        sent = _send_ourselves(board, looked, made, places, tool)
        copied, there = copied + sent[0], there + sent[1]
        qualified = _qualify(
            board, made, wheel=f"{folder}/{made.wheel.name}", environment=environment, tool=tool, tiers=tiers
        )
        seconds["qualify"] = round(time.monotonic() - started, 1)
    return Delivery(
        board.name, {key: value for key, value in looked.items() if key != "files"}, copied, there, environment,
        f"{board.ssh} {serve_line(made, environment)}", qualified, seconds,
    )  # fmt: skip


def described(looked: Looked) -> str:
    """A board in one line."""
    memory, disk = console.size(looked["memory"]["available"] or 0), console.size(looked["disk_free"])
    system = f"{looked['system'] or 'Linux'}, {looked['machine']}, glibc {looked['glibc']}"
    driver = looked["l4t"] or looked["driver"] or "no NVIDIA driver"
    return f"{system}, Python {looked['python']}, {memory} of memory and {disk} of disk free, {driver}"


def check(name: str, looked: Looked, made: Bundle) -> None:
    """Refuse a board that is another device than the wheel's, or that it cannot run on, before a byte is copied.

    :raises BoardFailed: with what was seen there.
    """
    seen = told_by(looked["compatible"], looked["gpus"], looked["machine"])
    if seen not in (None, made.device_name):
        raise BoardFailed(
            f"{name} is a machine of {device(seen).title}, the wheel is for {made.device.title}",
            f"./inv advise --tag v{Version(made.version).public} --device {seen}",
        )
    if looked["machine"] != made.device.machine:
        raise BoardFailed(
            f"{name} is {looked['machine']}, the wheel is for {made.device.machine}",
            "./inv devices",
        )
    needs = abi.tag_glibc(made.wheel.name)
    if looked["glibc"] and needs and needs > abi.version(looked["glibc"]):
        wanted = ".".join(map(str, needs))
        raise BoardFailed(
            f"{name} has glibc {looked['glibc']}, the wheel needs {wanted}",
            f"a newer system on the board, or a container: ./inv image {made.wheel}",
        )
    room = made.size * 3  # the files, unpacked, and what is compiled at first start
    if looked["disk_free"] < room:
        raise BoardFailed(
            f"{name} has {console.size(looked['disk_free'])} of free disk, the delivery needs {console.size(room)}",
            "make room in the home folder there, then run the same command again",
        )


def copy(board: Board, files: dict[str, Path], digests: dict[str, str]) -> tuple[int, int]:
    """Bring files to the board: each to ``NAME.part``, checked there, then renamed.

    :param files: path on the board to file here.
    :returns: bytes sent, and bytes that were there.
    :raises BoardFailed: a file that arrived has another SHA-256.
    """
    seen = board.look([*files, *(f"{name}.part" for name in files)])["files"]
    there = {name for name in files if (one := seen[name]) and one["sha256"] == digests[name]}
    had = {
        name: min(one["size"], path.stat().st_size) if (one := seen[f"{name}.part"]) else 0
        for name, path in files.items()
    }
    missing = [name for name in files if name not in there]
    total = sum(files[name].stat().st_size - had[name] for name in missing)
    console.step(
        "copy", f"{len(missing)} of {counted(len(files), 'file')}, {console.size(total)} to {board.name}"
    )
    sent = 0

    def count(octets: int) -> None:
        nonlocal sent
        sent += octets

    for name in missing:
        board.send(files[name], f"{name}.part", had[name], count)
    arrived = board.look([f"{name}.part" for name in missing])["files"] if missing else {}
    for name in missing:
        if not (one := arrived[f"{name}.part"]) or one["sha256"] != digests[name]:
            board.must(["rm", "-f", f"{name}.part"], "removing a damaged file")
            raise BoardFailed(
                f"{Path(name).name} arrived damaged on {board.name}", "the same command copies it again"
            )
        board.rename(f"{name}.part", name)
    return sent, sum(path.stat().st_size for path in files.values()) - total


def _send_ourselves(board: Board, looked: Looked, made: Bundle, places: Places, tool: str) -> tuple[int, int]:
    """This program and what it needs, into an environment of its own on the board."""
    major, minor = looked["python"].split(".")[:2]
    glibc = abi.version(looked["glibc"])
    if not glibc:
        raise BoardFailed(
            f"{board.name} does not say which glibc it has, so no wheel of this program fits for sure",
            "deliver without --qualify and try the wheel there by hand",
        )
    leave = REPLACEABLE
    pins = tool_wheels(made.device.machine, (int(major), int(minor)), (glibc[0], glibc[1]), leave)
    found = fetch_files(pins, places.downloads)
    packed = places.cache / "deliver" / "armory.tar"
    write_atomic(packed, packed_program())
    files = {f"{tool}/wheels/{name}": path for name, path in found.items()} | {f"{tool}/armory.tar": packed}
    digests = {f"{tool}/wheels/{pin.filename}": pin.sha256 for pin in pins} | {
        f"{tool}/armory.tar": file_sha256(packed)
    }
    result = copy(board, files, digests)
    lines = [f"{pin.project}=={pin.version} --hash=sha256:{pin.sha256}" for pin in pins]
    board.write(f"{tool}/wheels/{REQUIREMENTS}", "\n".join(lines) + "\n")
    board.must(["tar", "-xf", f"{tool}/armory.tar", "-C", tool], "unpacking")
    for words in installing(f"{tool}/uv", f"{tool}/env", f"{tool}/wheels", "python3"):
        board.must(
            ["env", "UV_NO_CONFIG=1", f"UV_CACHE_DIR={tool}/uv-cache", *words], "installing this program"
        )
    return result


def packed_program() -> bytes:
    """This program as a tar, as it lies in an installed copy; the same bytes from the same files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for root, name in ((paths.PACKAGE, "build_recipes"), (paths.PATCHES, "build_recipes/patches")):
            for path in sorted(root.rglob("*")):
                inside = path.relative_to(root)
                if path.is_file() and "__pycache__" not in inside.parts:
                    row = tarfile.TarInfo(f"{name}/{inside}")
                    row.size, row.mode = path.stat().st_size, 0o644
                    with path.open("rb") as content:
                        tar.addfile(row, content)
    return stream.getvalue()


def _qualify(
    board: Board, made: Bundle, *, wheel: str, environment: str, tool: str, tiers: str
) -> dict[str, Any] | None:
    """Qualify on the board. None where it could not be run."""
    console.step("qualify", f"tiers {tiers} on {board.name}")
    words = ["qualify", wheel, "--tiers", tiers, "--device", made.device_name, "--json"]
    if made.companions:  # a bare wheel is tried with what the board's own python3 has
        words += ["--python", f"{environment}/bin/python"]
    places = [f"VLLM_ARMORY_BUILD={tool}/build", f"VLLM_ARMORY_CACHE={tool}/cache"]
    said = board.run(["env", *places, f"{tool}/env/bin/python", f"{tool}/build_recipes/__main__.py", *words])
    try:
        document = qualified(said.out)
    except ValueError:
        last = console.one_line(" ".join(said.err.split())[-300:], 300)
        console.warn(f"qualify could not be run on {board.name} (exit {said.code}): {last}")
        return None
    for tier in document.get("tiers", []):
        console.say(
            f"  {tier['number']} {tier['name']:<9} {tier['result']:<8} {console.one_line(tier['reason'], 120)}"
        )
    if "tiers" not in document:
        console.warn(f"qualify on {board.name}: {console.one_line(str(document.get('message')), 300)}")
    return document


def show(done: Sequence[Delivery]) -> None:
    """One paragraph for each board, and a line for each where there are several."""
    for one in done:
        if one.failed:
            continue
        console.say(f"{one.board}: vLLM is in {one.environment}", "bold")
        console.say(f"  sent {console.size(one.copied)}, {console.size(one.there)} were there already")
        console.say(f"next  {one.serve}")
    if len(done) > 1:
        good = sum(not one.failed for one in done)
        console.say(f"vLLM is on {good} of {counted(len(done), 'board')}", "bold")
        for one in done:
            console.say(f"  {one.board}  {_in_short(one)}")


def _in_short(one: Delivery) -> str:
    if one.failed:
        return f"failed: {one.failed}"
    parts = [f"sent {console.size(one.copied)}"]
    parts += [f"{name} {console.duration(seconds)}" for name, seconds in one.seconds.items()]
    return ", ".join([*parts, *(f"{name} {result}" for name, result in one.tiers.items())])


def judge(done: Sequence[Delivery]) -> None:
    """Refuse a delivery that did not reach a board, or whose wheel did not pass there.

    :raises BoardFailed: naming the boards that have it not.
    :raises QualifyFailed: naming the boards.
    """
    failed = [one for one in done if one.failed]
    if failed:
        names = ", ".join(one.board for one in failed)
        raise BoardFailed(f"{len(failed)} of {counted(len(done), 'board')} failed: {names}", failed[0].advice)
    bad = [one.board for one in done if FAILED in one.tiers.values()]
    if bad:
        raise QualifyFailed(
            f"the wheel did not pass on {', '.join(bad)}", "read the .qualify.json beside the wheel"
        )


def as_dicts(done: Sequence[Delivery]) -> list[dict[str, Any]]:
    """Plain data for JSON."""
    return [asdict(one) for one in done]
