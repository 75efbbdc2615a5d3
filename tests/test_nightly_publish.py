"""Publishing against a small GitHub: nothing is lost, whatever is cut off; pip and uv take what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import github_fake
import pytest
from nightly_fortnight import Nights, broken, fortnight, packed

from build_recipes.kit import http
from build_recipes.kit.errors import ArmoryError, HashMismatch
from build_recipes.kit.hashing import file_sha256
from build_recipes.nightly.config import Publish
from build_recipes.nightly.publishing import catalogue, github
from build_recipes.nightly.publishing.catalogue import Catalogue, Published

MAIN = "0.34.0.dev7+gabcdef123.cu130.thor"
RELEASE = "0.33.0+cu130.thor"


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    """An empty GitHub whose repository has one commit."""
    source = tmp_path / "source"
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main", source], check=True)
    subprocess.run(["git", "-C", source, *who, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    monkeypatch.setattr(http, "backoff", lambda attempt: 0.0)
    for name in ("GH_TOKEN", "GITHUB_REPOSITORY", "GITHUB_API_URL", "GITHUB_SERVER_URL", "GITHUB_SHA",
                 "GITHUB_WORKFLOW_REF", "GITHUB_RUN_ID", "VLLM_ARMORY_WHEELS"):  # fmt: skip
        monkeypatch.setenv(name, "")  # put back as it was afterwards
    with github_fake.serving(tmp_path / "hub", source) as fake:
        yield Nights(fake, tmp_path / "work")


def cells(recipe: str = "1", commit: str = MAIN) -> list[tuple[str, str, str, str, bool]]:
    return [
        ("v0.33.0-thor", RELEASE, "thor", f"r{recipe}", False),
        ("v0.33.0-spark", RELEASE.replace("thor", "spark"), "spark", f"r{recipe}", False),
        ("main-thor", commit, "thor", commit, False),
    ]


def test_a_fortnight_loses_nothing(nights: Nights) -> None:
    done = fortnight(nights.fake, nights.root)
    assert done.count["published"] == 12, done.log
    assert done.count["published, one wheel refused"] == 1
    assert done.count["not published"] == 1
    assert done.count["skipped"] > done.count["green"], "what is green already is not built again"
    assert {row["tag_name"] for row in nights.fake.releases.values()} == {
        "nightly", "vllm-v0.32.0", "vllm-v0.33.0", "vllm-v0.34.0"
    }  # fmt: skip
    main = [name for name in nights.fake.named("nightly") if name.endswith(".whl")]
    shown = json.loads((nights.fake.root / "pages/simple/vllm/index.json").read_text())["files"]
    for device in ("thor", "spark"):
        listed = [row for row in shown if ".dev" in row["filename"] and f".{device}-" in row["filename"]]
        assert len(listed) == 7, "the rule: seven wheels of main for each device"
        assert 7 <= sum(f".{device}-" in name for name in main) <= 8, "one may be waiting for its deletion"


def test_main_and_a_release_of_one_device_in_one_night(nights: Nights) -> None:
    """The second night keeps the first one's wheels in SHA256SUMS and the index; the rolling tag moves."""
    assert nights.one(cells()) == "published"
    first = nights.fake.named("nightly")
    assert nights.one(cells(commit=MAIN.replace("dev7+gabcdef123", "dev9+gfedcba987"))) == "published"
    second = nights.fake.named("nightly")
    assert set(first) < set(second)
    lines = second["SHA256SUMS"].decode().splitlines()
    assert sum(line.endswith(".whl") for line in lines) == 2
    assert nights.fake.git("rev-parse", "nightly") == nights.fake.git("rev-parse", "HEAD")
    assert set(nights.fake.named("vllm-v0.33.0")) >= {"SHA256SUMS", "catalogue.json"}
    places = {path.parent.parent.relative_to(nights.fake.root / "pages").as_posix()
              for path in (nights.fake.root / "pages").rglob("vllm/index.html")}  # fmt: skip
    assert places == {"simple", "thor/simple", "spark/simple"}
    assert broken(nights.fake) == []


def test_the_tag_of_the_rolling_release_moves(nights: Nights) -> None:
    nights.one(cells())
    before = nights.fake.git("rev-parse", "nightly")
    tree = nights.fake.git("rev-parse", "HEAD^{tree}")
    commit = nights.fake.git("commit-tree", tree, "-p", before, "-m", "second")
    hub = github.GitHub(github_fake.NAME, "contents=write", nights.fake.address)
    hub.move_tag("nightly", commit)
    assert nights.fake.git("rev-parse", "nightly") == commit != before


def test_whatever_request_fails_the_next_night_finishes_it(nights: Nights) -> None:
    """Requests of a night that replaces wheels, adds one and deletes one are cut off in turn: each with ARMORY_SLOW."""
    nights.config = str(nights.root.parent / "night.toml")
    text = Path("build_recipes/nightly/smoke.toml").read_text()
    Path(nights.config).write_text(text + "\n[publish]\nmain = 1\n")
    assert nights.one(cells("0")) == "published"
    step, cut, tried = (1 if os.environ.get("ARMORY_SLOW") else 6), 0, 0
    for number in range(1, 99):
        commit = MAIN.replace("dev7", f"dev{number + 7}")
        if (end := _cut_at(nights, cells(str(number), commit), cut)) == "published":
            break
        cut, tried = cut + step, tried + 1
        again = cells(f"{number}b", commit + "1")
        assert nights.one(again) == "published", end
        assert broken(nights.fake) == [], (cut, end)
        tags = [row["tag_name"] for row in nights.fake.releases.values()]
        assert not [name for tag in tags for name in nights.fake.named(tag) if name.endswith(".new")]
    assert cut > 25, "the night has at least so many requests that write"
    assert tried >= 25 // step


def _cut_at(nights: Nights, wheels: list[tuple[str, str, str, str, bool]], position: int) -> str:
    """A night whose request of that position, of those that write, fails until the client gives up."""
    fake, seen = nights.fake, 0
    plain = fake.cut

    class Cut(dict[str, int]):
        """Looks like the table of what fails; cuts the one call, and its repetitions."""

        line = ""

        def items(self):  # type: ignore[no-untyped-def]
            nonlocal seen
            line = fake.calls[-1]
            if line.startswith("GET") or "HEAD" in line:
                return []
            if self.line == line:
                return [(line, 1)]
            if not self.line and seen == position:
                self.line = line
                return [(line, 1)]
            seen += not self.line
            return []

        def __getitem__(self, key: str) -> int:
            return 1

    fake.cut = Cut()
    try:
        return nights.one(wheels)
    finally:
        fake.cut = plain


def test_a_lost_catalogue_is_made_again_from_the_files(nights: Nights) -> None:
    nights.one(cells())
    nights.fake.digests = False  # files from before GitHub gave digests
    tags = {number: row["tag_name"] for number, row in nights.fake.releases.items()}
    (asset,) = (
        one
        for one in nights.fake.assets.values()
        if (one["name"], tags[one["release"]]) == ("catalogue.json", "nightly")
    )
    nights.fake.asset_path(asset["id"]).write_bytes(b'{"schema": 1, "wheels": [')
    before = (nights.fake.root / "pages/simple/vllm/index.json").read_text()
    assert nights.one(cells()) == "published"
    assert (nights.fake.root / "pages/simple/vllm/index.json").read_text() == before
    assert broken(nights.fake) == []


def test_a_wheel_that_is_not_what_its_run_made_is_refused_and_made_again(nights: Nights) -> None:
    assert nights.one(cells(), tamper="v0.33.0-thor") == "published, one wheel refused"
    assert sorted(name for name in nights.fake.named("vllm-v0.33.0") if name.endswith(".whl"))[0].count(
        "spark"
    )
    assert nights.one(cells()) == "published"
    assert nights.count["green"] == 4, "the refused one is built again, the others are skipped"
    assert len([n for n in nights.fake.named("vllm-v0.33.0") if n.endswith(".whl")]) == 2


def test_two_jobs_with_a_wheel_of_one_name_each_take_their_own(nights: Nights, tmp_path: Path) -> None:
    """As main and a release once had; the one that is published is the one that the run made."""
    nights.job("v0.33.0-thor", RELEASE, "thor", "one")
    packed(nights.root / "artifacts/a-first", RELEASE, "thor", "another")
    nights.publish()
    (name,) = [name for name in nights.fake.named("vllm-v0.33.0") if name.endswith(".whl")]
    own = nights.root / "artifacts/wheel-v0.33.0-thor" / name
    assert nights.fake.named("vllm-v0.33.0")[name] == own.read_bytes()


def test_a_token_that_may_not_write_is_told(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GH_TOKEN", "contents=read")
    nights.job("v0.33.0-thor", RELEASE, "thor", "one")
    with pytest.raises(ArmoryError, match="GitHub refuses POST releases: 403 Resource not accessible"):
        nights.publish()


def test_the_rule_of_what_stays() -> None:
    def one(number: int, device: str = "thor", label: str = "main") -> Published:
        name = f"vllm-0.34.0.dev{number}+g1.cu130.{device}-cp38-abi3-manylinux_2_34_aarch64.whl"
        return Published(
            file=name, sha256="", size=1, project="vllm", version=name.split("-")[1], requires_python="",
            metadata="", device=device, label=label, run="", url="", commit="", time=f"{number:02}", beside={},
        )  # fmt: skip

    there = Catalogue(wheels=[*map(one, range(4)), one(9, "spark"), one(7, label="v0.33.0")])
    now = catalogue.retired(there, Publish(main=2), "now")
    assert [row.version.split("+")[0][-4:] for row in now.wheels if row.retired] == ["dev0", "dev1"]
    assert catalogue.retired(now, Publish(main=9), "later") == there, "what the rule takes back is kept"
    tags = ["vllm-v0.9.0", "vllm-v0.10.0", "nightly", "v1.0", "vllm-v0.33.0"]
    assert catalogue.outdated(tags, Publish(releases=2)) == {"vllm-v0.9.0"}
    assert catalogue.outdated(tags, Publish()) == set()


def test_a_version_that_the_rule_lets_go_is_gone_two_nights_later(nights: Nights, tmp_path: Path) -> None:
    nights.config = str(tmp_path / "night.toml")
    Path(nights.config).write_text(
        Path("build_recipes/nightly/smoke.toml").read_text() + "\n[publish]\nreleases = 1\n"
    )
    old = [("v0.32.0-thor", "0.32.0+cu130.thor", "thor", "old", False)]
    assert nights.one(old) == "published"
    assert nights.one([*old, *cells()]) == "published"
    assert "vllm-v0.32.0" in {row["tag_name"] for row in nights.fake.releases.values()}, "still to be had"
    shown = (nights.fake.root / "pages/simple/vllm/index.html").read_text()
    assert "0.32.0" not in shown, "but no more in the index"
    assert nights.one(cells()) == "published"
    assert "vllm-v0.32.0" not in {row["tag_name"] for row in nights.fake.releases.values()}
    assert "vllm-v0.32.0" not in nights.fake.git("tag").split()
    assert broken(nights.fake) == []


def test_gathering_ends_with_22_only_after_all_others(nights: Nights) -> None:
    nights.job(*cells()[0][:4])
    nights.job(*cells()[1][:4])
    wheel = next((nights.root / "artifacts/wheel-v0.33.0-thor").glob("*.whl"))
    wheel.write_bytes(b"other")
    with pytest.raises(HashMismatch, match=r"the green run v0\.33\.0-thor@0 made"):
        nights.publish()
    assert len(list((nights.root / "out/vllm-v0.33.0").glob("*.whl"))) == 1
    assert (nights.root / "out/SHA256SUMS").read_text().count("\n") == 1


# -- the index, by pip and uv --------------------------------------------------------------------

PLATFORM = ["--platform", "manylinux_2_34_aarch64", "--python-version", "3.12", "--only-binary", ":all:"]


def run(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.network
def test_pip_and_uv_take_wheels_from_the_published_layout(nights: Nights, tmp_path: Path) -> None:
    """By the page's address: metadata first (PEP 658), the wheel from its release, checked by its hash."""
    nights.one(cells())
    site = f"{nights.fake.address}/pages"
    uv = Path(sys.executable).with_name("uv")
    pip = [
        uv,
        "run",
        "--no-project",
        "--quiet",
        "--python",
        sys.executable,
        "--with",
        "pip",
        "python",
        "-m",
        "pip",
    ]
    nights.fake.calls.clear()
    run(*pip, "download", "--no-cache-dir", "--no-deps", "--index-url", f"{site}/thor/simple/", "-d", tmp_path / "pip",
        *PLATFORM, "vllm")  # fmt: skip
    (got,) = (tmp_path / "pip").iterdir()
    assert got.name.startswith(f"vllm-{RELEASE}-"), "main is a pre-release: it is taken only where asked for"
    asked = [line.split("/")[-1] for line in nights.fake.calls if "/releases/download/" in line]
    assert asked == [f"{got.name}.metadata", got.name]
    run(*pip, "download", "--no-cache-dir", "--no-deps", "--pre", "--index-url", f"{site}/thor/simple/", "-d",
        tmp_path / "pre", *PLATFORM, "vllm")  # fmt: skip
    assert next((tmp_path / "pre").iterdir()).name.startswith(f"vllm-{MAIN}-")
    target = [
        "--python",
        sys.executable,
        "--no-deps",
        "--no-cache",
        "--python-platform",
        "aarch64-manylinux_2_34",
    ]
    run(
        uv,
        "pip",
        "install",
        "--target",
        tmp_path / "uv",
        "--index-url",
        f"{site}/spark/simple/",
        *target,
        "vllm",
    )
    assert (tmp_path / "uv/vllm-0.33.0+cu130.spark.dist-info").is_dir()
    pinned = tmp_path / "requirements.txt"
    pinned.write_text(f"vllm=={RELEASE} --hash=sha256:{file_sha256(got)}\n")
    run(uv, "pip", "install", "--target", tmp_path / "all", "--index-url", f"{site}/simple/", *target,
        "--require-hashes", "-r", pinned)  # fmt: skip
    assert (tmp_path / f"all/vllm-{RELEASE}.dist-info").is_dir()
