"""``--only`` and ``--without``: refused by the plan with the tag's own modules, or said not to be known yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from sdists import VERSIONS

from build_recipes.build import selection
from build_recipes.build.plan import make_plan
from build_recipes.build.preview import preview, show
from build_recipes.build.request import Request
from build_recipes.build.stages import trees
from build_recipes.build.survey.walk import asked
from build_recipes.build.units import surveyed
from build_recipes.kit.errors import UnknownDevice, UnknownTag, UsageError
from build_recipes.kit.paths import Places
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import makeup


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_survey_recorded_are_the_modules_of_the_sdist(sdists: Path, version: str) -> None:
    assert selection.modules_of(f"v{version}") == selection.modules_of("", sdists / version)


def plan(places: Places, **words: object) -> object:
    return make_plan(Request(**{"tag": "v0.26.0", "device": "thor", **words}), places)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "word", "meant"),
    [
        ("only", "_C", "_C_stable_libtorch"),
        ("without", "_moe_C", "_moe_C_stable_libtorch"),
        ("only", "vllm._C_stable_libtorch", "_C_stable_libtorch"),
        ("without", "cumem_alocator", "cumem_allocator"),
        ("only", "SpinLoop", "spinloop"),
        ("without", "vllm-rust", "vllm-rs"),
    ],
)
def test_a_module_that_the_tag_lacks_is_refused_by_the_plan(
    places: Places, option: str, word: str, meant: str
) -> None:
    with pytest.raises(
        UsageError, match=rf"v0\.26\.0 has no module {word}; did you mean --{option} {meant}\?"
    ) as caught:
        plan(places, **{option: (word,)})
    assert "v0.26.0 has: _C_stable_libtorch, " in caught.value.advice
    plan(places, **{option: (meant,)})


def test_no_name_is_offered_for_a_word_that_is_like_none(places: Places) -> None:
    with pytest.raises(UsageError, match=r"has no module xyzzy\n"):
        plan(places, only=("xyzzy",))
    assert selection.nearest(".", ["_C"]) == ""


def test_a_choice_that_leaves_nothing_is_refused(places: Places) -> None:
    with pytest.raises(UsageError, match="leave no module to build"):
        plan(places, only=("spinloop",), without=("spinloop",))
    with pytest.raises(UsageError, match="leave no module to build"):
        plan(places, without=selection.modules_of("v0.26.0"))


def test_a_module_of_which_the_device_compiles_nothing_is_said(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    show(preview(make_plan(Request(tag="v0.26.0", device="thor", only=("_vllm_fa3_C",)), places)))
    assert "CMake compiles nothing of _vllm_fa3_C for this device" in capsys.readouterr().err


def test_where_the_modules_are_not_known_the_plan_says_so_and_the_fetched_source_decides(
    places: Places, sdists: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {tag: row for tag, row in surveyed.table().items() if tag != "v0.26.0"}
    monkeypatch.setattr(surveyed, "table", lambda: rows)
    made = make_plan(Request(tag="v0.26.0", device="thor", only=("_C", "spinloop")), places)
    show(preview(made))
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "whether v0.26.0 has _C, spinloop is told once its source is here; v0.25.1 has: _C_stable_libtorch"
        in said
    )
    fetched = Fetched(sdists / "0.26.0", {}, {}, {}, "")
    monkeypatch.setattr(trees, "fetch", lambda *args, **words: fetched)
    with pytest.raises(
        UsageError, match=r"v0\.26\.0 has no module _C; did you mean --only _C_stable_libtorch\?"
    ):
        trees.fetch_sources(made)


def test_a_source_folder_is_asked_itself(places: Places, sdists: Path, tmp_path: Path) -> None:
    names = [module.target for module in makeup(sdists / "0.33.0").modules]
    assert "_deepselect_C" in selection.modules_of("main-abc", sdists / "0.33.0")
    with pytest.raises(
        UsageError, match="main has no module _deep_select_C; did you mean --only _deepselect_C"
    ):
        selection.check(Request(only=("_deep_select_C",)), "main", names)


def test_a_misspelt_tag_or_device_of_a_survey_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownTag, match=r"the nearest are v0\.26\.0"):
        asked("v0.28.0,v0.26", "thor")
    with pytest.raises(UnknownDevice, match="did you mean thor"):
        asked("v0.26.0", "tohr")
