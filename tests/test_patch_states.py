"""The life cycle: every state a patch can be in, on trees small enough to read, and on a real one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from build_recipes.kit.errors import IntentLost, PatchConflict, UnknownTag, UsageError
from build_recipes.kit.paths import Places
from build_recipes.patching import git, grid, intents, series, states, trees
from build_recipes.patching.intents import Verdict

OLD = "".join(f"line {n}\n" for n in range(1, 31))
REAL = Places.from_environment()


def blob(text: str) -> str:
    """git's name for a file's content."""
    return hashlib.sha1(f"blob {len(text)}\0{text}".encode()).hexdigest()


HUNK = f"""\
diff --git a/a.txt b/a.txt
index {blob(OLD)}..{blob(OLD.replace("line 10", "ours"))} 100644
--- a/a.txt
+++ b/a.txt
@@ -7,7 +7,7 @@
 line 7
 line 8
 line 9
-line 10
+ours
 line 11
 line 12
 line 13
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "fix.patch").write_text(HUNK)
    return tmp_path


def attempt(folder: Path, text: str, base: str | None = None) -> tuple[git.Attempt, str]:
    (folder / "tree/a.txt").write_text(text)
    with git.scratch() as scratch:
        scratch.take(folder / "tree", ("a.txt",))
        done = scratch.apply(folder / "fix.patch", lambda: {"a.txt": base.encode()} if base else None)
        return done, (scratch.folder / "a.txt").read_text()


def test_a_patch_applies_wherever_its_lines_are(folder: Path) -> None:
    done, text = attempt(folder, "new first line\n" * 40 + OLD)
    assert done.outcome == "applies"
    assert text == "new first line\n" * 40 + OLD.replace("line 10\n", "ours\n")


def test_a_patch_that_is_there_already_is_seen(folder: Path) -> None:
    done, text = attempt(folder, OLD.replace("line 10\n", "ours\n"))
    assert done.outcome == "already"
    assert text == OLD.replace("line 10\n", "ours\n")


def test_changed_context_needs_the_base_and_then_merges(folder: Path) -> None:
    moved = OLD.replace("line 7\n", "line seven\n")
    assert attempt(folder, moved)[0].outcome == "conflict"
    done, text = attempt(folder, moved, OLD)
    assert done.outcome == "3-way"
    assert text == moved.replace("line 10\n", "ours\n")
    assert not (folder / "tree/.git").exists()


def test_a_conflict_shows_the_hunk_and_the_lines_and_leaves_the_file(folder: Path) -> None:
    theirs = OLD.replace("line 10\n", "theirs\n")
    for base in (None, OLD):
        done, text = attempt(folder, theirs, base)
        assert (done.outcome, text) == ("conflict", theirs)
        assert "a.txt:7" in done.detail and "-line 10" in done.detail and "+ours" in done.detail
        assert "    10 theirs" in done.detail


def test_a_file_that_is_gone_is_a_conflict_that_says_so(folder: Path) -> None:
    with git.scratch() as scratch:
        done = scratch.apply(folder / "fix.patch")
    assert done == git.Attempt("conflict", "a.txt is not in the tree")


# -- cells ----------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A series of one patch for 0.12 whose intent is about a tree called vllm."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "fix.patch").write_text(HUNK)
    (home / "series.toml").write_text(
        'versions = { since = "0.12", before = "0.14" }\n'
        '[[patch]]\nid = "X1"\nsummary = "s"\nreason = "r"\nupstream = []\ndevices = ["thor"]\n'
        'intent = "says-ours"\n[[patch.variant]]\nfile = "fix.patch"\ntree = "vllm"\n'
        'versions = { since = "0.12", before = "0.13" }\nbase = "0.12.0"\n'
        '[[refuse]]\nid = "X2"\nversions = { since = "0.13", before = "0.14" }\ndevices = ["thor"]\n'
        'reason = "it is old"\nfirst_good = "0.14.0"\n'
    )
    return home


def cells(
    monkeypatch: pytest.MonkeyPatch, home: Path, text: str, good: str, version: str
) -> dict[str, states.State]:
    """States by patch, on a vllm tree with one file; the intent is that the file holds ``good``."""
    tree = home.parent / "vllm"
    tree.mkdir(exist_ok=True)
    (tree / "a.txt").write_text(text)

    def says(found: intents.Trees) -> Verdict:
        return Verdict(good in (found["vllm"] / "a.txt").read_text(), "it does not say so")

    monkeypatch.setattr(intents, "intents", lambda: {"says-ours": intents.Intent(says, {"vllm": ("a.txt",)})})
    places = Places(home / "cache", home / "build", home / "wheels")
    monkeypatch.setattr(intents, "_known", {})
    monkeypatch.setattr(trees, "base_files", lambda *_, **__: None)
    before = {path: path.read_bytes() for path in tree.rglob("*")}
    found = {c.patch: c.state for c in states.examine(version, {"vllm": tree}, places, home=home)}
    assert {path: path.read_bytes() for path in tree.rglob("*")} == before
    return found


@pytest.mark.parametrize(
    ("text", "good", "state"),
    [
        (OLD, "ours", "applies"),
        (OLD, "something else", "intent lost"),
        (OLD, "line 3", "upstream"),
        (OLD.replace("line 10\n", "ours\n"), "nothing", "upstream"),
        (OLD.replace("line 10\n", "theirs\n"), "ours", "conflict"),
    ],
)
def test_the_state_of_a_cell(
    monkeypatch: pytest.MonkeyPatch, home: Path, text: str, good: str, state: str
) -> None:
    assert cells(monkeypatch, home, text, good, "0.12.0") == {"X1": state}


def test_a_version_without_variant_is_a_gap_and_a_refusal_is_shown(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert cells(monkeypatch, home, OLD, "ours", "0.13.0") == {"X1": "gap", "X2": "refused"}


def test_cells_that_need_someone_are_an_error() -> None:
    def document(*found: str) -> dict[str, object]:
        return {"cells": [{"version": "0.12.0", "patch": "X1", "state": state} for state in found]}

    grid.judge(document("applies", "3-way", "upstream", "refused", "not here"))
    with pytest.raises(PatchConflict, match=r"X1 on 0\.12\.0"):
        grid.judge(document("gap", "conflict"))
    with pytest.raises(IntentLost):
        grid.judge(document("intent lost"))


def test_what_is_asked_is_one_tag_or_all() -> None:
    for tag, everything in (("", False), ("v0.12.0", True)):
        with pytest.raises(UsageError, match="which versions"):
            grid.run(tag, everything)
    with pytest.raises(UnknownTag, match=r"nearest is 0\.14"):
        grid.run("v0.15.0", False)
    with pytest.raises(UnknownTag):
        grid.run("v1.2.3", False)


def test_every_patch_has_a_variant_or_an_intent_for_every_version_and_every_intent_exists() -> None:
    known = intents.intents()
    for entry in series.load().patch:
        assert entry.intent in known
        assert entry.upstream, entry.id
    assert next(iter(trees.sdists())) == "0.10.2" and list(trees.sdists())[-1] == "0.33.0"
    assert len(trees.sdists()) == 34
    for version in trees.sdists():
        assert series.load().versions.holds(series.parse_version(version))


@pytest.mark.network
def test_the_real_series_on_the_real_0_12_0() -> None:
    """Every patch for Thor applies to vLLM's own 0.12.0, or is upstream, and none conflicts."""
    document = grid.run("v0.12.0", False, device="thor")
    found = {cell["patch"]: cell["state"] for cell in document["cells"]}
    external = {"P5", "P7"}  # also change flash-attention's tree, which is here only where a mirror is
    needless = {"P12"}  # C++23 and GCC 13 came with 0.32; what it sees to holds before
    for name, state in found.items():
        assert state in {
            "not here" if name in external else "",
            "upstream" if name in needless else "applies",
        }, (
            name,
            state,
        )
    assert {"P1", "P2", "P4", "P5", "P7", "P8"} <= set(found)
    grid.judge(document)
