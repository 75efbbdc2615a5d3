"""Which machine code loads where: CUDA's rules, in one place.

The audit, the build, the doctor and everybody else ask here. Source: CUDA C++ Programming Guide, "Binary
Compatibility", "PTX Compatibility" and "Feature Set Compiler Targets"; what is an exception is in
architectures.toml.

* SASS of ``sm_XY`` loads on X.Z for Z >= Y, never on another major; Tegra and desktop do not share it.
* ``f`` (family-specific) SASS loads like plain SASS; its PTX compiles only where its SASS loads.
* ``a`` (architecture-specific) SASS and PTX are for that very capability.
* Plain PTX compiles for its own capability and every later one, Tegra or not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from build_recipes.kit.data import Model, load_toml
from build_recipes.kit.errors import UsageError

Verdict = Literal["native", "jit", "none"]
"""SASS that loads; only PTX that a driver compiles at first use; nothing that runs."""


class _Table(Model, frozen=True):
    tegra: list[int]
    names: dict[str, str]


@functools.cache
def _table() -> _Table:
    return load_toml(Path(__file__).with_name("architectures.toml"), _Table)


class Architecture(NamedTuple):
    """One target of a compiler: ``sm_110f`` is (110, "f"), ``12.1a`` (121, "a"), ``9.0+PTX`` (90, "", True)."""

    number: int
    """Major times ten and minor: 110 for 11.0."""
    suffix: str = ""
    """``a``, ``f`` or empty."""
    ptx: bool = False
    """Whether its PTX is kept beside the SASS."""

    @property
    def dotted(self) -> str:
        """As TORCH_CUDA_ARCH_LIST writes it: ``12.1a``, ``9.0+PTX``."""
        return f"{self.number // 10}.{self.number % 10}{self.suffix}{'+PTX' * self.ptx}"

    def on(self, capability: int) -> Verdict:
        """What code made for this target is on a GPU of a capability."""
        if loads(self.number, self.suffix, capability):
            return "native"
        return "jit" if self.ptx and compiles(self.number, self.suffix, capability) else "none"


def loads(number: int, suffix: str, capability: int) -> bool:
    """Whether SASS for a target loads on a GPU.

    :param number: of the target, 110 for sm_110.
    :param suffix: ``a``, ``f`` or empty.
    :param capability: of the GPU, 110 for 11.0.
    """
    if number == capability:
        return True
    if suffix == "a" or {number, capability} & set(_table().tegra):
        return False
    return number // 10 == capability // 10 and number < capability


def compiles(number: int, suffix: str, capability: int) -> bool:
    """Whether a driver can compile PTX for a target to a GPU; parameters as for `loads`."""
    return loads(number, suffix, capability) if suffix else number <= capability


def loading(capabilities: Iterable[int]) -> set[int]:
    """Numbers of all targets whose SASS loads on any of the GPUs, whatever its suffix."""
    return {
        number
        for capability in capabilities
        for number in range(capability // 10 * 10, capability + 1)
        if loads(number, "", capability)
    }


def best(targets: Iterable[Architecture], capability: int) -> Architecture | None:
    """The target whose SASS a driver takes for a GPU; None where none loads."""
    fitting = [one for one in targets if loads(one.number, one.suffix, capability)]
    return max(fitting, key=lambda one: (one.number, one.suffix), default=None)


def number(capability: str) -> int:
    """``11.0`` as 110."""
    return int(capability.replace(".", ""))


def parse_list(text: str) -> tuple[Architecture, ...]:
    """The targets of a TORCH_CUDA_ARCH_LIST: ``12.1a``, ``8.7;9.0+PTX``, ``Hopper``, also ``sm_90a`` and ``90``.

    :raises UsageError: a word is not an architecture.
    """
    found: list[Architecture] = []
    for word in re.split(r"[ ;,]+", text.strip()):
        if word in _table().names:
            found.extend(parse_list(_table().names[word]))
            continue
        match = re.fullmatch(r"(?:sm_|compute_)?([3-9]|[1-9]\d)\.?(\d)([af]?)(\+PTX)?", word)
        if match is None:
            raise UsageError(
                f"TORCH_CUDA_ARCH_LIST={text}: '{word}' is not an architecture",
                "write one such as 11.0 or 12.1",
            )
        major, minor, suffix, ptx = match.groups()
        found.append(Architecture(int(major + minor), suffix, bool(ptx)))
    return tuple(found)
