"""The build requirements of a vLLM tree."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from build_recipes.kit.errors import BadData


def build_requirements(root: Path, path: str) -> tuple[list[str], str]:
    """The build requirements of a tree without torch, and the torch version they pin (or an empty text).

    :param path: requirements file, relative to ``root``.
    """
    file = root / path
    if not file.is_file():
        raise BadData(
            f"{path} is not in this tree",
            "correct `requirements` of the range in build_recipes/facts/vllm.toml",
        )
    wanted, torch = [], ""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text or text.startswith("-"):
            continue
        try:
            requirement = Requirement(text)
        except (InvalidRequirement, RecursionError) as error:
            raise BadData(f"{path}: '{text}' is not a requirement: {error}", "read the file") from error
        if canonicalize_name(requirement.name) == "torch":
            torch = next((s.version for s in requirement.specifier if s.operator == "=="), "")
        else:
            wanted.append(text)
    return wanted, torch
