"""A fortnight of nights against the small GitHub: jobs are pretended, publishing is the real thing.

Each night: a job for every tag and device that is not green already, some of them red; their wheels (made by the
product's own packer) and feeds as artifacts; then gather, release, index, page, deploy. Run as a program, it prints
the counts.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import random
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.request import urlopen

import github_fake
from wheel_maker import make_wheel

from build_recipes.build.stages.published import sealed
from build_recipes.kit import http
from build_recipes.kit.errors import ArmoryError, HashMismatch
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.once import remove_tree
from build_recipes.nightly import feed, night
from build_recipes.nightly.options import Options
from build_recipes.nightly.store import Store
from build_recipes.wheelhouse.rewrite import Edits, rewrite

DEVICES = ("thor", "spark")
TOKEN = "contents=write"
EPOCH = datetime.datetime(2026, 11, 1, 2, tzinfo=datetime.timezone.utc)


def packed(folder: Path, version: str, device: str, content: str) -> Path:
    """A wheel of a version for a device with its manifest and provenance, packed by the product's own packer."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        plain = make_wheel(Path(scratch), {"vllm/__init__.py": f"x = {content!r}\n".encode()}, requires=())
        wheel = rewrite(plain, folder, Edits(version=version, platform="manylinux_2_34_aarch64"), epoch=0)
    stem = wheel.name.removesuffix(".whl")
    facts = {"schema": 2, "wheel": {"name": wheel.name, "size": wheel.stat().st_size, "sha256": file_sha256(wheel)},
             "plan": {"device": device}}  # fmt: skip
    (folder / f"{stem}.manifest.json").write_text(json.dumps(sealed(facts)))
    (folder / f"{stem}.intoto.json").write_text("{}")
    return wheel


@dataclass
class Nights:
    """Nights one after another."""

    fake: github_fake.Fake
    root: Path
    config: str = "nightly"
    number: int = 0
    count: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        os.environ.update(
            GH_TOKEN=TOKEN, GITHUB_REPOSITORY=github_fake.NAME, GITHUB_API_URL=self.fake.address,
            GITHUB_SERVER_URL=self.fake.address, GITHUB_RUN_ID="1", GITHUB_SHA=self.fake.git("rev-parse", "HEAD"),
            GITHUB_WORKFLOW_REF=f"{github_fake.NAME}/.github/workflows/nightly.yml@refs/heads/main",
        )  # fmt: skip

    @property
    def address(self) -> str:
        """The feed as the page publishes it."""
        return f"{self.fake.address}/pages/feed.jsonl"

    def job(self, job: str, version: str, device: str, fingerprint: str, *, red: bool = False) -> str:
        """What the build job of one cell does. Returns its state."""
        when = EPOCH + datetime.timedelta(days=self.number)
        scratch = str(self.root / f"job-{job}")
        remove_tree(Path(scratch))
        with Store(Path(scratch) / "n.sqlite", clock=lambda: when) as store:
            if (self.fake.root / "pages").exists():
                with urlopen(self.address) as got:
                    (Path(scratch) / "earlier.jsonl").write_bytes(got.read())
            store.merge(feed.read_all([Path(scratch) / "earlier.jsonl"]))
            if store.green(job, fingerprint):
                return "skipped"
            run = f"{job}@{self.number}"
            label = "main" if job.startswith("main") else "v" + version.partition("+")[0]
            known = {"job": job, "label": label, "device": device, "fingerprint": fingerprint}
            store.record("started", run, "1", known)
            if red:
                store.record("ended", run, "", {"state": "red", "seconds": 60, "reason": "build failed"})
            else:
                wheel = packed(self.root / f"artifacts/wheel-{job}", version, device, fingerprint)
                said = {"name": wheel.name, "size": wheel.stat().st_size, "sha256": file_sha256(wheel)}
                store.record("ended", run, "", {"state": "green", "seconds": 60, "wheel": said})
            feed.sync(store, self.root / f"artifacts/results-{job}/feed.jsonl")
        return "red" if red else "green"

    def publish(self) -> dict[str, int]:
        """What the publish and page jobs do.

        :raises ArmoryError: as the commands do; the page then stays as it was.
        """
        os.environ["VLLM_ARMORY_WHEELS"] = str(self.root / "publish")
        remove_tree(self.root / "publish")
        remove_tree(self.root / "out")
        remove_tree(self.root / "site")
        feeds = tuple(str(path) for path in [self.root / "artifacts"] if path.exists())
        options = Options(config=self.config, feeds=(*feeds, self.address))
        gathered = night.gather_wheels(options, feeds, str(self.root / "out"))
        done = night.publish(options, str(self.root / "out"), "", str(self.root / "site"))
        night.page(options, str(self.root / "site"))
        github_fake.deploy(self.fake, self.root / "site")
        self.count["files uploaded"] += len(done["uploaded"])
        self.count["files deleted"] += len(done["deleted"])
        self.count["wheels gathered"] += len(gathered.wheels)
        index: dict[str, int] = done["index"]
        gathered.check()
        return index

    def one(self, cells: list[tuple[str, str, str, str, bool]], tamper: str = "", cut: str = "") -> str:
        """A night of jobs ``(job, version, device, fingerprint, red)``. Returns how publishing ended.

        :param tamper: a job whose wheel is changed before it is gathered.
        :param cut: a part of a request that fails until the client gives up.
        """
        remove_tree(self.root / "artifacts")
        states = Counter(self.job(*cell[:4], red=cell[4]) for cell in cells)
        self.count.update(states)
        for wheel in (self.root / f"artifacts/wheel-{tamper}").glob("*.whl"):
            wheel.write_bytes(wheel.read_bytes() + b"x")
        if cut:
            self.fake.cut[cut] = http.ATTEMPTS
        end = "published"
        try:
            self.publish()
        except HashMismatch:
            end = "published, one wheel refused"
        except ArmoryError as error:
            end = f"not published: {error.args[0].splitlines()[0][:60]}"
        self.fake.cut.clear()
        self.count[end.partition(":")[0]] += 1
        self.log.append(f"night {self.number + 1:2}: {dict(sorted(states.items()))}, {end}")
        self.number += 1
        return end


def broken(fake: github_fake.Fake, *, whole: bool = True) -> list[str]:
    """What is not right in what is published: sums, links, metadata. Empty where all is.

    :param whole: SHA256SUMS names every file; after a night that was cut off it may lack the newest.
    """
    faults = []
    for release in fake.releases.values():
        with tempfile.TemporaryDirectory() as scratch:
            files = fake.named(release["tag_name"])
            for name, content in files.items():
                (Path(scratch) / name).write_bytes(content)
            done = subprocess.run(["sha256sum", "-c", "--quiet", "--strict", "SHA256SUMS"], cwd=scratch,
                                  capture_output=True, text=True, check=False)  # fmt: skip
            listed = {line.split("  ")[1] for line in files["SHA256SUMS"].decode().splitlines()}
            missing = set(files) - {"SHA256SUMS"} - listed
            if done.returncode or (whole and missing):
                faults.append(f"{release['tag_name']}: {done.stdout} {missing}")
    for page in (fake.root / "pages").rglob("simple/vllm/index.html"):
        links: list[dict[str, str | None]] = []

        class Links(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                if tag == "a":
                    links.append(dict(attrs))  # noqa: B023

        Links().feed(page.read_text())
        for link in links:
            url, _, fragment = str(link["href"]).partition("#sha256=")
            for address, sha256 in (
                (url, fragment),
                (url + ".metadata", str(link["data-core-metadata"])[7:]),
            ):
                with urlopen(address) as answer:
                    if hashlib.sha256(answer.read()).hexdigest() != sha256:
                        faults.append(f"{page}: {address}")
    return faults


def fortnight(fake: github_fake.Fake, root: Path, seed: int = 16) -> Nights:
    """Fourteen nights: new commits of main, a new release, red jobs, an outage, a wheel that was changed."""
    nights, dice = Nights(fake, root), random.Random(seed)
    commit = 0
    for number in range(14):
        releases = ["0.32.0", "0.33.0"] + ["0.34.0"] * (number >= 5)
        if number not in (3, 9):  # nights without a commit
            commit += dice.randint(1, 30)
        cells = []
        for device in DEVICES:
            for version in releases:
                recipe = (
                    2 if number >= 8 else 1
                )  # a patch of the series changes: every release is built again
                cells.append((f"v{version}-{device}", f"{version}+cu130.{device}", device, f"{version}.{recipe}",
                              dice.random() < 0.15))  # fmt: skip
            base = "0.34.1" if number >= 5 else "0.34.0"
            name = f"{base}.dev{commit}+g{commit:09x}.cu130.{device}"
            cells.append((f"main-{device}", name, device, f"main.{commit}", dice.random() < 0.2))
        end = nights.one(cells, tamper="main-thor" if number == 6 else "", cut=".whl" if number == 10 else "")
        faults = broken(fake, whole=end.startswith("published"))
        assert faults == [], (number, end, faults)
    return nights


if __name__ == "__main__":
    http.backoff = lambda attempt: 0.0
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "source"
        subprocess.run(["git", "init", "-q", "-b", "main", repository], check=True)
        subprocess.run(["git", "-C", repository, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit",
                        "-q", "--allow-empty", "-m", "first"], check=True)  # fmt: skip
        with github_fake.serving(Path(folder) / "hub", repository) as hub:
            done = fortnight(hub, Path(folder) / "work")
            print("\n".join(done.log))
            print(json.dumps(dict(sorted(done.count.items())), indent=1))
            for row in hub.releases.values():
                names = [name for name in hub.named(row["tag_name"]) if name.endswith(".whl")]
                print(f"{row['tag_name']}: {len(names)} wheels: {', '.join(sorted(names))}")
            print(f"{len(hub.calls)} requests; broken: {broken(hub) or 'nothing'}")
