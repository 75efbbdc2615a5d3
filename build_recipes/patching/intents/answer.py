"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """An answer with its reason."""

    holds: bool | None
    """None where it cannot be told."""
    why: str = ""
    """What was seen, for a No or a None."""

    @classmethod
    def of(cls, *faults: str) -> Verdict:
        """Yes where nothing is at fault; else No, with all of it."""
        return cls(False, "; ".join(faults)) if faults else cls(True)
