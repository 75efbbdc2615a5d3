"""What a build promises of its wheel; the audit holds the wheel against it."""

from __future__ import annotations

from dataclasses import dataclass

from build_recipes.facts.device import device
from build_recipes.formats import abi


@dataclass(frozen=True)
class Promise:
    """What a build said its wheel would be."""

    device: str
    modules: tuple[str, ...]
    """Extension modules it should hold, by stem: ``_C``, ``_moe_C``, ``cumem_allocator``."""
    cuda: int = 13
    """Major version of the CUDA libraries."""
    native: tuple[str, ...] = ()
    """Modules, by stem, that must hold SASS for the device (PTX would not do)."""
    left_out: tuple[str, ...] = ()
    """Modules left out on purpose, by stem."""
    torch: str = ""
    """The torch it was built with (``2.11.0``), empty where that is not promised."""
    glibc: tuple[int, int] | None = None
    """Newest glibc it may need; the device's where it is None."""

    @property
    def newest_glibc(self) -> tuple[int, ...]:
        """Newest glibc it may need."""
        return self.glibc or abi.version(device(self.device).glibc)
