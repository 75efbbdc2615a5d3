"""`./inv adopt`: from what was typed to what is shown, and what a pull request is made of."""

from __future__ import annotations

import json as jsons
import shutil
from dataclasses import asdict
from pathlib import Path

from build_recipes.kit import console, paths, process
from build_recipes.kit.console import counted
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import UsageError
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places
from build_recipes.nightly.adopt import report
from build_recipes.nightly.adopt.adopt import Adoption, Asked, look_ahead
from build_recipes.nightly.adopt.adopt import adopt as adopt_one
from build_recipes.nightly.adopt.adopt import newest as newest_tags
from build_recipes.sources.own import is_release

CHANGES = "changes.json"
WRITES = ("build_recipes/locks/", "build_recipes/facts/vllm.toml", "build_recipes/build/units/surveyed.json.xz",
          "build_recipes/verify/judge/matrix.toml", "docs/adopted/", "docs/survey.json", "docs/survey.md")  # fmt: skip
"""Where an adoption writes, below the checkout; nothing else is proposed."""


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
    if tag and not is_release(tag):
        found = look_ahead(Asked(tag, mirrors), places)
        if json:
            console.emit_json(asdict(found))
        else:
            console.say(report.page(found))
        return
    done = [adopt_one(Asked(one, mirrors, names), places) for one in ([tag] if tag else newest_tags())]
    folder = places.wheels / "adopted"
    changed = keep_changes(done, _changed(), folder)
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
        f"{counted(len(changed), 'file')} changed: git diff; a pull request of it: ./inv propose --changes {folder}"
    )


def _changed() -> list[str]:
    """Files of the checkout, of those that an adoption writes, that are not as they were committed."""
    git: list[str | Path] = ["git", "-c", f"safe.directory={paths.PROJECT}", "-C", paths.PROJECT]
    said = process.capture([*git, "diff", "--name-only", "-z", "HEAD", "--", *WRITES])
    new = process.capture([*git, "ls-files", "--others", "--exclude-standard", "-z", "--", *WRITES])
    return sorted({name for name in (said + "\0" + new).split("\0") if name})


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
