"""Following vLLM: what moved between real trees, what is proposed, and to whom."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import github_fake
import msgspec
import pytest
from untar import untar

from build_recipes.kit.errors import BadData, NetworkError, NotATag, UsageError
from build_recipes.kit.paths import Places
from build_recipes.nightly.adopt import adopt, report
from build_recipes.nightly.adopt.command import keep_changes
from build_recipes.nightly.adopt.propose import propose
from build_recipes.sources import registry
from build_recipes.sources.modules import makeup

PACKED = Path(__file__).parent / "data/cmake/sdists-0.11.1-0.33.0.tar.xz"


def adoption() -> adopt.Adoption:
    return adopt.Adoption(
        "v0.34.0", "v0.33.0",
        steps=[adopt.Did("lock", "./inv lock --tag v0.34.0", "passed", 0, 61.0)],
        moved={"pins": [f"tree {n}: a -> b" for n in range(60)], "facts": ["torch: 2.14.0 -> 2.15.0"]},
        patches={"P1": "applies", "P2": "conflict"},
        omni=[{"tag": "v0.34.0", "omni": "0.33.0", "verdict": "breaks", "breaks": 2}],
        devices={"thor": {"modules": {"_C": {"units": 90, "native": 88, "jit": 2, "targets": ["sm_110a"]}}}},
        person=["patch P2: conflict a|b"],
    )  # fmt: skip


def test_what_moved_between_two_real_trees(tmp_path: Path) -> None:
    untar(PACKED, tmp_path)
    moved = adopt._modules(makeup(tmp_path / "0.32.0"), makeup(tmp_path / "0.33.0"))
    old, new = (
        json.loads(json.dumps([m.target for m in makeup(tmp_path / v).modules])) for v in ("0.32.0", "0.33.0")
    )
    assert {row.split()[1] for row in moved if row.startswith("+")} == set(new) - set(old)
    assert {row.split()[1] for row in moved if row.startswith("-")} == set(old) - set(new)
    assert adopt._modules(makeup(tmp_path / "0.33.0"), makeup(tmp_path / "0.33.0")) == []


def test_the_report_says_what_moved_and_what_needs_a_person(tmp_path: Path) -> None:
    page = adopt.write_report(adoption(), tmp_path)
    text = page.read_text()
    assert "| thor | _C | 90 | sm_110a | 88 native, 2 jit |" in text
    assert "* patch P2: conflict a|b" in text
    assert "and 20 more" in text
    (row,) = (line for line in (page.parent / "README.md").read_text().splitlines() if "v0.34.0" in line)
    assert row == "| [v0.34.0](v0.34.0.md) | 60 pins; facts: torch: 2.14.0 -> 2.15.0; patches: P2 conflict | " \
        "patch P2: conflict a\\|b |"  # fmt: skip
    again = msgspec.convert(json.loads((page.parent / "v0.34.0.json").read_text()), adopt.Adoption)
    assert again == adoption()
    assert report.table([]).endswith("None.\n")


def test_companions_that_do_not_run_are_told_once_with_their_devices() -> None:
    rows = {"name": "torch", "version": "2.14.0", "code": "native", "runs": True}
    absent = {**rows, "code": "absent", "runs": False}
    unknown = {"name": "flashinfer-cubin", "version": "", "code": "not known", "runs": False}
    done = adoption()
    adopt.judged(done, {"thor": [rows, unknown], "orin": [absent, unknown]})
    assert done.person[1:] == [
        "flashinfer-cubin (not known) does not run on thor, orin", "torch 2.14.0 (absent) does not run on orin"
    ]  # fmt: skip
    assert done.devices["orin"]["companions"] == {"torch": "2.14.0 absent", "flashinfer-cubin": "not known"}
    assert "modules" in done.devices["thor"], "what the survey said stays"


def test_newest_is_what_has_no_lock_and_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["0.32.0", "0.33.0", "99.1.0", "99.0.0", "99.2.0rc1"]
    monkeypatch.setattr(registry, "releases", lambda name, kinds=(): known)
    assert adopt.newest() == ["v99.0.0", "v99.1.0"]


def test_what_is_no_release_is_refused(places: Places) -> None:
    with pytest.raises(NotATag):
        adopt.adopt(adopt.Asked("main"), places)
    with pytest.raises(UsageError, match=r"v0\.33\.0 is a release"):
        adopt.look_ahead(adopt.Asked("v0.33.0"), places)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[github_fake.Fake]:
    source = tmp_path / "source"
    subprocess.run(["git", "init", "-q", "-b", "main", source], check=True)
    (source / "docs").mkdir()
    (source / "docs/survey.md").write_text("old\n")
    (source / "README.md").write_text("kept\n")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", source, *who, *words], check=True)
    with github_fake.serving(tmp_path / "hub", source) as fake:
        monkeypatch.setenv("GITHUB_REPOSITORY", github_fake.NAME)
        monkeypatch.setenv("GITHUB_API_URL", fake.address)
        monkeypatch.setenv("GH_TOKEN", "contents=write,pull-requests=write")
        yield fake


def changes(folder: Path, files: dict[str, str | None]) -> str:
    for name, text in files.items():
        if text is not None:
            (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "files" / name).write_text(text)
    document = {
        "branch": "adopt-v0.34.0",
        "title": "vLLM v0.34.0 can be built",
        "body": "moved",
        "files": list(files),
    }
    (folder / "changes.json").write_text(json.dumps(document))
    return str(folder)


def test_a_change_becomes_one_commit_and_one_pull_request(hub: github_fake.Fake, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    folder = changes(
        tmp_path / "one", {"build_recipes/locks/v0.34.0.toml": "a = 1\n", "docs/survey.md": None}
    )
    (page,) = propose(folder)
    assert page == f"{hub.address}/{github_fake.NAME}/pull/1"
    branch = "refs/heads/adopt-v0.34.0"
    assert hub.git("show", f"{branch}:build_recipes/locks/v0.34.0.toml") == "a = 1"
    assert hub.git("ls-tree", "-r", "--name-only", branch).split() == [
        "README.md",
        "build_recipes/locks/v0.34.0.toml",
    ]
    assert hub.git("rev-parse", f"{branch}^") == hub.git("rev-parse", "main"), "one commit on main"
    assert hub.pulls[0]["base"] == "main"
    changes(tmp_path / "one", {"build_recipes/locks/v0.34.0.toml": "a = 2\n"})
    assert propose(folder) == [page], "the open one is brought up to date"
    assert len(hub.pulls) == 1
    assert hub.git("show", f"{branch}:build_recipes/locks/v0.34.0.toml") == "a = 2"
    assert hub.git("rev-list", "--count", f"main..{branch}") == "1"


def test_only_what_an_adoption_writes_is_proposed(hub: github_fake.Fake, tmp_path: Path) -> None:
    assert propose(str(tmp_path)) == [], "nothing was new"
    for name in (".github/workflows/nightly.yml", "build_recipes/kit/http.py", "docs/../tasks.py"):
        with pytest.raises(BadData, match="is not where an adoption writes"):
            propose(changes(tmp_path, {name: None}))
    assert hub.pulls == []


def test_a_token_that_may_only_read_opens_nothing(
    hub: github_fake.Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GH_TOKEN", "contents=read")
    with pytest.raises(NetworkError, match="403 Resource not accessible"):
        propose(changes(tmp_path, {"docs/adopted/v1.md": "x"}))


def test_what_changed_is_kept_for_the_pull_request(tmp_path: Path) -> None:
    assert keep_changes([], ["README.md"], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
    kept = keep_changes([adoption()], ["docs/nightly.md", "docs/not-there.md"], tmp_path / "a")
    assert kept == ["docs/nightly.md", "docs/not-there.md"]
    assert (tmp_path / "a/files/docs/nightly.md").is_file()
    assert json.loads((tmp_path / "a/changes.json").read_text())["branch"] == "adopt-v0.34.0"
