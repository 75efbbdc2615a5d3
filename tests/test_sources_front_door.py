"""`invoke lock` and `invoke mirror` as a user types them: exit codes, next steps, JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from invoke.program import Program

import tasks
from build_recipes.kit import paths
from build_recipes.kit.paths import Places


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrors that the person who runs the tests has configured do not count."""
    monkeypatch.setattr("build_recipes.sources.mirrors.configuration_files", list)


def invoke(*words: str) -> int:
    """Exit code of `invoke` in this process."""
    try:
        Program(namespace=tasks.namespace).run(["invoke", *words], exit=False)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["lock", "--tag", "main", "--offline"], 24, "can only be asked over the network"),
        (["lock", "--tag", "4fd9d6a85"], 2, "give all 40 digits"),
        (["lock", "--tag", "0.12.0"], 11, "--tag v0.12.0"),
        (["lock"], 2, "needs a tag"),
        (["lock", "--tag", "v0.12.0", "--mirror", "x"], 2, "URL=DIR"),
        (["lock", "--tag", "v0.13.0", "--offline"], 20, "without the network"),
        (["lock", "--diff", "v0.12.0"], 2, "second tag"),
        (["lock", "--diff", "v0.12.0", "--against", "v0.11.0"], 20, "./inv lock --tag v0.11.0"),
        (["mirror"], 2, "needs a tag"),
        (["mirror", "--tag", "v0.11.0"], 20, "no lock"),
        (["mirror", "--tag", "v0.12.9"], 10, "nearest are v0.12.0"),
        (["mirror", "--tag", "v0.12.0", "--offline"], 24, "not in the cache"),
        (["mirror", "--from", "none.tar.zst"], 26, "is not there"),
    ],
)
def test_each_mistake_has_its_code_and_next_step(
    words: list[str], code: int, text: str, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(*words) == code
    said = capsys.readouterr()
    assert text in " ".join(said.err.split())
    assert "next" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_an_edited_lock_stops_with_21(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (paths.LOCKS / "v0.12.0.toml").read_text()
    (tmp_path / "v0.12.0.toml").write_text(text.replace('"v4.2.1"', '"v4.2.2"'))
    monkeypatch.setattr(paths, "LOCKS", tmp_path)
    assert invoke("mirror", "--tag", "v0.12.0") == 21
    assert "was changed" in capsys.readouterr().err


def test_diff_prints_one_json_document(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("lock", "--diff", "v0.12.0", "--against", "v0.14.0", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["from"] == "v0.12.0"
    assert "tree vllm-flash-attn" in {change["what"] for change in shown["changes"]}


@pytest.mark.network
def test_a_bundle_of_the_real_0_12_0_names_what_it_could_not_have(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real sdist and triton_kernels' real files; git hosts are cut off by a proxy that is not there."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.proxy")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "http://no-such-host.invalid:1")
    target = tmp_path / "b.tar.zst"
    assert invoke("mirror", "--tag", "v0.12.0", "--to", str(target), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown["missing"]) == {"cutlass", "flashmla", "qutlass", "vllm-flash-attn"}
    assert "vllm-0.12.0.tar.gz" in " ".join(shown["files"])
    shutil.rmtree(places.cache)
    monkeypatch.setattr(paths, "LOCKS", tmp_path / "locks")
    assert invoke("mirror", "--from", str(target), "--json") == 0
    assert (tmp_path / "locks/v0.12.0.toml").is_file(), "a lock comes with the bundle"
    assert len(list(places.downloads.iterdir())) >= 35
