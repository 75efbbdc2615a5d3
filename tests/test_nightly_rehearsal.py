"""The night's workflow played here: two nights with a skip, a failure, a main and a release, published and installed.

The first test plays the whole thing with commands of seconds in place of builds. The second one builds, smoke-sized,
with real commands (ARMORY_SLOW): a release and main of a repository that stands in for vLLM's.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import github_fake
import pytest
from nightly_fortnight import broken
from workflow_player import Expression, Player

from build_recipes.kit.paths import PROJECT

CLONE_ENV = ("VIRTUAL_ENV", "VLLM_ARMORY_BUILD", "VLLM_ARMORY_WHEELS", "GITHUB_OUTPUT", "VLLM_ARMORY_NIGHT")
NIGHT = PROJECT / ".github/workflows/nightly.yml"
SLOW = pytest.mark.skipif(not os.environ.get("ARMORY_SLOW"), reason="ARMORY_SLOW=1 builds for some minutes")
REHEARSAL = """
title = "rehearsal"
[tags]
always = {tags}
main = {main}
[omni]
newest = 0
[publish]
main = 2
incomplete = true
[[device]]
name = "thor"
runners = ["arm64"]
[[runner]]
name = "arm64"
labels = ["ubuntu-24.04-arm"]
machine = "{machine}"
cores = 4
memory_gib = 16
time_box = "2h"
enabled = true
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.check_output(["git", "-C", folder, *who, *words], text=True).strip()


def night_of(tags: str, steps: list[dict[str, object]], *, main: bool) -> str:
    text = REHEARSAL.format(tags=tags, main=str(main).lower(), machine=platform.machine())
    for step in steps:
        text += "[[step]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in step.items())
    return text


def source_of(tmp_path: Path, config: str) -> Path:
    """This project at its commit, as a fork that wrote its own nightly.toml."""
    source = tmp_path / "fork"
    subprocess.run(["git", "clone", "-q", PROJECT, source], check=True)
    changed = subprocess.check_output(["git", "diff", "HEAD", "--binary"], cwd=PROJECT)
    if changed:
        subprocess.run(["git", "apply"], cwd=source, input=changed, check=True)
    (source / "build_recipes/nightly/nightly.toml").write_text(config)
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "Our own nights")
    return source


def player_of(tmp_path: Path, fake: github_fake.Fake, **more: str) -> Player:
    home = tmp_path / "runner"
    home.mkdir()
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in CLONE_ENV and not key.startswith("GITHUB_")
    }
    cache = os.environ.get("VLLM_ARMORY_CACHE") or str(Path.home() / ".cache/vllm-armory")
    env = {**kept, "HOME": str(home), "VLLM_ARMORY_CACHE": cache, "UV_CACHE_DIR": f"{cache}/uv", **more}
    player = Player(fake, tmp_path / "elsewhere/work/armory", home, env)
    player.variables["NIGHTLY_SITE"] = f"{fake.address}/pages"
    player.clone.parent.mkdir(parents=True)
    return player


def states(done: dict[str, object]) -> dict[str, str]:
    return {name: getattr(job, "result", "") for name, job in done.items()}


def test_expressions_mean_what_github_says() -> None:
    know = {"a": {"b": "x"}, "good": False, "workspace": Path(), "vars": {}}
    for text, value in {
        "a.b == 'x' && !cancelled()": True, "a.c || 'else'": "else", "vars.SITE && format('{0}/y', vars.SITE)": "",
        "format('{0}/y', a.b)": "x/y", "success()": False, "(a.b != 'x' || true == 'z') && 'no'": False,
        "fromJSON('[1]')": [1], "hashFiles('nothing/*') != ''": False,
    }.items():  # fmt: skip
        assert Expression(text, know).value() == value, text


@pytest.mark.network
def test_two_nights_of_quick_commands(tmp_path: Path) -> None:
    """Every job and step of nightly.yml: one is green, one is red; the second night skips what is green."""
    config = night_of(
        '["v0.12.0", "v0.12.7"]', [{"name": "look", "command": ["devices", "--json"]}], main=False
    )
    with github_fake.serving(tmp_path / "hub", source_of(tmp_path, config)) as fake:
        player = player_of(tmp_path, fake)
        rest = dict.fromkeys(("matrix", "cache", "adopt", "propose", "publish", "page"), "success")
        first = states(player.play(".github/workflows/nightly.yml"))  # type: ignore[arg-type]
        assert first == {**rest, "build v0.12.0-thor": "success", "build v0.12.7-thor": "failure"}, player.log
        events = [json.loads(row) for row in (fake.root / "pages/feed.jsonl").read_text().splitlines()]
        (started,) = (
            e["data"] for e in events if e["kind"] == "started" and e["data"]["job"] == "v0.12.7-thor"
        )
        assert started["url"] == f"{fake.address}/{github_fake.NAME}/actions/runs/1/attempts/1"
        assert started["program"]["commit"] == fake.git("rev-parse", "HEAD")
        second = states(player.play(".github/workflows/nightly.yml"))  # type: ignore[arg-type]
        assert second == {**rest, "build v0.12.7-thor": "failure"}, "v0.12.0 is green already"


@SLOW
@pytest.mark.timeout(3600)
@pytest.mark.network
@pytest.mark.slow
def test_two_nights_with_a_skip_a_failure_a_main_and_a_release(tmp_path: Path) -> None:
    common = ["--device", "{device}", "--smoke", "--cache", "{cache}", "--time-box", "{time_box}", "--json"]
    config = night_of(
        '["v0.12.0", "v0.12.7"]',
        [
            {"name": "tree", "command": ["tree", "--ref", "{ref}", "--to", "{tree}"], "when": "main", "gate": True},
            {"name": "lock", "command": ["lock", "--source", "{tree}", "--json"], "when": "main", "gate": True},
            {"name": "build", "command": ["build", "--tag", "{tag}", *common], "when": "release", "gate": True},
            {"name": "build", "command": ["build", "--source", "{tree}", *common], "when": "main", "gate": True},
            {"name": "audit", "command": ["audit", "{wheel}", "--device", "{device}", "--json"]},
        ],
        main=True,
    )  # fmt: skip
    vllm = main_of(tmp_path)
    with github_fake.serving(tmp_path / "hub", source_of(tmp_path, config)) as fake:
        settings = tmp_path / "config/vllm-armory"
        settings.mkdir(parents=True)
        (settings / "config.toml").write_text(
            f'[mirrors]\n"https://github.com/vllm-project/vllm" = "{vllm}"\n'
        )
        player = player_of(tmp_path, fake, XDG_CONFIG_HOME=str(settings.parent))
        first = states(player.play(".github/workflows/nightly.yml"))  # type: ignore[arg-type]
        print("\n".join(player.log))
        assert first["build v0.12.0-thor"] == "success", player.log
        assert first["build main-thor"] == "success", player.log
        assert first["build v0.12.7-thor"] == "failure", "a tag that is not there"
        assert (first["publish"], first["page"]) == ("success", "success")
        wheels = {
            name
            for row in fake.releases.values()
            for name in fake.named(row["tag_name"])
            if name.endswith(".whl")
        }
        assert len(wheels) == 2
        (main,) = (name for name in wheels if ".dev" in name)
        commit = git(vllm, "rev-parse", "HEAD")
        assert main.startswith(f"vllm-0.13.0rc2.dev1+g{commit[:9]}.cu130.thor.smoke-"), main
        assert f"{main.removesuffix('.whl')}.lock.toml" in fake.named("nightly"), "main's lock is kept"
        assert sorted(player.attested) == sorted(wheels)
        assert broken(fake) == []
        (vllm / "vllm/extra.py").write_text("x = 1\n")
        git(vllm, "add", "-A")
        git(vllm, "commit", "-q", "-m", "one more")
        player.log.clear()
        second = states(player.play(".github/workflows/nightly.yml"))  # type: ignore[arg-type]
        print("\n".join(player.log))
        assert "build v0.12.0-thor" not in second, "green already: skipped"
        assert second["build main-thor"] == "success"
        assert broken(fake) == []
        sums = fake.named("nightly")["SHA256SUMS"].decode()
        assert sums.count(".whl\n") == 2, "the first night's wheel is still there"
        assert fake.git("rev-parse", "nightly") == fake.git("rev-parse", "HEAD")
        uv = Path(sys.executable).with_name("uv")
        target = [
            "--target",
            str(tmp_path / "installed"),
            "--python",
            sys.executable,
            "--no-deps",
            "--no-cache",
        ]
        page = f"{fake.address}/pages/thor/simple/"
        words = [
            str(uv),
            "pip",
            "install",
            *target,
            "--python-platform",
            "aarch64-manylinux_2_39",
            "--index-url",
            page,
        ]
        subprocess.run([*words, "vllm==0.12.0"], check=True)
        text = (tmp_path / "installed/vllm/_version.py").read_text()
        assert re.search(r"0\.12\.0\+cu130\.thor\.smoke", text)


def main_of(tmp_path: Path) -> Path:
    """A repository that stands in for vLLM's: v0.12.0's sources, a tag as vLLM sets them on main, one commit more."""
    from build_recipes.formats.archive import unpack_sdist
    from build_recipes.kit.paths import Places
    from build_recipes.sources.download import fetch_files
    from build_recipes.sources.lockfile import load_lock

    pin = load_lock("v0.12.0").vllm.sdist
    assert pin is not None
    places = Places.from_environment()
    folder = unpack_sdist(fetch_files([pin], places.downloads)[pin.filename], tmp_path / "vllm")
    for name in ("PKG-INFO", "vllm/_version.py"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "vllm.egg-info", ignore_errors=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", "candidate")
    git(folder, "tag", "v0.13.0rc1")
    (folder / "CHANGES").write_text("main\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "main")
    return folder
