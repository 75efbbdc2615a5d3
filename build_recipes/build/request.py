"""What a user typed, before anything is decided."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from build_recipes.kit.errors import UsageError
from build_recipes.kit.options import comma_separated, option


def without_places(facts: Mapping[str, object]) -> dict[str, object]:
    """A request or a plan as plain data, less what it says of this machine's folders."""
    told = {key: value for key, value in facts.items() if key != "tree"}
    if "mirrors" in told:
        told["mirrors"] = [text.partition("=")[0] for text in facts["mirrors"]]  # type: ignore[attr-defined]
    if told.get("source") not in (None, "sdist", "git"):
        told["source"] = "folder"
    for key in ("cuda", "sysroot"):
        if told.get(key) not in (None, "", "wheels"):
            told[key] = "given"
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
        raise UsageError(f"{option} {text[:40]} is not a duration", "write 9m, 5h30m, 45s or 30d")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(days * 86400 + hours * 3600 + minutes * 60 + seconds)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user typed, validated only for its form. `plan`, `build` and others have its fields as options."""

    tag: str = option(
        "", "vLLM release tag, such as v0.12.0; or main, a commit, a candidate (pinned by ./inv lock)"
    )
    device: str = option(
        "", "thor, orin, spark, gh200, gb200, gb300, h200 (default: this machine, else thor)"
    )
    source: str = option("sdist", "vLLM from PyPI's sdist, from git, or a folder (sdist | git | DIR)")
    mirrors: tuple[str, ...] = option(
        (),
        "URL=DIR: a local repository stands in for URL (repeatable; also [mirrors] in armory.toml)",
        name="mirror",
    )
    offline: bool = option(False, "use no network: everything comes from the cache")
    torch: str = option("", "torch to build against: a version of the lock, 'existing', or existing:PYTHON")
    cuda: str = option(
        "",
        "CUDA toolkit: a folder, or 'wheels' to assemble one from PyPI (default: CUDA_HOME, system, wheels)",
    )
    sysroot: str = option(
        "", "cross builds: a folder with the C library of an older release, which the wheel is bound to"
    )
    only: tuple[str, ...] = option(
        (),
        "extension modules to build, comma separated (a wrong name is answered with the names of the tag)",
        read=comma_separated,
    )
    without: tuple[str, ...] = option(
        (), "extension modules to leave out, comma separated", read=comma_separated
    )
    smoke: bool = option(
        False, "the whole way on real sources in minutes; the wheel is marked and not for use"
    )
    build_type: str = option("Release", "CMake build type (Release, RelWithDebInfo, Debug, MinSizeRel)")
    jobs: int = option(0, "units at once (0: one per core; memory decides below that)")
    time_box: float = option(
        0.0,
        "stop at a checkpoint after this long, such as 9m or 5h30m; the same command goes on",
        read=parse_duration,
    )
    """Seconds; 0 means no box."""
    allow: tuple[str, ...] = option((), "accept an audit finding by its id (repeatable)")
    cache: str = option("auto", "compiler cache: auto, ccache, sccache or off")


def request_as_dict(request: Request) -> dict[str, object]:
    """A request as plain data."""
    return dataclasses.asdict(request)


CONTENT = ("tag", "device", "source", "torch", "cuda", "only", "without", "smoke", "build_type")
"""Of a request: what decides the wheel's content. The others say how it is built."""


def content_of(request: Request) -> dict[str, object]:
    """The part of a request that decides what is in the wheel."""
    return {key: value for key, value in request_as_dict(request).items() if key in CONTENT}
