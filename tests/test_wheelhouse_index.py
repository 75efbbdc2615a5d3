"""The index: pages and hashes, and pip and uv choosing the right wheel from it."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen

import pytest
from wheel_maker import make_wheel

from build_recipes.kit import process
from build_recipes.kit.errors import NotAWheel, UsageError
from build_recipes.wheelhouse import manage
from build_recipes.wheelhouse.index import write_index
from build_recipes.wheelhouse.serve import server

THOR = "cp38-abi3-manylinux_2_39_aarch64"
VERSION = "0.12.0+cu130.thor"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with wheels for two CPUs and an older version."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version, tag in (
        (VERSION, THOR),
        ("0.12.0+cu130.h200", "cp38-abi3-manylinux_2_35_x86_64"),
        ("0.11.0", THOR),
    ):
        make_wheel(folder, {"vllm/__init__.py": b""}, version=version, tag=tag, requires=())
    write_index(folder)
    return folder


@pytest.fixture
def address(wheels: Path) -> Iterator[str]:
    """The folder, served on loopback."""
    running = server(wheels)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}/simple/"
    running.shutdown()
    running.server_close()
    thread.join()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append(dict(attrs))


def test_pages_name_every_wheel_with_its_hashes(wheels: Path) -> None:
    page = wheels / "simple/vllm/index.html"
    reader = _Links()
    reader.feed(page.read_text())
    assert len(reader.links) == 3
    document = json.loads((wheels / "simple/vllm/index.json").read_text())
    assert document["meta"]["api-version"] == "1.1"
    assert document["versions"] == ["0.11.0", "0.12.0+cu130.h200", VERSION]
    for link, row in zip(reader.links, document["files"], strict=True):
        path, _, fragment = str(link["href"]).partition("#")
        file = (page.parent / unquote(path)).resolve()
        assert file.parent == wheels.resolve()
        assert fragment == "sha256=" + hashlib.sha256(file.read_bytes()).hexdigest()
        assert row["hashes"]["sha256"] == fragment.removeprefix("sha256=")
        assert (page.parent / unquote(row["url"])).resolve() == file
        metadata = file.with_name(file.name + ".metadata").read_bytes()
        assert link["data-core-metadata"] == "sha256=" + hashlib.sha256(metadata).hexdigest()
        assert row["core-metadata"] == {"sha256": hashlib.sha256(metadata).hexdigest()}
        assert link["data-requires-python"] == row["requires-python"] == ">=3.10"
        assert row["size"] == file.stat().st_size


def test_a_wheel_that_goes_leaves_no_trace_and_a_changed_one_is_hashed_again(wheels: Path) -> None:
    (wheels / f"vllm-{VERSION}-{THOR}.whl").unlink()
    changed = make_wheel(wheels, {"vllm/__init__.py": b"changed"}, version="0.11.0", tag=THOR)
    entries = write_index(wheels)
    assert [entry.version for entry in entries] == ["0.11.0", "0.12.0+cu130.h200"]
    assert entries[0].sha256 == hashlib.sha256(changed.read_bytes()).hexdigest()
    assert not list(wheels.glob("*thor*"))
    assert "thor" not in (wheels / "simple/vllm/index.html").read_text()


def test_the_same_wheels_give_the_same_pages(wheels: Path) -> None:
    before = (wheels / "simple/vllm/index.html").read_bytes()
    write_index(wheels)
    assert (wheels / "simple/vllm/index.html").read_bytes() == before


def test_a_broken_wheel_is_named_and_the_old_index_stays(wheels: Path) -> None:
    before = (wheels / "simple/vllm/index.json").read_bytes()
    (wheels / "vllm-9-py3-none-any.whl").write_bytes(b"half a wheel")
    with pytest.raises(NotAWheel, match="vllm-9"):
        write_index(wheels)
    assert (wheels / "simple/vllm/index.json").read_bytes() == before


def _get(url: str, accept: str = "") -> tuple[str, bytes]:
    with urlopen(Request(url, headers={"Accept": accept} if accept else {})) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_the_server_negotiates_and_hides(wheels: Path, address: str) -> None:
    kind, body = _get(urljoin(address, "vllm/"), "application/vnd.pypi.simple.v1+json")
    assert kind == "application/vnd.pypi.simple.v1+json"
    file = json.loads(body)["files"][0]
    assert (
        hashlib.sha256(_get(urljoin(urljoin(address, "vllm/"), file["url"]))[1]).hexdigest()
        == (file["hashes"]["sha256"])
    )
    pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
    assert _get(address, pip)[0] == "application/vnd.pypi.simple.v1+json"
    assert "html" in _get(address)[0]
    assert "html" in _get(urljoin(address, "vllm/"), "text/html")[0]
    for path in ("/.hashes.json", "/.lock", "/../tasks.py", "/"):
        with pytest.raises(OSError, match="404"):
            _get(urljoin(address, path))
    with pytest.raises(UsageError):
        server(wheels, int(str(urlsplit(address).port)))


def _client(*command: object) -> process.Finished:
    uv = Path(sys.executable).with_name("uv")
    run = [
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
    words = [*run, *command[1:]] if command[0] == "pip" else [uv, "pip", *command[1:]]
    done = process.run([str(word) for word in words])
    assert done.ok, "\n".join(done.tail)
    return done


PLATFORM = ["--platform", "manylinux_2_39_aarch64", "--python-version", "3.12", "--only-binary", ":all:"]


@pytest.mark.network
def test_pip_downloads_the_wheel_of_the_platform_and_checks_it(
    tmp_path: Path, address: str, wheels: Path
) -> None:
    into = tmp_path / "got"
    said = _client("pip", "download", "--no-deps", "--index-url", address, "-d", into, *PLATFORM, "vllm")
    assert [path.name for path in into.iterdir()] == [f"vllm-{VERSION}-{THOR}.whl"], said.tail
    assert "metadata" in "\n".join(said.tail)  # PEP 658: the metadata file was taken first
    requirements = tmp_path / "requirements.txt"
    wheel = wheels / f"vllm-{VERSION}-{THOR}.whl"
    requirements.write_text(
        f"vllm=={VERSION} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    )
    arguments = ["--no-deps", "--index-url", address, "--require-hashes", "-r", requirements]
    _client(
        "pip", "install", "--dry-run", "--ignore-installed", "--target", tmp_path / "t", *PLATFORM, *arguments
    )


@pytest.mark.network
def test_uv_takes_the_wheel_of_the_platform_and_checks_it(tmp_path: Path, address: str, wheels: Path) -> None:
    wheel = wheels / f"vllm-{VERSION}-{THOR}.whl"
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(
        f"vllm=={VERSION} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    )
    target = ["--target", tmp_path / "t", "--python", sys.executable]
    common = [
        "--index-url",
        address,
        "--no-deps",
        "--no-cache",
        "--python-platform",
        "aarch64-manylinux_2_39",
    ]
    said = _client("uv", "install", "--dry-run", *target, *common, "vllm")
    assert any("0.12.0+cu130.thor" in line for line in said.tail)
    _client("uv", "install", *target, *common, "--require-hashes", "-r", requirements)
    assert (tmp_path / f"t/vllm-{VERSION}.dist-info").is_dir()


@pytest.mark.network
def test_a_wheel_that_was_changed_behind_the_index_is_refused(
    tmp_path: Path, address: str, wheels: Path
) -> None:
    make_wheel(wheels, {"vllm/__init__.py": b"evil"}, version=VERSION, tag=THOR, requires=())
    uv = Path(sys.executable).with_name("uv")
    run = [
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
    words = ["download", "--no-deps", "--index-url", address, "-d", tmp_path / "got", *PLATFORM, "vllm"]
    done = process.run([str(word) for word in [*run, *words]])
    assert not done.ok
    assert "DO NOT MATCH" in "\n".join(done.tail)


@pytest.mark.network
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_printed_lines_install_with_uv_and_pip(tmp_path: Path, host: str) -> None:
    """As they are printed, from the address that is printed; PyPI, which has newer ones, is the second index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, {"vllm/__init__.py": b""}, version=VERSION, tag="py3-none-any", requires=())
    entries = write_index(wheels)
    running = server(wheels, host=host)
    lines = manage.how_to_install(entries, manage.seen_at(running))
    running.front = "a page"
    assert running.loopback == (host == "127.0.0.1")
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        assert _get(f"{manage.seen_at(running)}/") == ("text/html; charset=utf-8", b"a page")
        for number, line in enumerate(lines):
            words = shlex.split(line)
            folder = tmp_path / f"env{number}"
            uv = str(Path(sys.executable).with_name("uv"))
            process.capture([uv, "venv", "--quiet", "--seed", folder])
            program: list[str | Path] = [uv] if words[0] == "uv" else [folder / "bin/python", "-m", "pip"]
            place: list[str | Path] = ["--python", folder] if words[0] == "uv" else []
            process.capture([*program, *words[1:], *place])
            asked = "import importlib.metadata as m; print(m.version('vllm'))"
            assert process.capture([folder / "bin/python", "-c", asked]) == VERSION
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
