"""``./inv mirror``: all sources of a lock into the cache, into one file, or out of one."""

from __future__ import annotations

import difflib
import platform
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from build_recipes.kit import console
from build_recipes.kit.console import counted
from build_recipes.kit.errors import LockMissing, UsageError
from build_recipes.kit.host import Host
from build_recipes.kit.paths import Places, user_path
from build_recipes.sources import bundle, tool_wheels
from build_recipes.sources.library import Library
from build_recipes.sources.lockfile import FilePin, Lock, load_lock, lock_path, pick_wheels, save_lock
from build_recipes.sources.mirrors import configured_mirrors
from build_recipes.sources.resolve import NEWEST_GLIBC


def mirror(
    tag: str,
    *,
    to: str = "",
    wheels: bool = False,
    requirements: bool = False,
    leave_out: Sequence[str] = (),
    mirrors: Sequence[str] = (),
    offline: bool = False,
) -> dict[str, Any]:
    """Bring all sources of a tag's lock into the cache, and into the bundle ``to`` where it is given.

    :param wheels: also those a build on this machine for aarch64 needs (some GB).
    :param requirements: also the build requirements for a machine like this (some MB), which is what a build
        with ``--torch existing`` and a CUDA toolkit of its own needs.
    :param leave_out: projects that the other machine has (cmake, ninja).
    :returns: what ``--json`` prints.
    :raises UsageError: there is no tag, or something is left out that would not go along.
    """
    if not tag:
        raise UsageError(
            "./inv mirror needs a tag, or a bundle to unpack", "./inv mirror --tag v0.12.0 --to BUNDLE"
        )
    lock, places = load_lock(tag), Places.from_environment()
    library = Library(places.git, configured_mirrors(mirrors), offline)
    console.step("mirror", f"the sources of vLLM {tag}")
    files = build_wheels(lock) if wheels else build_requirements(lock) if requirements else []
    refuse_unknown(leave_out, {pin.project for pin in files})
    files = [pin for pin in files if pin.project not in leave_out]
    gathered = bundle.gather(lock, library, places, files, machines())
    for name, reason in gathered.missing.items():
        console.warn(f"{name} is not mirrored: {reason}")
    shown: dict[str, Any] = {
        "tag": tag,
        "files": sorted(gathered.files),
        "commits": sorted(commit for entries in gathered.commits.values() for _, commit in entries),
        "missing": gathered.missing,
    }
    if to:
        path = user_path(to).resolve()
        contents = bundle.pack(lock, gathered, path)
        shown |= {"bundle": str(path), "size": path.stat().st_size, "contents": msgspec.to_builtins(contents)}
        console.say(
            f"{path}: {console.size(path.stat().st_size)}; unpack it with ./inv mirror --from {path.name}"
        )
    return shown


def refuse_unknown(leave_out: Sequence[str], there: set[str]) -> None:
    """A name that is left out must be one that would go along: a misspelt one would change nothing, silently.

    :raises UsageError: with the nearest name.
    """
    for name in leave_out:
        if name not in there:
            near = difflib.get_close_matches(name, sorted(there), n=1)
            known = (
                f"those that would: {', '.join(sorted(there))}" if there else "add --requirements or --wheels"
            )
            raise UsageError(
                f"--leave-out {name}: no wheel of that project would go along",
                f"type the same command with --leave-out {near[0]}" if near else known,
            )


def machines() -> list[str]:
    """CPUs of the devices that a build on this machine, or on one like it, may be for."""
    return list(dict.fromkeys(["aarch64", platform.machine()]))


def build_wheels(lock: Lock) -> list[FilePin]:
    """The wheels that a build on this machine, with this Python, for aarch64 or for itself needs."""
    here, python = platform.machine(), sys.version_info[:2]
    chosen: dict[str, FilePin] = {}
    for group in ("torch", "torch-deps", "cuda", "build"):
        for machine in machines():
            if group == "build" and machine != here:
                continue
            for pin in pick_wheels(lock, group, machine=machine, python=python, glibc=NEWEST_GLIBC):
                chosen[pin.sha256] = pin
    return list(chosen.values())


def build_requirements(lock: Lock) -> list[FilePin]:
    """The build requirements of a machine and Python like this one."""
    host = Host.this()
    return pick_wheels(lock, "build", machine=host.machine, python=host.python, glibc=host.glibc)


def wheelhouse(folder: str, *, leave_out: Sequence[str] = (), offline: bool = False) -> dict[str, Any]:
    """Fill a folder with the wheels that this program needs on a machine and Python like this one.

    :returns: what ``--json`` prints.
    :raises UsageError: something is left out that no machine has of its own.
    """
    if wrong := sorted(set(leave_out) - set(tool_wheels.REPLACEABLE)):
        raise UsageError(
            f"{', '.join(wrong)} cannot be left out: this program imports it",
            f"only programs can: {', '.join(tool_wheels.REPLACEABLE)}",
        )
    host, path = Host.this(), user_path(folder).resolve()
    found = tool_wheels.fill(
        path, host.machine, host.python, host.glibc, Places.from_environment().downloads,
        leave_out=leave_out, offline=offline,
    )  # fmt: skip
    total = sum(file.stat().st_size for file in found)
    console.say(
        f"{path}: {counted(len(found), 'wheel')}, {console.size(total)}; use it with "
        f"VLLM_ARMORY_WHEELHOUSE={path} ./inv ..."
    )
    return {"wheelhouse": str(path), "files": [file.name for file in found], "size": total}


def unpack(file: str) -> dict[str, Any]:
    """Bring a bundle into the cache, and its lock into the project where there is none for its tag."""
    path, places = user_path(file).resolve(), Places.from_environment()
    lock, contents = bundle.unpack(path, places)
    try:
        existing = load_lock(lock.tag)
    except LockMissing:
        target, _ = save_lock(lock)
        console.say(f"lock of {lock.tag} written to {target}")
    else:
        if existing.digest != lock.digest:
            console.warn(f"{lock_path(lock.tag)} is another lock than the bundle's; it was left as it is")
    commits = sum(len(entry.commits) for entry in contents.repositories)
    console.say(
        f"{path.name}: {counted(len(contents.files), 'file')} and {counted(commits, 'commit')} "
        f"of {lock.tag} are in {places.cache}"
    )
    return {"tag": lock.tag, "contents": msgspec.to_builtins(contents)}
