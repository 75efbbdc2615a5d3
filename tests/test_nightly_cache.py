"""The shared compiler cache: real sccache, real Redis, real nvcc on a small CMake project."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_canary import CACHE, HOST, wheels

from build_recipes.kit.errors import MissingPackages
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.nightly import sharing
from build_recipes.nightly.sharing import Sharing
from build_recipes.toolchain import cuda

PROJECT_FILES = {
    "CMakeLists.txt": """
cmake_minimum_required(VERSION 3.26)
project(tiny LANGUAGES CXX CUDA)
add_library(tiny STATIC twice.cu add.cpp)
""",
    "twice.cu": """
__global__ void twice(float *x) { x[threadIdx.x] *= 2; }
void launch(float *x) { twice<<<1, 32>>>(x); }
""",
    "add.cpp": "int add(int a, int b) { return a + b; }\n",
}
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class Redis:
    """A Redis server of this test."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def keys(self) -> int:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            line.sendall(b"DBSIZE\r\n")
            return int(line.recv(64).strip().removeprefix(b":"))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    program = shutil.which("redis-server")
    if program is None:
        raise MissingPackages(
            "no Redis for the cache's tests", "apt-get install -y redis-server, or ./inv test --install"
        )
    port = free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path],
        stdout=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 20
    while sharing._unreachable("127.0.0.1", port):
        assert time.monotonic() < limit
        time.sleep(0.05)
    yield Redis(port, process)
    process.kill()
    process.wait()


@dataclass
class Machine:
    """One host: its own sccache server and local folder, its own clean trees."""

    folder: Path
    nvcc: Path
    cache: Sharing

    def build(self) -> dict[str, dict[str, int]]:
        """Build the project in a clean tree. Returns what sccache counted for it."""
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        for name, content in PROJECT_FILES.items():
            (tree / name).write_text(content)
        known = {"sccache": [str(BIN / "sccache")], "ccache": ["ccache"]}
        launcher = known.get(self.cache.choice, [])
        words = [
            *(BIN / "cmake", "-S", tree, "-B", tree / "build", "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={BIN / 'ninja'}",
            f"-DCMAKE_CUDA_COMPILER={self.nvcc}",
            "-DCMAKE_CUDA_ARCHITECTURES=110-real",
            *(f"-DCMAKE_{kind}_COMPILER_LAUNCHER={';'.join(launcher)}" for kind in ("CXX", "CUDA")),
        ]
        self.run(words)
        counted = self.cache.choice == "sccache"
        before = self.stats() if counted else {}
        self.run([BIN / "cmake", "--build", tree / "build"])
        assert (tree / "build/libtiny.a").exists()
        after = self.stats() if counted else {}
        return {
            name: {key: value - before[name].get(key, 0) for key, value in after[name].items()}
            for name in after
        }

    def run(self, words: list[object]) -> str:
        done = subprocess.run(
            [str(word) for word in words], env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def environment(self) -> dict[str, str]:
        return {
            **self.cache.environment(),
            "SCCACHE_DIR": str(self.folder / "local"),
            "SCCACHE_IDLE_TIMEOUT": "120",
        }

    def stats(self) -> dict[str, dict[str, int]]:
        told = json.loads(self.run([BIN / "sccache", "--show-stats", "--stats-format", "json"]))["stats"]
        return {name: told[name]["counts"] for name in ("cache_hits", "cache_misses", "cache_errors")}

    def stop(self) -> None:
        subprocess.run(
            [BIN / "sccache", "--stop-server"], env=self.environment(), capture_output=True, check=False
        )


@pytest.fixture(scope="module")
def nvcc() -> Path:
    toolkit = cuda.assemble(
        CACHE.toolkits, "canary", wheels(HOST.machine), [], host=HOST.machine, target=HOST.machine
    )
    return toolkit.nvcc


@pytest.mark.network
def test_what_one_host_compiled_the_other_has_from_redis(
    redis: Redis, nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts with clean trees: all misses, then all hits."""
    monkeypatch.setenv("SCCACHE_REDIS_ENDPOINT", redis.address)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    machines = []
    for _ in range(2):
        monkeypatch.setenv("SCCACHE_SERVER_PORT", str(free_port()))
        cache = sharing.choose()
        assert cache.choice == "sccache"
        assert cache.name == f"sccache, Redis at 127.0.0.1:{redis.port}"
        machines.append(Machine(tmp_path / "host", nvcc, cache))
    try:
        first = machines[0].build()
        assert first["cache_hits"] == {}
        assert {"C/C++", "CUDA", "CUBIN"} <= set(first["cache_misses"])
        stored = redis.keys()
        assert stored >= 3
        second = machines[1].build()
        assert {name for name, count in second["cache_misses"].items() if count} == set()
        assert {name: count for name, count in second["cache_hits"].items() if count} == first["cache_misses"]
        assert redis.keys() == stored
    finally:
        for machine in machines:
            machine.stop()


@pytest.mark.network
def test_ccache_shares_by_redis_and_outlives_it(
    redis: Redis, nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with ccache, whose hosts have local folders of their own. Redis dies: compiled all the same."""
    monkeypatch.setenv("CCACHE_REMOTE_STORAGE", f"redis://127.0.0.1:{redis.port}")
    cache = sharing.choose()
    assert (cache.choice, cache.name) == ("ccache", f"ccache, redis at 127.0.0.1:{redis.port}")
    counts = []
    for number in range(3):
        monkeypatch.setenv("CCACHE_DIR", str(tmp_path / f"local{number}"))
        if number == 2:
            redis.process.send_signal(signal.SIGKILL)
            redis.process.wait()
        machine = Machine(tmp_path / "host", nvcc, cache)
        started = time.monotonic()
        machine.build()
        words = machine.run(["ccache", "--print-stats"]).split()
        told = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        counts.append((told["remote_storage_hit"], told["cache_miss"], time.monotonic() - started))
    (no_hits, missed, _), (hits, none_missed, _), (_, again, seconds) = counts
    assert (no_hits, missed) == (0, 2)
    assert (hits, none_missed) == (2, 0)
    assert again == 2
    assert seconds < 60, "a dead server costs no timeouts"


@pytest.mark.network
def test_without_its_server_a_host_goes_on_uncached_with_a_warning(
    nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCCACHE_REDIS_ENDPOINT", f"tcp://user:secret@127.0.0.1:{free_port()}")
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    cache = sharing.choose()
    said = capsys.readouterr().err
    assert "the shared compiler cache is not used" in said
    assert "Connection refused" in said
    assert "secret" not in said + cache.name
    assert "SCCACHE_REDIS_ENDPOINT" not in cache.environment()
    assert cache.choice == "auto"
    assert Machine(tmp_path, nvcc, cache).build() == {}


@pytest.mark.parametrize(
    ("env", "choice", "name"),
    [
        ({}, "auto", "this machine's own"),
        ({"SCCACHE_BUCKET": "b"}, "sccache", "sccache, S3 bucket b"),
        ({"SCCACHE_GHA_ENABLED": "on"}, "sccache", "sccache, GitHub Actions' cache"),
        ({"SCCACHE_BUCKET": "b", "SCCACHE_ENDPOINT": "127.0.0.1:1"}, "auto", "S3 bucket b does not answer"),
        ({"CCACHE_REMOTE_STORAGE": "redis://127.0.0.1:1"}, "auto", "redis://127.0.0.1:1 does not answer"),
        ({"CCACHE_REMOTE_STORAGE": "file:///mnt/cache"}, "ccache", "ccache, file"),
    ],
)
def test_the_choice_follows_the_environment(env: dict[str, str], choice: str, name: str) -> None:
    cache = sharing.choose({"PATH": str(BIN), **env})
    assert cache.choice == choice
    assert name in cache.name


def test_without_sccache_a_shared_cache_is_not_used(tmp_path: Path) -> None:
    cache = sharing.choose({"PATH": str(tmp_path), "SCCACHE_BUCKET": "b"})
    assert cache.choice == "auto"
    assert "sccache is not installed" in cache.name


def test_servers_of_different_caches_have_different_ports() -> None:
    ports = {
        sharing.choose({"PATH": str(BIN), "SCCACHE_BUCKET": name}).extra["SCCACHE_SERVER_PORT"]
        for name in "aab"
    }
    assert len(ports) == 2


def test_a_night_without_its_cache_server_says_so_and_is_green(tmp_path: Path, places: Places) -> None:
    from test_nightly_runner import DEVICES, written

    env = {**os.environ, "CCACHE_REMOTE_STORAGE": f"redis://127.0.0.1:{free_port()}"}
    done = subprocess.run(
        [BIN / "invoke", "nightly", "--config", written(tmp_path, DEVICES), "--offline"],
        cwd=PROJECT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "the shared compiler cache is not used" in done.stderr
    assert "Connection refused" in (places.wheels / "nightly/feed.jsonl").read_text()
