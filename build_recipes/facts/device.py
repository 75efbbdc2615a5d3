"""The machines we build for, and which of them this is.

A device is data (``devices.toml``); code never branches on a device's name. Detection reads files below a
given root, so that a snapshot of a board can stand in for the board.
"""

from __future__ import annotations

import difflib
import functools
import platform
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from build_recipes.facts import architectures
from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import ArchitectureMismatch, UnknownDevice


class Device(Model, frozen=True):
    """One row of devices.toml."""

    aliases: list[str]
    """Other names it goes by, lower case with hyphens."""
    title: str
    """What people call the machine."""
    capability: str
    """CUDA compute capability, ``major.minor``."""
    arch_list: str
    """What TORCH_CUDA_ARCH_LIST is set to: one plain architecture, no suffix, no ``+PTX``."""
    machine: str
    """``uname -m`` of the host CPU."""
    cpu: str
    """The host CPU, for people."""
    cuda: str
    """Range of CUDA toolkits (PEP 440 specifier) whose code can run here."""
    driver: str
    """Least driver branch for that CUDA."""
    platform_tag: str
    """Newest manylinux tag the device's distribution satisfies."""
    glibc: str
    """glibc of the device's distribution."""
    memory_kind: str
    """``unified`` (the GPU shares the host's memory) or ``discrete``."""
    memory_gib: list[int]
    """Sizes sold, GiB."""
    jetpack: str
    """Range of JetPack releases, empty where there is none."""
    compatible: list[str]
    """Device-tree ``compatible`` strings that identify the board's SoC."""
    gpu: str
    """Word in the driver's GPU model name that identifies the machine; empty where `compatible` does."""
    note: str
    """One thing worth knowing."""

    @property
    def tegra(self) -> bool:
        """Whether this is a Jetson."""
        return bool(self.compatible)

    @property
    def number(self) -> int:
        """Its capability as a number: 110 for 11.0."""
        return architectures.number(self.capability)

    def check_arch(self, wanted: str) -> None:
        """Refuse a TORCH_CUDA_ARCH_LIST of which no code starts on this device.

        A build sets the device's own `arch_list`; one that is set already must not mean another machine.

        :raises ArchitectureMismatch: with the reason.
        :raises UsageError: a word of it is not an architecture.
        """
        if any(target.on(self.number) == "native" for target in architectures.parse_list(wanted)):
            return
        raise ArchitectureMismatch(
            f"TORCH_CUDA_ARCH_LIST={wanted} contradicts the device: no machine code for {wanted} loads on "
            f"{self.title}, whose capability is {self.capability}. {self.note}".rstrip(),
            f"leave it out, or set TORCH_CUDA_ARCH_LIST={self.arch_list}",
        )


@functools.cache
def devices() -> dict[str, Device]:
    """All devices by name, as devices.toml has them."""
    return load_toml(Path(__file__).with_name("devices.toml"), dict[str, Device])


def canonical(name: str) -> str:
    """The name in devices.toml of the device that is called ``name``: ``spark`` of ``GB10`` or ``dgx_spark``.

    :raises UnknownDevice: no such device; the nearest names are given.
    """
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    known = _names()
    if plain in known:
        return known[plain]
    near = difflib.get_close_matches(plain, known, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise UnknownDevice(
        f"no device is called '{name}'{guess}",
        f"use one of: --device {' | '.join(devices())} (./inv devices)",
    )


@functools.cache
def _names() -> dict[str, str]:
    found = {alias: name for name, entry in devices().items() for alias in entry.aliases}
    return found | {name: name for name in devices()}


def device(name: str) -> Device:
    """The device called ``name``, or by one of its aliases.

    :raises UnknownDevice: no such device; the nearest names are given.
    """
    return devices()[canonical(name)]


def as_dict(entry: Device) -> dict[str, object]:
    """A device as plain data, for ``--json``."""
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


def detect(root: Path = Path("/"), machine: str | None = None) -> str | None:
    """The name of the device this machine is, or None where it cannot be told.

    Reads ``proc/device-tree/compatible`` (Jetson) and ``proc/driver/nvidia/gpus/*/information`` (others)
    below ``root``. Never guesses: an unknown GPU is None.

    :param machine: ``uname -m``; this machine's where it is not given.
    """
    machine = machine or platform.machine()
    try:
        compatible = (
            (root / "proc/device-tree/compatible").read_bytes().decode("ascii", "replace").split("\0")
        )
    except OSError:
        compatible = []
    return told_by(compatible, _gpu_models(root), machine)


def told_by(compatible: Collection[str], models: Iterable[str], machine: str) -> str | None:
    """The name of the device that a machine's own files tell of, or None.

    :param compatible: entries of its device tree's ``compatible``.
    :param models: ``Model`` of each GPU, as the driver says it.
    :param machine: ``uname -m``.
    """
    for name, entry in devices().items():
        if any(text in compatible for text in entry.compatible):
            return name
    said = " ".join(models)
    for name, entry in devices().items():
        if entry.gpu and entry.machine == machine and re.search(rf"\b{re.escape(entry.gpu)}\b", said):
            return name
    return None


def _gpu_models(root: Path) -> list[str]:
    found = []
    for information in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        try:
            text = information.read_text(errors="replace")
        except OSError:
            continue
        found += re.findall(r"^Model:\s*(.+)$", text, re.MULTILINE)
    return found
