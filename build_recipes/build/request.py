"""What a user typed, before anything is decided."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from build_recipes.kit.errors import UsageError


@dataclass(frozen=True)
class Request:
    """What a user typed, validated only for its form."""

    tag: str
    device: str = ""
    """Empty: the machine this runs on, else thor."""
    source: str = "sdist"
    """``sdist``, ``git`` or a folder."""
    mirrors: tuple[str, ...] = ()
    """``URL=DIR`` each."""
    offline: bool = False
    torch: str = ""
    """A version, ``existing``, ``existing:PYTHON``, or empty for the recipe's choice."""
    cuda: str = ""
    """A toolkit's folder, ``wheels``, or empty for the first that fits."""
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    smoke: bool = False
    build_type: str = "Release"
    jobs: int = 0
    """Units at once; 0 means as many as cores."""
    time_box: float = 0
    """Seconds after which the build stops at a checkpoint; 0 means never."""
    allow: tuple[str, ...] = ()
    """Audit findings that are accepted."""
    cache: str = "auto"
    """Compiler cache: ``auto``, ``ccache``, ``sccache`` or ``off``."""


def request_as_dict(request: Request) -> dict[str, object]:
    """A request as plain data."""
    return dataclasses.asdict(request)


CONTENT = ("tag", "device", "source", "torch", "cuda", "only", "without", "smoke", "build_type")
"""Of a request: what decides the wheel's content. The others say how it is built."""


def content_of(request: Request) -> dict[str, object]:
    """The part of a request that decides what is in the wheel."""
    return {key: value for key, value in request_as_dict(request).items() if key in CONTENT}


def without_places(facts: Mapping[str, object]) -> dict[str, object]:
    """A request or a plan as plain data, less what it says of this machine's folders."""
    told = {key: value for key, value in facts.items() if key != "tree"}
    if "mirrors" in told:
        told["mirrors"] = [text.partition("=")[0] for text in facts["mirrors"]]  # type: ignore[attr-defined]
    if told.get("source") not in (None, "sdist", "git"):
        told["source"] = "folder"
    if told.get("cuda") not in (None, "", "wheels"):
        told["cuda"] = "given"
    torch = told.get("torch")
    if isinstance(torch, str) and torch.startswith("existing"):
        told["torch"] = "existing"
    if isinstance(torch, Mapping):  # of a plan
        told["torch"] = {**torch, "version": str(torch["version"]).partition(":")[0]}
    return told


def parse_duration(text: str, option: str = "--time-box") -> float:
    """Seconds of ``30d``, ``9m``, ``5h30m``, ``90`` (seconds); 0 for an empty text.

    :raises UsageError: it is none.
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s?)?", text)
    if not match or not any(match.groups()):
        raise UsageError(f"{option} {text[:40]} is no duration", "write 9m, 5h30m, 45s or 30d")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(days * 86400 + hours * 3600 + minutes * 60 + seconds)
