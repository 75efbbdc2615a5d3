"""`./inv adopt`: from what was typed to what is shown, and what a pull request is made of."""

from __future__ import annotations

import json as jsons
import shutil
from dataclasses import asdict
from pathlib import Path

from build_recipes.kit import console, paths, process
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import UsageError
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places
from build_recipes.nightly.adopt import report
from build_recipes.nightly.adopt.adopt import Adoption, Asked
from build_recipes.nightly.adopt.adopt import adopt as adopt_one
from build_recipes.nightly.adopt.adopt import newest as newest_tags

CHANGES = "changes.json"


def adopt(tag: str, *, newest: bool, device: str, mirrors: tuple[str, ...], json: bool) -> None:
    """Adopt a tag, or every newer one, and leave what changed in ``wheels/adopted``, for a pull request.

    :raises UsageError: neither was asked for, or both; or this is no checkout.
    """
    if bool(tag) == newest:
        raise UsageError("adopt takes --tag vX or --newest", "./inv adopt --newest")
    if not paths.CHECKOUT:
        raise UsageError(
            "what adopt writes belongs into a checkout of the project", "git clone it, then ./inv adopt"
        )
    places = Places.from_environment()
    names = tuple(word for word in device.split(",") if word)
    before = _status()
    done = [adopt_one(Asked(one, mirrors, names), places) for one in ([tag] if tag else newest_tags())]
    folder = places.wheels / "adopted"
    changed = keep_changes(done, sorted(_status() - before), folder)
    if json:
        console.emit_json({"adopted": [asdict(one) for one in done], "changed": changed})
        return
    if not done:
        console.say("every final release on the index has a lock here")
    for one in done:
        console.table(
            f"{one.tag}: what needs a person", ["", ""], [[str(n), t] for n, t in enumerate(one.person, 1)]
        )
    console.say(
        f"{len(changed)} files changed: git diff; a pull request of it: ./inv propose --changes {folder}"
    )


def _status() -> set[str]:
    """Files of the checkout that are not as they were committed."""
    safe = f"safe.directory={paths.PROJECT}"
    said = process.capture(
        [
            "git",
            "-c",
            safe,
            "-C",
            paths.PROJECT,
            "status",
            "--porcelain",
            "-z",
            "--untracked-files=all",
            "--no-renames",
        ]
    )
    return {row.lstrip()[1:].strip() if row[:1] == " " else row[3:] for row in said.split("\0") if row}


def keep_changes(done: list[Adoption], changed: list[str], folder: Path) -> list[str]:
    """Put what changed into a folder: a document, and the files as they are now."""
    remove_tree(folder)
    if not done:
        return []
    for name in changed:
        path = paths.PROJECT / name
        if path.is_file():
            (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / "files" / name)
    tags = [one.tag for one in done]
    document = {
        "branch": f"adopt-{tags[-1]}",
        "title": f"vLLM {', '.join(tags)} can be built",
        "body": "\n\n".join(report.page(one) for one in done),
        "files": changed,
    }
    write_atomic(folder / CHANGES, jsons.dumps(document, indent=1) + "\n")
    return changed
