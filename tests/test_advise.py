"""Advise: the official wheel where it does, a wheel at hand where not, a build where neither does."""

from __future__ import annotations

from pathlib import Path

import pytest
from wheel_maker import DATA, make_wheel, thor_wheel

from build_recipes.audit import subject
from build_recipes.build.advise import advise
from build_recipes.facts import device as device_table
from build_recipes.kit.errors import NotAWheel, UnknownDevice, UnknownTag, UsageError
from build_recipes.kit.paths import Places

OLD = (DATA / "old.so").read_bytes()


def official(monkeypatch: pytest.MonkeyPatch, wheel: Path | None) -> None:
    """What the index would have given: no network in these tests."""

    def found(version: str, places: Places, machine: str = "aarch64") -> Path:
        if wheel is None:
            raise NotAWheel(f"PyPI has no wheel of vLLM {version} for {machine}", "look there")
        return wheel

    monkeypatch.setattr(subject, "official", found)


def test_the_official_wheel_is_preferred_where_it_runs(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(monkeypatch, make_wheel(tmp_path, {"vllm/_C.abi3.so": OLD}))
    thor_wheel(places.wheels, version="0.12.0+cu130.thor")
    advice = advise("v0.12.0", "thor", places)
    assert advice.take == "official"
    assert advice.say.startswith("use the official wheel")
    assert "compiled by the driver" in advice.say
    assert advice.command == "pip install vllm==0.12.0"
    assert [choice.kind for choice in advice.choices] == ["official", "specialise", "local", "build"]
    assert advice.choices[0].driver == "13.0"
    assert advice.choices[0].first_start_s > 0
    assert advice.choices[3].build_s > 600
    assert advice.choices[1].size > 0 and advice.choices[1].build_s * 100 > 10
    assert "./inv specialise pypi:0.12.0 --device thor" in advice.say


def test_a_wheel_at_hand_comes_before_a_build(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(monkeypatch, None)
    mine = make_wheel(places.wheels, {"vllm/_C.abi3.so": OLD}, version="0.12.0+cu130.thor")
    make_wheel(places.wheels, {"vllm/_C.abi3.so": OLD}, version="0.12.0+cu130.thor.smoke")
    make_wheel(places.wheels, {"vllm/_C.abi3.so": OLD}, version="0.14.0+cu130.thor")
    make_wheel(places.wheels, {"vllm/_C.abi3.so": OLD}, version="0.12.0+cu130.spark")
    advice = advise("v0.12.0", "thor", places)
    assert advice.take == "local"
    assert advice.command == f"pip install {mine}"
    assert mine.name in advice.say
    assert len(advice.choices) == 5  # official, specialised, mine, smoke, build


def test_a_build_is_advised_where_nothing_else_does(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    official(monkeypatch, None)
    advice = advise("v0.12.0", "thor", places)
    assert (advice.take, advice.command) == ("build", "./inv build --tag v0.12.0 --device thor")
    none = advise("v0.10.2", "thor", places)
    assert none.take == "none"
    assert "nothing is known to work" in none.say


def test_a_broken_wheel_at_hand_is_weighed_as_such(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    official(monkeypatch, None)
    (places.wheels / "vllm-0.12.0+x-py3-none-any.whl").write_bytes(b"half")
    advice = advise("v0.12.0", "thor", places)
    assert advice.take == "build"
    assert [one.verdict for one in advice.choices[1:3]] == ["not usable"] * 2


def test_what_cannot_be_advised(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    official(monkeypatch, None)
    with pytest.raises(UnknownDevice):
        advise("v0.12.0", "toaster", places)
    with pytest.raises(UnknownTag):
        advise("main", "thor", places)
    monkeypatch.setattr(device_table, "detect", lambda: None)
    with pytest.raises(UsageError, match="not a supported device"):
        advise("v0.12.0", "", places)
