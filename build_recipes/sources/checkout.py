"""vLLM's main branch as a source tree, pinned to a commit."""

from __future__ import annotations

import re
from pathlib import Path

from build_recipes.facts import versions
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import UsageError
from build_recipes.kit.once import replaced
from build_recipes.kit.paths import Places
from build_recipes.sources.library import Library
from build_recipes.sources.mirrors import configured_mirrors
from build_recipes.sources.repository import export_tree

SEAL = ".vllm-armory-commit"


def checkout(ref: str, to: str, places: Places, *, offline: bool = False) -> dict[str, str]:
    """Bring vLLM at a branch, tag or commit into a folder. Does nothing where it is there already.

    :returns: ``ref``, ``commit`` and ``folder``.
    :raises UsageError: the folder holds something else.
    :raises RevisionMissing: there is no such branch, tag or commit.
    :raises NetworkError: the host does not answer.
    """
    if not ref or not to:
        raise UsageError(
            "./inv tree needs a revision and a folder", "./inv tree --ref main --to build/vllm-main"
        )
    into = Path(to).resolve()
    if into.exists() and not (into / SEAL).is_file() and any(into.iterdir()):
        raise UsageError(f"{into} holds something that is not ours", "name another folder with --to")
    url = versions.facts().repository
    library = Library(places.git, configured_mirrors(), offline)
    commit = library.resolve(url, ref)
    if (into / SEAL).is_file() and (into / SEAL).read_text().strip() == commit:
        return {"ref": ref, "commit": commit, "folder": str(into)}
    named = "" if re.fullmatch(r"[0-9a-f]{40}", ref) else ref
    repository = library.with_commit(url, commit, named)

    def fill(beside: Path) -> Path:
        export_tree([("", repository, commit, "")], beside / "vllm")
        write_atomic(beside / "vllm" / SEAL, commit + "\n")
        return beside / "vllm"

    replaced(into, fill)
    return {"ref": ref, "commit": commit, "folder": str(into)}
