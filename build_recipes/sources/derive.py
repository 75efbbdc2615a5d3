"""What a vLLM tree asks for, read from its own files: the facts that vllm.toml keeps for a range of versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
from packaging.version import Version

from build_recipes.facts.versions import VersionFacts
from build_recipes.kit.data import parse_toml
from build_recipes.kit.errors import BadData
from build_recipes.sources.requirements import build_requirements

REQUIREMENTS = ("requirements/build/cuda.txt", "requirements/build.txt", "requirements-build.txt")
"""Where the build requirements for CUDA have been, the newest first."""


@dataclass(frozen=True)
class Derived:
    """What a tree says. An empty text is what it does not say."""

    torch: str
    """The torch that its build requirements pin."""
    nvcc_main: str
    """CUDA of the official wheels (VLLM_MAIN_CUDA_VERSION of envs.py)."""
    python: tuple[tuple[int, int], tuple[int, int]] | None
    """First and last of CMakeLists.txt's PYTHON_SUPPORTED_VERSIONS."""
    requirements: str
    """Its build requirements for CUDA, relative to the tree."""
    cxx: int
    """CMAKE_CXX_STANDARD; 17, which its flags then ask for, where CMakeLists.txt does not set it."""
    gcc: str
    """The newest GCC that CMakeLists.txt compares its compiler with."""
    rust: str
    """Channel of rust-toolchain.toml."""


def derive(tree: Path) -> Derived:
    """Read a tree's own files.

    :raises BadData: it is no tree of vLLM: no CMakeLists.txt, or no build requirements where they have ever been.
    """
    cmake = _text(tree / "CMakeLists.txt")
    requirements = next((name for name in REQUIREMENTS if (tree / name).is_file()), "")
    if not cmake or not requirements:
        raise BadData(
            f"{tree} has no {'CMakeLists.txt' if not cmake else 'build requirements'}",
            "give a source tree of vLLM, or name where its build requirements are in sources/derive.py",
        )
    plain = re.sub(r"(?m)#.*$", "", cmake)
    supported = re.search(r"set\(\s*PYTHON_SUPPORTED_VERSIONS([^)]*)\)", plain)
    versions = [_two(word) for word in re.findall(r"\b\d{1,4}\.\d{1,4}", supported[1])] if supported else []
    standards = re.findall(r"set\(\s*CMAKE_CXX_STANDARD\s+(\d{1,4})\s*\)", plain)
    compared = re.findall(r'CMAKE_CXX_COMPILER_VERSION\s+VERSION_LESS\s+"?(\d{1,9}(?:\.\d{1,9})*)', plain)
    main = re.search(
        r"VLLM_MAIN_CUDA_VERSION\"?\s*[:,].{0,200}?\bor\s+\"([\d.]+)\"", _text(tree / "vllm/envs.py"), re.S
    )
    return Derived(
        torch=build_requirements(tree, requirements)[1],
        nvcc_main=main[1] if main else "",
        python=(min(versions), max(versions)) if versions else None,
        requirements=requirements,
        cxx=int(standards[-1]) if standards else 17,
        gcc=max(compared, key=Version, default=""),
        rust=_channel(tree / "rust-toolchain.toml"),
    )


def differs(found: Derived, known: VersionFacts) -> dict[str, tuple[object, object]]:
    """Facts of which a tree says something else than vllm.toml: name to what that has, and what the tree says."""
    there = {name: getattr(known, name) for name in Derived.__dataclass_fields__}
    said = {name: getattr(found, name) for name in Derived.__dataclass_fields__}
    return {
        name: (there[name], value)
        for name, value in said.items()
        if value not in ("", None)
        and value != there[name]
        # what only some modules need is in gcc_of, and a check that is patched away asks nobody
        and not (name == "gcc" and Version(str(value)) <= Version(known.oldest_gcc()[0]))
    }


def new_range(text: str, version: str, found: Derived, known: VersionFacts) -> str:
    """vllm.toml with a range of its own for a version, which begins where the last one, an open one, ends.

    What a tree does not say (torch's index, other torches, refused devices) is taken over from that range.
    """
    head, mark, last = text.rpartition("[[ranges]]")
    since = re.search(r'^since = "[^"]*"\n', last, re.M)
    if not mark or not since or re.search(r"^before = ", last, re.M):
        raise BadData("the last range of vllm.toml is not an open one", "add the range by hand")
    last = last.replace(since[0], f'{since[0]}before = "{version}"\n', 1)
    keys: dict[str, object] = msgspec.to_builtins(known) | {
        name: value
        for name in Derived.__dataclass_fields__
        if (value := getattr(found, name)) not in ("", None)
    }
    keys |= {"since": version, "before": ""}
    lines = [f"{name} = {_toml(value)}" for name, value in keys.items() if value not in ("", {}, None)]
    return f"{head}{mark}{last.rstrip()}\n\n[[ranges]]\n" + "\n".join(lines) + "\n"


def new_release(text: str, version: str) -> str:
    """vllm.toml with a version added to its list of releases; the same text where it is there."""
    match = re.search(r"^releases = \[\n(.*?)^\]\n", text, re.M | re.S)
    if match is None:
        raise BadData("vllm.toml has no list of releases", "restore it with git")
    known = re.findall(r'"([^"]+)"', match[1])
    if version in known:
        return text
    names = [f'"{name}",' for name in sorted([*known, version], key=Version)]
    rows = [" ".join(names[at : at + 10]) for at in range(0, len(names), 10)]
    return text[: match.start(1)] + "".join(f"  {row}\n" for row in rows) + text[match.end(1) :]


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'


def _two(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _channel(path: Path) -> str:
    try:
        return str(parse_toml(_text(path))["toolchain"]["channel"])
    except (KeyError, TypeError, ValueError):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
