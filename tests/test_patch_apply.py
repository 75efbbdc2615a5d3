"""Applying a series: all or nothing, twice is once, strangers' changes are seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_recipes.build.stages.patch import apply_series
from build_recipes.facts.device import device
from build_recipes.kit.errors import (
    BadData,
    IntentLost,
    PatchConflict,
    TreeModified,
    UnsupportedPair,
    UsageError,
)
from build_recipes.patching import journal
from build_recipes.patching.series import load, selected

THOR = device("thor")
OLD = "".join(f"line {n}\n" for n in range(1, 21))
PATCH = """\
diff --git a/{name} b/{name}
--- a/{name}
+++ b/{name}
@@ -{at},7 +{at},7 @@
 line {at}
 line {b}
 line {c}
-line {d}
+{new}
 line {e}
 line {f}
 line {g}
"""


def a_patch(name: str, at: int, new: str) -> str:
    return PATCH.format(name=name, at=at, b=at + 1, c=at + 2, d=at + 3, e=at + 4, f=at + 5, g=at + 6, new=new)


def a_series(home: Path, *entries: tuple[str, str, str], extra: str = "") -> Path:
    """A series of patches (id, tree, text); its intent needs a tree that is not there."""
    home.mkdir()
    toml = ['[versions]\nsince = "0.12"\nbefore = "0.13"\n']
    for name, tree, text in entries:
        (home / f"{name}-{tree}.patch").write_text(text)
        toml.append(
            f'[[patch]]\nid = "{name}"\nsummary = "s"\nreason = "r"\nupstream = []\ndevices = ["thor"]\n'
            f'intent = "detects-jetson"\n[[patch.variant]]\nfile = "{name}-{tree}.patch"\ntree = "{tree}"\n'
            'versions = { since = "0.12", before = "0.13" }\nbase = "0.12.0"\n'
        )
    toml.append(extra or "refuse = []\n")
    (home / "series.toml").write_text("\n".join([toml[-1], *toml[:-1]]))
    return home


@pytest.fixture
def trees(tmp_path: Path) -> dict[str, Path]:
    for name in ("one", "two"):
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "src/a.txt").write_text(OLD)
        (tmp_path / name / "src/a.txt").chmod(0o755)
    return {name: tmp_path / name for name in ("one", "two")}


def content(trees: dict[str, Path]) -> dict[str, str]:
    return {
        f"{name}/{path.relative_to(tree)}": path.read_text()
        for name, tree in trees.items()
        for path in sorted(tree.parent.rglob("*"))
        if path.is_file() and path.is_relative_to(tree)
    }


def test_two_patches_of_one_file_apply_in_order_and_twice_is_once(
    tmp_path: Path, trees: dict[str, Path]
) -> None:
    home = a_series(
        tmp_path / "home",
        ("A", "one", a_patch("src/a.txt", 2, "ours")),
        ("B", "one", a_patch("src/a.txt", 12, "ours too")),
        ("C", "two", a_patch("src/a.txt", 2, "elsewhere")),
    )
    first = apply_series(trees, "v0.12.0", THOR, home=home)
    after = content(trees)
    stamps = [path.stat().st_mtime_ns for tree in trees.values() for path in tree.rglob("*")]
    assert "ours\n" in after["one/src/a.txt"] and "ours too\n" in after["one/src/a.txt"]
    assert [entry.id for entry in first.applied] == ["A", "B", "C"]
    assert first.applied[2].files == ("two/src/a.txt",)
    assert (trees["one"] / "src/a.txt").stat().st_mode & 0o777 == 0o755
    assert apply_series(trees, "v0.12.0", THOR, home=home) == first
    assert content(trees) == after
    assert [path.stat().st_mtime_ns for tree in trees.values() for path in tree.rglob("*")] == stamps


def test_a_conflict_in_the_second_tree_leaves_both_as_they_were(
    tmp_path: Path, trees: dict[str, Path]
) -> None:
    home = a_series(
        tmp_path / "home",
        ("A", "one", a_patch("src/a.txt", 2, "ours")),
        ("B", "two", a_patch("src/a.txt", 2, "ours")),
    )
    (trees["two"] / "src/a.txt").write_text(OLD.replace("line 5\n", "line V\n"))
    before = content(trees)
    with pytest.raises(PatchConflict) as caught:
        apply_series(trees, "0.12.0", THOR, home=home)
    assert content(trees) == before
    assert not list(tmp_path.glob(".*armory-patches.json"))
    text = str(caught.value)
    assert "src/a.txt:2" in text and "-line 5" in text and "     5 line V" in text
    assert "./inv patches --tag v0.12.0" in text


def test_a_patch_left_out_is_taken_off_again(tmp_path: Path, trees: dict[str, Path]) -> None:
    home = a_series(
        tmp_path / "home",
        ("A", "one", a_patch("src/a.txt", 2, "ours")),
        ("B", "one", a_patch("src/a.txt", 12, "ours too")),
    )
    apply_series(trees, "0.12.0", THOR, home=home)
    apply_series(trees, "0.12.0", THOR, without=["A"], home=home)
    assert (trees["one"] / "src/a.txt").read_text() == OLD.replace("line 15\n", "ours too\n")
    apply_series(trees, "0.12.0", THOR, without=["A", "B"], home=home)
    assert (trees["one"] / "src/a.txt").read_text() == OLD
    with pytest.raises(UsageError, match="no patch is called 'Z'"):
        apply_series(trees, "0.12.0", THOR, without=["Z"], home=home)


def test_changes_of_others_are_refused_and_kept(tmp_path: Path, trees: dict[str, Path]) -> None:
    home = a_series(tmp_path / "home", ("A", "one", a_patch("src/a.txt", 2, "ours")))
    apply_series(trees, "0.12.0", THOR, home=home)
    file = trees["one"] / "src/a.txt"
    file.write_text(file.read_text() + "mine\n")
    before = content(trees)
    with pytest.raises(TreeModified, match=r"src/a\.txt"):
        apply_series(trees, "0.12.0", THOR, home=home)
    assert content(trees) == before


def test_a_run_that_was_killed_while_writing_is_mended_by_the_next(
    tmp_path: Path, trees: dict[str, Path]
) -> None:
    home = a_series(
        tmp_path / "home",
        ("A", "one", a_patch("src/a.txt", 2, "ours")),
        ("B", "two", a_patch("src/a.txt", 2, "ours")),
    )
    done = apply_series(trees, "0.12.0", THOR, home=home)
    after = content(trees)
    kept = journal.read(trees["two"])
    assert kept is not None
    journal.write(
        trees["two"],
        journal.Journal(status="applying", digest=kept.digest, patches=kept.patches, changes=kept.changes),
    )
    (trees["two"] / "src/a.txt").write_text(OLD)
    assert apply_series(trees, "0.12.0", THOR, home=home) == done
    assert content(trees) == after


def test_a_damaged_patch_file_is_an_error_of_its_own(tmp_path: Path, trees: dict[str, Path]) -> None:
    whole = a_patch("src/a.txt", 2, "ours")
    home = a_series(tmp_path / "home", ("A", "one", whole[: len(whole) // 2]))
    with pytest.raises(BadData, match="not a whole patch"):
        apply_series(trees, "0.12.0", THOR, home=home)
    assert (trees["one"] / "src/a.txt").read_text() == OLD


def test_overlapping_variants_unknown_keys_and_unknown_devices_are_refused(tmp_path: Path) -> None:
    home = a_series(tmp_path / "a", ("A", "one", a_patch("f", 2, "x")))
    text = (home / "series.toml").read_text()
    (home / "series.toml").write_text(
        text + '[[patch.variant]]\nfile = "A-one.patch"\ntree = "one"\n'
        'versions = { since = "0.12.5", before = "0.14" }\nbase = "x"\n'
    )
    with pytest.raises(BadData, match="two variants of A claim the same versions of one"):
        load(home)
    (home / "series.toml").write_text(text.replace('summary = "s"', 'sumary = "s"'))
    with pytest.raises(BadData, match="sumary"):
        load(home)
    (home / "series.toml").write_text(text.replace('["thor"]', '["thro"]'))
    with pytest.raises(BadData, match="do not exist: thro"):
        load(home)
    (home / "series.toml").write_text(text.replace("A-one.patch", "B.patch"))
    with pytest.raises(BadData, match="which is not there"):
        load(home)


def test_the_real_series_is_selected_without_a_tree() -> None:
    assert [entry.patch.id for entry in selected("v0.12.0", THOR)][:2] == ["P1", "P2"]
    assert "P5" not in [entry.patch.id for entry in selected("v0.12.0", device("gh200"))]
    assert len({entry.sha256 for entry in selected("v0.12.0", THOR)}) > 1
    with pytest.raises(UnsupportedPair, match=r"v0\.11\.1 or newer") as caught:
        selected("0.11.0", THOR)
    assert "11.0" in str(caught.value)
    for version in ("0.9.2", "0.99.0"):
        with pytest.raises(UnsupportedPair, match="no patch series"):
            selected(version, THOR)
    with pytest.raises(UsageError):
        selected("main", THOR)


def test_a_patch_that_comes_later_leaves_the_other_files_time_stamps(
    tmp_path: Path, trees: dict[str, Path]
) -> None:
    (trees["one"] / "src/b.txt").write_text(OLD)
    home = a_series(
        tmp_path / "home",
        ("A", "one", a_patch("src/a.txt", 2, "ours")),
        ("B", "one", a_patch("src/b.txt", 2, "ours")),
    )
    apply_series(trees, "0.12.0", THOR, without=["B"], home=home)
    before = (trees["one"] / "src/a.txt").stat().st_mtime_ns
    apply_series(trees, "0.12.0", THOR, home=home)
    assert (trees["one"] / "src/b.txt").read_text() != OLD
    assert (trees["one"] / "src/a.txt").stat().st_mtime_ns == before


def test_a_lost_intent_restores_what_stood_before(tmp_path: Path) -> None:
    tree = tmp_path / "vllm"
    (tree / "src").mkdir(parents=True)
    (tree / "src/a.txt").write_text(OLD)
    home = a_series(tmp_path / "home", ("A", "vllm", a_patch("src/a.txt", 2, "ours")))
    with pytest.raises(IntentLost, match="A applied, but"):
        apply_series({"vllm": tree}, "0.12.0", THOR, home=home)
    assert (tree / "src/a.txt").read_text() == OLD
    assert not journal.place(tree).exists()
