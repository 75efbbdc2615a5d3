"""nightly.toml to jobs: what is asked for, what is skipped, and what is wrong with the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from build_recipes.kit import paths
from build_recipes.kit.errors import BadData, RevisionMissing, UsageError
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly import config as configuration
from build_recipes.nightly import matrix
from build_recipes.nightly.config import Config
from build_recipes.nightly.night import as_matrix, open_store
from build_recipes.nightly.runner import choose
from build_recipes.sources import checkout as maintree

HEAD = """
title = "test"
[tags]
{tags}
[[device]]
name = "thor"
runners = ["board", "arm64"]
[[runner]]
name = "board"
labels = ["self-hosted", "jetson-thor"]
machine = "aarch64"
cores = 14
memory_gib = 122
time_box = "11h"
enabled = false
[[runner]]
name = "arm64"
labels = ["ubuntu-24.04-arm"]
machine = "aarch64"
cores = 4
memory_gib = 16
time_box = "1h"
enabled = true
[[step]]
name = "build"
command = ["build", "--tag", "{{tag}}", "--device", "{{device}}"]
gate = true
"""


def written(folder: Path, tags: str = 'always = ["v0.12.0"]', **change: str) -> Config:
    text = HEAD.format(tags=tags)
    for old, new in (value.split("=>") for value in change.values()):
        assert old in text
        text = text.replace(old, new)
    (folder / "night.toml").write_text(text)
    return configuration.load(folder / "night.toml")


@pytest.mark.parametrize("name", ["nightly", "smoke"])
def test_the_files_of_the_project_are_right(name: str, places: Places) -> None:
    config = configuration.load(configuration.find(name))
    jobs = matrix.resolve(config, places, None, offline=True)
    assert {job.device for job in jobs} == {target.name for target in config.device}
    assert all(job.runs_on for job in jobs)
    assert config.smoke == (name == "smoke")


def test_a_job_is_what_github_takes_with_its_commands(tmp_path: Path, places: Places) -> None:
    config = written(tmp_path)
    document = as_matrix(config, matrix.resolve(config, places, None, offline=True), places)
    assert list(document) == ["include"]
    (job,) = document["include"]
    assert job["id"] == "v0.12.0-thor"
    assert job["runs_on"] == ["ubuntu-24.04-arm"], "the first enabled runner"
    assert job["commands"] == ["./inv build --tag v0.12.0 --device thor"]
    assert job["nights"] == 2, "355 CPU minutes on 4 cores do not fit into an hour"
    assert job["timeout_minutes"] > 60
    assert len(job["fingerprint"]) == 16


def test_an_identical_fingerprint_that_is_green_is_skipped(tmp_path: Path, places: Places) -> None:
    config = written(tmp_path)
    with open_store(places) as store:
        (job,) = matrix.resolve(config, places, store, offline=True)
        store.record("started", "r@1", "1", {"job": job.id, "fingerprint": job.fingerprint})
        assert matrix.resolve(config, places, store, offline=True)[0].state == "resume"
        store.record("ended", "r@1", "", {"state": "green", "seconds": 4000})
        (seen,) = matrix.resolve(config, places, store, offline=True)
        assert "green already" in seen.skip
        assert (seen.estimate_s, seen.estimate_from) == (4000, "its last green night")
        assert as_matrix(config, [seen], places) == {"include": []}
        assert as_matrix(config, [seen], places, skipped=True)["include"][0]["skip"]
        assert not matrix.resolve(config, places, store, offline=True, force=True)[0].skip
        other = written(tmp_path, step='"{device}"]=>"{device}", "--build-type", "Debug"]')
        assert not matrix.resolve(other, places, store, offline=True)[0].skip, "other steps, other result"
        store.record("started", "r@2", "1", {"job": job.id, "fingerprint": job.fingerprint})
        store.record("ended", "r@2", "", {"state": "red", "seconds": 1})
        (again,) = matrix.resolve(config, places, store, offline=True)
        assert (again.state, again.skip) == ("again", "")


def test_a_tag_that_disappeared_is_red_and_the_rest_goes_on(tmp_path: Path, places: Places) -> None:
    config = written(tmp_path, 'always = ["v0.12.0", "v0.12.7", "latest"]')
    jobs = {job.tag: job for job in matrix.resolve(config, places, None, offline=True)}
    assert not jobs["v0.12.0"].problem
    assert "no tag v0.12.7" in jobs["v0.12.7"].problem
    assert "branch" in jobs["latest"].problem


def test_a_pair_that_cannot_work_is_refused_with_its_reason(tmp_path: Path, places: Places) -> None:
    config = written(tmp_path, 'always = ["v0.11.0", "v0.12.0"]')
    jobs = {job.tag: job for job in matrix.resolve(config, places, None, offline=True)}
    assert jobs["v0.11.0"].skip.startswith("refused")
    assert not jobs["v0.12.0"].skip


def test_a_tag_without_a_lock_is_locked_first_and_not_built_again_while_nothing_changed(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "LOCKS", tmp_path)
    shutil.copy(paths.PACKAGE / "locks/v0.12.0.toml", tmp_path)
    lock_step = '[[step]]\nname = "lock"\ncommand = ["lock", "--tag", "{tag}"]\nwhen = "unlocked"\n'
    build_step = '[[step]]\nname = "build"'
    tags = 'always = ["v0.12.0", "v0.13.0"]'
    config = written(tmp_path, tags, step=f"{build_step}=>{lock_step}{build_step}")
    jobs = matrix.resolve(config, places, None, offline=True)
    document = {job["tag"]: job for job in as_matrix(config, jobs, places)["include"]}
    assert document["v0.13.0"]["commands"][0] == "./inv lock --tag v0.13.0"
    assert len(document["v0.12.0"]["commands"]) == 1
    fingerprint = document["v0.13.0"]["fingerprint"]
    with open_store(places) as store:
        store.record("started", "r@1", "1", {"job": "v0.13.0-thor", "fingerprint": fingerprint})
        store.record("ended", "r@1", "", {"state": "green", "seconds": 1})
        seen = {job.tag: job for job in matrix.resolve(config, places, store, offline=True)}
    assert seen["v0.13.0"].skip == "green already: r@1"
    patches = tmp_path / "patches"
    shutil.copytree(paths.PATCHES, patches)
    (patches / "another.patch").write_text("")
    monkeypatch.setattr(paths, "PATCHES", patches)
    changed = {job.tag: job for job in matrix.resolve(config, places, None, offline=True)}
    assert changed["v0.13.0"].fingerprint != fingerprint, "another recipe"


def test_newest_releases_are_the_final_ones() -> None:
    assert matrix.newest(["0.9.0", "0.10.0", "0.11.0rc1", "0.10.1"], 2) == ["0.10.0", "0.10.1"]
    assert matrix.newest(["0.9.0"], 0) == []


@pytest.mark.network
def test_the_newest_tags_come_from_the_index(tmp_path: Path, places: Places) -> None:
    config = written(tmp_path, "newest = 2\nalways = ['v0.12.0']")
    jobs = matrix.resolve(config, places, None)
    assert len(jobs) == 3
    assert jobs[-1].tag == "v0.12.0"
    assert jobs[0].tag >= "v0.33.0"


def test_main_is_pinned_to_its_commit(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """main of a real repository that stands in for vLLM's; without one it is skipped with the reason."""
    config = written(tmp_path, 'always = ["v0.12.0"]\nmain = true')
    main, release = matrix.resolve(config, places, None, offline=True)
    assert "main's commit is not known" in main.skip
    assert not release.skip
    repository = tmp_path / "vllm"
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main", repository], check=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "vllm-armory").mkdir()
    (tmp_path / "vllm-armory/config.toml").write_text(
        f'[mirrors]\n"https://github.com/vllm-project/vllm" = "{repository}"\n'
    )
    commits, fingerprints = [], set()
    for text in ("one", "two"):
        (repository / "setup.py").write_text(text)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", text], check=True)
        commits.append(subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip())
        main = matrix.resolve(config, places, None, offline=True)[0]
        assert (main.id, main.ref, main.skip) == ("main-thor", commits[-1], "")
        assert main.tag == "v0.12.0", "whose units its estimate is made from"
        fingerprints.add(main.fingerprint)
        for _ in range(2):
            done = maintree.checkout(main.ref, str(tmp_path / "tree"), places)
            assert done["commit"] == commits[-1]
            assert (tmp_path / "tree/setup.py").read_text() == text
    assert len(fingerprints) == 2
    with pytest.raises(UsageError, match="not ours"):
        maintree.checkout("main", str(repository), places)
    with pytest.raises(RevisionMissing):
        maintree.checkout("mian", str(tmp_path / "tree"), places)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title", "titel", "unknown field `titel`"),
        ('name = "thor"', 'name = "tohr"', "did you mean thor"),
        ('"arm64"]', '"arm46"]', "no runner is called arm46"),
        ('"{device}"', '"{devcie}"', "{devcie} means nothing"),
        ('"{device}"', '"{device"', "step build"),
        ('time_box = "1h"', 'time_box = "soon"', "soon is not a duration"),
        ("cores = 4", "cores = 0", "above zero"),
        ("enabled = true", "enabled = maybe", "is not right"),
        ('name = "board"', 'name = "arm64"', "arm64 is there twice"),
        ("gate = true", 'when = "sometimes"', "sometimes"),
        ("always", "newest = -1\nalways", "zero or more"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(BadData) as caught:
        written(tmp_path, change=f"{old}=>{new}")
    assert said in caught.value.args[0]
    assert "night.toml" in caught.value.args[0]


def test_nothing_to_do_is_an_error(tmp_path: Path, places: Places) -> None:
    config = written(tmp_path, change="enabled = true=>enabled = false")
    with pytest.raises(BadData, match="matrix is empty"):
        matrix.resolve(config, places, None, offline=True)
    with pytest.raises(UsageError, match="no nightly configuration nihgtly"):
        configuration.find("nihgtly")


def test_an_unknown_job_names_the_nearest(tmp_path: Path, places: Places) -> None:
    jobs = matrix.resolve(written(tmp_path), places, None, offline=True)
    with pytest.raises(UsageError, match=r"nearest are v0\.12\.0-thor"):
        choose(jobs, "v0.12.1-thor")


def test_the_command_writes_what_github_actions_reads(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    invoke = Path(sys.executable).with_name("invoke")
    words = ["matrix", "--config", str(tmp_path / "night.toml"), "--offline", "--github", "--json"]
    done = subprocess.run([invoke, *words], cwd=PROJECT, capture_output=True, text=True, check=True)
    lines = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert lines["any"] == "true"
    assert json.loads(lines["matrix"]) == json.loads(done.stdout)
    monkeypatch.delenv("GITHUB_OUTPUT")
    refused = subprocess.run([invoke, *words], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "not a step of GitHub Actions" in refused.stderr
