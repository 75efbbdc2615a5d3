"""Bad input through the front door: each ends in its own exit code and a next step, and leaves nothing behind.

What a stage does with bad input in detail is tested with the stage; here it is what a user types and sees.
"""

from __future__ import annotations

import http.server
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from invoke.program import Program
from sources_help import Server, make_sdist, serve
from test_compiling import Project
from wheel_maker import make_wheel

import tasks
from build_recipes.build.plan import make_plan
from build_recipes.build.request import Request
from build_recipes.build.stages import compile as compiling
from build_recipes.build.units.costs import learned
from build_recipes.kit import paths
from build_recipes.kit.paths import PROJECT, Places
from build_recipes.sources import download
from build_recipes.sources.lockfile import FilePin, load_lock, save_lock

NATIVE = "h200" if platform.machine() == "x86_64" else "thor"
"""A device with this machine's CPU: nothing is cross-compiled."""
INVOKE = Path(sys.executable).with_name("invoke")


@pytest.fixture(autouse=True)
def plain(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty places, locks of its own, and nothing of what the person who runs the tests has configured."""
    shutil.copytree(paths.PACKAGE / "locks", tmp_path / "own-locks")
    monkeypatch.setattr(paths, "LOCKS", tmp_path / "own-locks")
    monkeypatch.setattr("build_recipes.sources.mirrors.configuration_files", list)
    for name in ("TORCH_CUDA_ARCH_LIST", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)


class Door:
    """The front door in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        """Exit code and what a user reads, on one line."""
        code = 0
        try:
            Program(namespace=tasks.namespace).run(["invoke", *words], exit=False)
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        assert said.out == ""
        return code, " ".join(said.err.split())

    def refuses(self, code: int, *words: str) -> str:
        """What is said by a command that ends with ``code``; there is always a next step."""
        got, said = self(*words)
        assert got == code, said
        assert "error " in said
        assert said.partition(" next ")[2], "no next step"
        return said


@pytest.fixture
def door(capsys: pytest.CaptureFixture[str]) -> Door:
    return Door(capsys)


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Replace parts of v0.12.0's real lock."""

    def change(**changes: Any) -> None:
        real = load_lock("v0.12.0", paths.PACKAGE / "locks")
        save_lock(msgspec.structs.replace(real, **changes), tmp_path / "locks")
        monkeypatch.setattr(paths, "LOCKS", tmp_path / "locks")

    yield change


def nothing_built(places: Places) -> bool:
    """No wheel, no source tree, no environment."""
    made = [path.name for path in places.build.glob("*/*") if path.name not in (".lock", "src")]
    sources = [path for path in places.build.glob("*/src/*") if not path.name.startswith(".")]
    return not list(places.wheels.iterdir()) and not made and not sources


# -- what was asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--tag", "v0.12.9"], 10, "nearest are v0.12.0"),
        (["--tag", "v0.11.0", "--device", "orin", "--offline"], 20, "./inv lock --tag v0.11.0"),
        (["--tag", "main", "--offline"], 20, "./inv lock --tag main"),
        (["--tag", "0.12.0"], 11, "--tag v0.12.0"),
        ([], 2, "--tag v"),
        (["--tag", "v0.12.0", "--device", "xavier"], 12, "--device thor"),
        (["--tag", "v0.12.0", "--device", "thro"], 12, "did you mean thor?"),
        (["--tag", "v0.11.0", "--device", "thor"], 14, "--tag v0.11.1 or newer"),
        (["--tag", "v0.12.0", "--torch", "9.9"], 2, "it has: 2.11.0"),
        (["--tag", "v0.12.0", "--time-box", "soon"], 2, "write 9m"),
        (["--tag", "v0.12.0", "--jobs", "-1"], 2, "leave --jobs out"),
        (["--tag", "v0.12.0", "--cache", "gcc"], 2, "one of auto, ccache"),
    ],
)
@pytest.mark.parametrize("task", ["build", "plan"])
def test_a_request_that_makes_no_sense(task: str, words: list[str], code: int, text: str, door: Door) -> None:
    assert text in door.refuses(code, task, *words)
    places = Places.from_environment()
    assert not any(any(folder.iterdir()) for folder in (places.cache, places.build, places.wheels))
    assert len(list(paths.LOCKS.iterdir())) == len(list((paths.PACKAGE / "locks").iterdir())), (
        "a lock was made"
    )


def test_an_architecture_of_another_device(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    said = door.refuses(13, "build", "--tag", "v0.12.0", "--device", "thor")
    assert "set TORCH_CUDA_ARCH_LIST=11.0" in said


def test_a_lock_that_was_edited(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (paths.LOCKS / "v0.12.0.toml").read_text()
    (tmp_path / "v0.12.0.toml").write_text(text.replace('version = "2.11.0"', 'version = "2.10.0"', 1))
    monkeypatch.setattr(paths, "LOCKS", tmp_path)
    assert "make it again: ./inv lock --tag v0.12.0" in door.refuses(21, "build", "--tag", "v0.12.0")


@pytest.mark.parametrize(("cuda", "code", "text"), [("", 42, "has no CUDA"), ("12.9", 43, "for CUDA 12.9")])
def test_a_lock_whose_torch_is_for_no_cuda_or_another(
    cuda: str, code: int, text: str, door: Door, locked: Any
) -> None:
    pin = load_lock("v0.12.0").torch_pin("2.11.0")
    locked(torch=[msgspec.structs.replace(pin, cuda=cuda)])
    said = door.refuses(code, "build", "--tag", "v0.12.0", "--device", NATIVE, "--torch", "2.11.0")
    assert text in said
    assert "without --torch" in said


# -- this machine --------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["thor", NATIVE])
def test_no_compiler(device: str, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").symlink_to(shutil.which("git") or "/usr/bin/git")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    said = door.refuses(40, "build", "--tag", "v0.12.0", "--device", device)
    cross = device == "thor" and platform.machine() == "x86_64"
    assert ("the C++ compiler for the device's CPU" if cross else "nvcc needs a host C++ compiler") in said


def fake_toolkit(folder: Path, version: str) -> Path:
    """A CUDA_HOME whose nvcc says that it is another one."""
    nvcc = folder / f"cuda-{version}/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.93'\n")
    nvcc.chmod(0o755)
    return nvcc.parent.parent


@pytest.mark.parametrize("version", ["12.8", "14.0"])
@pytest.mark.parametrize("by", ["CUDA_HOME", "--cuda"])
def test_an_nvcc_that_is_older_or_newer_than_fits(
    version: str, by: str, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = fake_toolkit(tmp_path, version)
    words = ["build", "--tag", "v0.12.0", "--device", NATIVE]
    if by == "CUDA_HOME":
        monkeypatch.setenv("CUDA_HOME", str(home))
        said = door.refuses(41, *words)
    else:
        said = door.refuses(41, *words, "--cuda", str(home))
    assert f"{home} is {version}.93; this device and tag need >=13.0,<14" in said
    assert "unset CUDA_HOME" in said
    assert nothing_built(Places.from_environment())


def test_a_toolkit_that_is_none(door: Door, tmp_path: Path) -> None:
    said = door.refuses(41, "build", "--tag", "v0.12.0", "--device", NATIVE, "--cuda", str(tmp_path))
    assert f"--cuda {tmp_path}: there is no {tmp_path}/bin/nvcc" in said


@pytest.mark.parametrize(
    ("cuda", "code", "text"),
    [
        ("None", 42, "torch.version.cuda is None"),
        ("'12.8'", 43, "was built for CUDA 12.8, the toolkit is CUDA 13"),
    ],
)
def test_an_existing_torch_for_no_cuda_or_another(
    cuda: str, code: int, text: str, door: Door, tmp_path: Path
) -> None:
    """A Python whose torch says what the ones on PyPI for other machines say."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (package,) = tmp_path.glob("env/lib/python*/site-packages")
    (package / "torch").mkdir()
    (package / "torch/__init__.py").write_text("")
    (package / "torch/version.py").write_text(
        f"from typing import Optional\n__version__ = '2.9.0'\ncuda: Optional[str] = {cuda}\n"
    )
    python = tmp_path / "env/bin/python"
    said = door.refuses(
        code, "build", "--tag", "v0.12.0", "--device", NATIVE, "--torch", f"existing:{python}"
    )
    assert text in said
    assert "leave --torch" in said
    assert nothing_built(Places.from_environment())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="nothing is cross-compiled on this CPU")
@pytest.mark.parametrize("python", ["foo", "3", "3.x", "9" * 5000])
def test_a_python_that_is_no_version(python: str, door: Door) -> None:
    said = door.refuses(2, "companions", "--tag", "v0.12.0", "--device", "thor", "--python", python)
    assert "is no minor version of Python" in said


@pytest.mark.parametrize("words", [["--cuda", "/usr/local/cuda"], ["--torch", "existing"]])
def test_what_a_cross_build_cannot_take(words: list[str], door: Door) -> None:
    assert f"leave {words[0]} out" in door.refuses(2, "build", "--tag", "v0.12.0", "--device", "thor", *words)


IN_A_MOUNT_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


def mounted(options: str, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run invoke where ``where`` is a small disk of its own."""
    script = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
    done = subprocess.run(
        [*IN_A_MOUNT_NAMESPACE, script, where, INVOKE, *words],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"this kernel forbids mounts to this user: {done.stderr.strip()}")
    assert "Traceback" not in done.stderr
    return done


def test_a_wheels_folder_that_is_read_only(places: Places) -> None:
    done = mounted("ro", places.wheels, "build", "--tag", "v0.12.0", "--smoke")
    assert done.returncode == 46, done.stderr
    assert "Read-only file system" in done.stderr
    assert "VLLM_ARMORY_WHEELS=/elsewhere" in done.stderr
    assert nothing_built(places)


def test_a_build_disk_that_is_too_small(places: Places) -> None:
    done = mounted("size=1g", places.build, "build", "--tag", "v0.12.0", "--device", "thor")
    assert done.returncode == 44, done.stderr
    assert "1.1 GB are free and" in done.stderr
    assert f"the build tree 8.1 GB in {places.build}" in done.stderr
    assert "VLLM_ARMORY_BUILD" in done.stderr


def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"vllm/_C.abi3.so": os.urandom(3_000_000)})
    (tmp_path / "small").mkdir()
    words = ["retag", str(wheel), "--platform", "manylinux_2_39_aarch64", "--to", str(tmp_path / "small")]
    done = mounted("size=1m", tmp_path / "small", *words)
    assert done.returncode == 44, done.stderr
    assert "make room" in done.stderr


def test_two_builds_of_one_tree(door: Door, places: Places) -> None:
    code = (
        "import sys; from pathlib import Path; from build_recipes.build.stages.record import tree_lock\n"
        "with tree_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    tree = places.build / f"v0.12.0-{NATIVE}-smoke"
    with subprocess.Popen(
        [sys.executable, "-c", code, tree], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = door.refuses(47, "build", "--tag", "v0.12.0", "--device", NATIVE, "--smoke")
        assert f"kill {other.pid}" in said
        assert other.poll() is None
        other.communicate("")
    assert nothing_built(places)


# -- sources -------------------------------------------------------------------------------------


def smoke(door: Door, code: int) -> str:
    return door.refuses(code, "build", "--tag", "v0.12.0", "--device", NATIVE, "--smoke")


def sdist_from(locked: Any, pin: FilePin) -> None:
    """Let the lock's source distribution come from a server of our own."""
    vllm = msgspec.structs.replace(load_lock("v0.12.0", paths.PACKAGE / "locks").vllm, sdist=pin)
    locked(vllm=vllm, trees=[])


def test_a_download_that_is_not_what_the_lock_says(door: Door, locked: Any, places: Places) -> None:
    with serve(Server({"vllm-0.12.0.tar.gz": b"something else"})) as server:
        sdist_from(locked, server.pin("vllm-0.12.0.tar.gz", sha256="0" * 64))
        said = smoke(door, 22)
    assert "the file was removed" in said
    assert not [path for path in places.downloads.rglob("*") if path.is_file()]
    assert nothing_built(places)


def test_an_sdist_with_members_that_climb_out(door: Door, locked: Any, places: Places) -> None:
    content = make_sdist({"../../../outside.txt": "x", "setup.py": "", "CMakeLists.txt": ""})
    with serve(Server({"vllm-0.12.0.tar.gz": content})) as server:
        sdist_from(locked, server.pin("vllm-0.12.0.tar.gz"))
        said = smoke(door, 26)
    assert "outside.txt" in said
    assert not list(places.build.parent.rglob("outside.txt"))
    assert nothing_built(places)


def test_a_network_that_is_cut_in_the_middle(
    door: Door, locked: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host sends half and is gone; later it is back, and only the other half is fetched."""
    monkeypatch.setattr(download, "backoff", lambda attempt: 0.0)
    content = make_sdist({"CMakeLists.txt": "", "setup.py": f"# {os.urandom(40_000).hex()}"})
    half = len(content) // 2

    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:half])

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.HTTPServer(("127.0.0.1", 0), Half)

    def one_answer() -> None:
        listener.handle_request()
        listener.server_close()

    threading.Thread(target=one_answer, daemon=True).start()
    gone = f"http://127.0.0.1:{listener.server_address[1]}"
    with serve(Server({"vllm-0.12.0.tar.gz": content})) as server:
        pin = server.pin("vllm-0.12.0.tar.gz")
        sdist_from(locked, msgspec.structs.replace(pin, url=pin.url.replace(server.url, gone)))
        said = smoke(door, 23)
        assert "it goes on from here" in said
        assert f"{half} of {len(content)} bytes" in said
        assert nothing_built(places)
        sdist_from(locked, pin)
        code, said = door("build", "--tag", "v0.12.0", "--device", NATIVE, "--smoke")
        assert code == 30, said  # fetched and unpacked; it is not a vLLM, so the first patch finds no place
        assert server.seen == [("vllm-0.12.0.tar.gz", f"bytes={half}-")]


# -- compile -------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["cc1plus", "g++"])
def test_a_compiler_that_somebody_killed(victim: str, tmp_path: Path, places: Places) -> None:
    """A SIGKILL that the kernel did not count as out of memory is told as one from outside."""
    plan = make_plan(Request(tag="v0.12.0", device=NATIVE), places)
    plan.tree.mkdir(parents=True)
    units = "".join(
        f'template<int N> int f{i}() {{ std::regex r("x"); return N; }} int g{i} = f{i}<{i}>();\n'
        for i in range(200)
    )
    project = Project(plan.tree, {"victim": "#include <regex>\n" + units})

    def kill() -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for process in psutil.process_iter(["name", "cwd", "memory_info"]):
                facts = process.info
                big = victim == "g++" or (facts["memory_info"] and facts["memory_info"].rss > 60_000_000)
                if facts["name"] == victim and facts["cwd"] == str(plan.tree) and big:
                    process.kill()
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = project.run()
    killer.join()
    assert not outcome.ok
    error = compiling.failure(plan, outcome)
    assert (error.exit_code, "victim.cpp.o was killed from outside" in error.args[0]) == (51, True), str(
        error
    )
    assert error.advice.startswith("run the same command again")
    assert "mod/victim.cpp.o" not in learned(project.journal), "a kill by hand says nothing of its memory"


def test_a_unit_that_does_not_compile_is_no_kill(places: Places) -> None:
    plan = make_plan(Request(tag="v0.12.0", device=NATIVE), places)
    plan.tree.mkdir(parents=True)
    project = Project(plan.tree, {"good": "int good;\n", "bad": "int bad = nonsense;\n"})
    error = compiling.failure(plan, project.run(cores=1))
    assert error.exit_code == 51
    assert "nonsense" in error.args[0]
    repro = f"./inv repro --tag v0.12.0 --device {NATIVE} --unit mod/bad.cpp.o"
    assert repro in error.advice
    assert "mod/bad.cpp.o" not in learned(project.journal)
