"""Distribution packages a build needs: checked first, named with the exact command, installed when asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.console import say, warn
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import MissingPackages
from build_recipes.kit.host import Host


class Need(Model, frozen=True):
    """One row of distro.toml."""

    id: str
    when: str
    """``always``, ``native``, ``cross``, ``wanted`` and ``wanted-cross`` (only installed when asked), ``tests``."""
    why: str
    check: str
    debian: str
    fedora: str
    not_on: tuple[str, ...] = ()
    """Distributions (ID of os-release) that have no such package; there it is not asked for."""


class Needs(Model, frozen=True):
    """distro.toml."""

    need: list[Need]


def missing(host: Host, *, cross: bool, wanted: bool, tests: bool = False) -> list[Need]:
    """What is not installed.

    :param tests: also what the tests need.
    :param wanted: also what only makes things better (a compiler cache, qemu).
    """
    kinds = {"always", "cross" if cross else "native"}
    if tests:
        kinds |= {"native", "tests"}
    if wanted:
        kinds |= {"wanted"} | ({"wanted-cross"} if cross else set())
    rows = load_toml(Path(__file__).with_name("distro.toml"), Needs).need
    family = host.distribution.split()[0]
    return [row for row in rows if row.when in kinds and family not in row.not_on and not _there(row, host)]


def _there(row: Need, host: Host) -> bool:
    check = row.check.format(include=host.python_include)
    return Path(check).exists() if "/" in check else shutil.which(check) is not None


def ensure(host: Host, *, cross: bool, install: bool, tests: bool = False) -> None:
    """Check for the packages of a build, and install what is missing when asked and allowed.

    :raises MissingPackages: something is missing; the message names it and the exact command.
    """
    rows = missing(host, cross=cross, wanted=install or tests, tests=tests)
    if not rows:
        return
    packages, command = _command(host, rows)
    rights = _rights() if install else None
    if not install or not command or rights is None:
        listed = "; ".join(f"{row.id} ({row.why})" for row in rows)
        root = "" if os.geteuid() == 0 else "sudo "
        typed = (
            f"{root}{' '.join(command)}"
            if command
            else f"install {', '.join(packages)} with your package manager"
        )
        also = ", or add --install" if os.geteuid() == 0 and not install else ""
        raise MissingPackages(f"this machine lacks {listed}", f"{typed}{also}")
    for row in rows:
        say(f"installing {row.debian}: {row.why}")
    environment = process.child_environment(DEBIAN_FRONTEND="noninteractive")
    if command[0] == "apt-get":
        process.run([*rights, "apt-get", "update", "-q"], env=environment)
    done = process.run([*rights, *command], env=environment)
    left = missing(host, cross=cross, wanted=False, tests=tests)
    if left:
        raise MissingPackages(
            f"installing {', '.join(packages)} failed:\n" + "\n".join(done.tail[-5:]), " ".join(command)
        )
    if not done.ok:
        warn(
            f"{' '.join(command)} did not end well; the build goes on without {', '.join(row.id for row in rows)}"
        )


def _rights() -> list[str] | None:
    """What to put before a command that installs: nothing for root, sudo where it asks no password, else None."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and process.run(["sudo", "-n", "true"]).ok:
        return ["sudo", "-n"]
    return None


def _command(host: Host, rows: Sequence[Need]) -> tuple[list[str], list[str]]:
    """Package names, and the command that installs them (empty where the distribution is not known)."""
    family = host.distribution.split()[0]
    if family in ("debian", "ubuntu") or shutil.which("apt-get"):
        packages = [row.debian for row in rows]
        return packages, ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if family in ("fedora", "rhel", "rocky", "almalinux"):
        packages = [row.fedora for row in rows]
        return packages, ["dnf", "install", "-y", *packages]
    return [row.debian for row in rows], []
