"""The index and its server against names and files that are not what they seem: nothing outside is touched."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from wheel_maker import make_wheel

from build_recipes.kit.errors import ArmoryError, NotAWheel, NotWritable
from build_recipes.wheelhouse.index import write_index
from build_recipes.wheelhouse.serve import server


def named(folder: Path, file: str, name: str, version: str = "1.0") -> Path:
    """A wheel whose METADATA says any name and version."""
    with zipfile.ZipFile(folder / file, "w") as archive:
        archive.writestr(
            "x-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr("x-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("x-1.0.dist-info/RECORD", "")
    return folder / file


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, {"vllm/__init__.py": b""}, requires=())
    write_index(folder)
    return folder


@pytest.mark.parametrize(
    ("file", "name", "version"),
    [
        ("x-1.0-py3-none-any.whl", "../../../pwned", "1.0"),
        ("x-1.0-py3-none-any.whl", "/tmp/pwned", "1.0"),
        ("x-1.0-py3-none-any.whl", "..", "1.0"),
        ("x-1.0-py3-none-any.whl", ".hidden", "1.0"),
        ("x-1.0-py3-none-any.whl", 'x"><script>alert(1)</script>', "1.0"),
        ("x-1.0-py3-none-any.whl", "", "1.0"),
        ("x-1.0-py3-none-any.whl", "x", "not a version!"),
        ("x-1.0-py3-none-any.whl", "x", ""),
        ("x-1.0-py3-none-any.whl", "x", "1.0+\x1b]0;PWNED\x07<script>"),
        ("x-1.0-py3-none-any.whl", "other", "1.0"),
        ("x-1.0-py3-none-any.whl", "x", "2.0"),
        ("x-1.0-py3-none-<script>.whl", "x", "1.0"),
        ("x-1.0-py3-none-\x1b[2J.whl", "x", "1.0"),
        ("x.whl", "x", "1.0"),
    ],
)
def test_a_name_or_version_that_is_none_is_told_and_nothing_is_written(
    wheels: Path, file: str, name: str, version: str
) -> None:
    named(wheels, file, name, version)
    before = content(wheels.parent)
    with pytest.raises(NotAWheel) as caught:
        write_index(wheels)
    assert content(wheels.parent) == before
    assert not Path("/tmp/pwned").exists()
    assert str(caught.value).replace("\n", " ").isprintable()


def test_all_that_cannot_be_listed_is_told_at_once(wheels: Path) -> None:
    named(wheels, "a-1.0-py3-none-any.whl", "../a")
    named(wheels, "b-1.0-py3-none-any.whl", "b", "no")
    (wheels / "c-1.0-py3-none-any.whl").mkdir()
    os.mkfifo(wheels / "d-1.0-py3-none-any.whl")
    (wheels / "e-1.0-py3-none-any.whl").symlink_to(next(wheels.glob("vllm-*.whl")))
    with pytest.raises(NotAWheel) as caught:
        write_index(wheels)
    assert all(f"{name}-1.0-py3" in str(caught.value) for name in "abcde")


@pytest.mark.parametrize("place", ["simple", "simple/vllm", "simple/other", ".lock"])
def test_a_link_where_a_page_is_to_be_is_not_followed(wheels: Path, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "index.html").write_text("mine")
    (tmp_path / "file").write_text("mine")
    if (wheels / place).is_dir():
        (wheels / place).rename(tmp_path / "moved")
    (wheels / place).unlink(missing_ok=True)
    (wheels / place).symlink_to(tmp_path / "file" if place == ".lock" else outside)
    before = content(tmp_path)
    with pytest.raises(NotWritable, match="is a link"):
        write_index(wheels)
    assert content(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"%s": {"size": 1}}', '{"%s": null}', "\udc80"])
def test_damaged_hashes_are_made_again(wheels: Path, text: str) -> None:
    wanted = content(wheels)
    name = next(wheels.glob("*.whl")).name
    (wheels / ".hashes.json").write_bytes(text.replace("%s", name).encode("utf-8", "surrogateescape"))
    write_index(wheels)
    assert content(wheels) == wanted


@pytest.fixture
def ask(wheels: Path) -> Iterator[object]:
    """Ask the server for a raw path: status and body."""
    running = server(wheels)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()

    def get(path: str) -> tuple[int, bytes]:
        client = HTTPConnection("127.0.0.1", running.server_address[1], timeout=10)
        client.putrequest("GET", path, skip_host=True)
        client.endheaders()
        answer = client.getresponse()
        return answer.status, answer.read()

    yield get
    running.shutdown()
    running.server_close()
    thread.join()


def test_the_server_shows_what_the_index_lists_and_nothing_else(wheels: Path, tmp_path: Path, ask) -> None:  # type: ignore[no-untyped-def]
    wheel = next(wheels.glob("vllm-*.whl"))
    for path in (
        f"/{wheel.name}",
        f"/{wheel.name}.metadata",
        "/simple/",
        "/simple/vllm/",
        "/simple/vllm/index.json",
    ):
        assert ask(path)[0] == 200, path
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (wheels / "link").symlink_to(secret)
    (wheels / "notes.txt").write_text("secret")
    (wheels / "vllm-0.12.0.manifest.json").write_text("secret")
    (wheels / "folder").symlink_to(tmp_path)
    (wheels / "simple/more").mkdir()
    (wheels / "simple/more/index.html").write_text("secret")
    (wheels / "new-1.0-py3-none-any.whl").write_text("secret")
    for path in (
        "/", "/link", "/notes.txt", "/vllm-0.12.0.manifest.json", "/folder/secret", "/simple/more/", "/.lock",
        "/.hashes.json", "/simple/../.lock", "/%2e%2e/secret", "/simple/vllm/../../../secret", "//etc/passwd",
        "/new-1.0-py3-none-any.whl", "/simple", "/simple/vllm", "/simple/vllm/%00", "/simple/vllm/x/",
    ):  # fmt: skip
        status, body = ask(path)
        assert (status, b"secret" in body) == (404, False), path
    for place, target in ((wheel, secret), (wheels / "simple/vllm", tmp_path / "moved")):
        place.rename(tmp_path / "moved")
        place.symlink_to(target)
        assert ask(f"/{wheel.name}" if place == wheel else "/simple/vllm/")[0] == 404
        place.unlink()
        (tmp_path / "moved").rename(place)


def test_what_a_client_asks_for_cannot_steer_the_terminal(ask, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert ask("/%1b]0;x%07")[0] == 404
    assert "\x1b]0" not in capsys.readouterr().err


def test_a_requirement_with_markup_is_escaped(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"vllm/__init__.py": b""}, requires=())
    with zipfile.ZipFile(wheel) as source:
        members = {name: source.read(name) for name in source.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name, data in members.items():
            target.writestr(name, data.replace(b"Requires-Python: >=3.10", b'Requires-Python: >=3"><script>'))
    wheel.write_bytes(out.getvalue())
    write_index(tmp_path)
    assert "<script" not in (tmp_path / "simple/vllm/index.html").read_text()


def test_a_publish_goes_on_beside_a_file_that_is_no_wheel(wheels: Path) -> None:
    (wheels / "foreign.whl").write_bytes(b"x")
    with pytest.raises(ArmoryError, match=r"foreign\.whl.*file name"):
        write_index(wheels)
    assert (wheels / "simple/vllm/index.html").exists()
