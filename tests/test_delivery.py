"""From a wheel to a machine: companions from their lock, an installation, a real sshd as the board, an image."""

from __future__ import annotations

import json
import os
import platform
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
from wheel_maker import make_wheel

from build_recipes.delivery import companions, deliver, image, install
from build_recipes.delivery.bundle import bundle
from build_recipes.facts import device as devices
from build_recipes.kit.errors import BoardFailed, NotAWheel, UsageError
from build_recipes.kit.paths import Places

HERE = "h200" if platform.machine() == "x86_64" else "gh200"
"""A device with this machine's CPU."""
PYTHON = "{}.{}".format(*sys.version_info[:2])
VERSION = f"0.12.0+cu130.{HERE}"


@pytest.fixture
def wheel(places: Places) -> Path:
    """A tiny vLLM for this machine, in wheels/."""
    tag = f"cp38-abi3-manylinux_2_17_{platform.machine()}"
    return make_wheel(
        places.wheels, {"vllm/__init__.py": b"tiny = True\n"}, version=VERSION, tag=tag, requires=()
    )


# -- companions ----------------------------------------------------------------------------------


def test_the_companions_of_a_locked_tag_are_read_without_a_network(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("the network was asked"))
    found = companions.companions(companions.target_of("v0.12.0", None, "thor"), places)
    by_name = {one.name: one for one in found.entries}
    assert {pin.project for pin in found.locked} >= {"torch", "triton", "torchvision", "flashinfer-python"}
    assert "flashinfer-cubin" not in {pin.project for pin in found.locked}  # it has no code for Thor
    assert by_name["flashinfer-cubin"].code == "absent"
    assert by_name["xformers"].code == "no wheel"
    assert by_name["torchvision"].version == "0.26.0"  # the newest that was built for torch 2.11
    assert all(len(pin.sha256) == 64 and pin.size > 0 for pin in found.locked)
    torch = next(pin for pin in found.locked if pin.project == "torch")
    assert torch.version == found.target.torch
    json.dumps(found.as_dict())


def test_every_companion_says_what_follows_without_it() -> None:
    assert all(fact.use and fact.without for fact in companions.facts().companion.values())
    assert all(
        fact.same_as in ("", *companions.facts().companion) for fact in companions.facts().companion.values()
    )


# -- this machine --------------------------------------------------------------------------------


@pytest.mark.network
def test_install_makes_an_environment_that_imports_it(wheel: Path, tmp_path: Path) -> None:
    done = install.install(wheel, tmp_path / "env", device="", python=PYTHON, bare=True)
    assert done.bundle.device_name == HERE
    assert done.serve.startswith(
        f"PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True {tmp_path}/env/bin/vllm serve MODEL"
    )
    code = "import vllm; assert vllm.tiny"
    subprocess.run([tmp_path / "env/bin/python", "-c", code], check=True)


def test_install_refuses_a_wheel_of_another_cpu(places: Places, tmp_path: Path) -> None:
    other = "thor" if platform.machine() == "x86_64" else "h200"
    tag = f"cp38-abi3-manylinux_2_17_{devices.device(other).machine}"
    path = make_wheel(
        places.wheels, {"vllm/__init__.py": b""}, version=f"0.12.0+cu130.{other}", tag=tag, requires=()
    )
    with pytest.raises(UsageError) as caught:
        install.install(path, tmp_path / "env", device="", python=PYTHON, bare=True)
    assert "./inv deliver" in caught.value.advice


# -- a board -------------------------------------------------------------------------------------


@dataclass
class Sshd:
    """A real OpenSSH server on loopback, whose home folder is ``home``."""

    port: int
    home: Path
    client: Path
    """The .ssh folder of who logs in."""

    def known(self) -> None:
        """Put its host key into known_hosts."""
        line = (self.client.parent.parent / "host.pub").read_text()
        (self.client / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {line}")


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if not program or os.geteuid() != 0:
        pytest.skip("no sshd, or not root: apt-get install openssh-server")
    Path("/run/sshd").mkdir(exist_ok=True)
    client, home = tmp_path / "client/.ssh", tmp_path / "home"
    client.mkdir(parents=True, mode=0o700)
    home.mkdir()
    for name in (tmp_path / "host", client / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], check=True)
    keys = tmp_path / "authorized_keys"
    keys.write_text((client / "id_ed25519.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = tmp_path / "sshd_config"
    settings.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {keys}\nStrictModes no\n"
        f"PasswordAuthentication no\nPermitRootLogin prohibit-password\nSetEnv HOME={home}\n"
        "Subsystem sftp internal-sftp\nUsePAM no\nPidFile none\n"
    )
    monkeypatch.setenv("HOME", str(client.parent))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    server = subprocess.Popen(
        [program, "-D", "-e", "-f", settings], stderr=(tmp_path / "sshd.log").open("wb")
    )
    try:
        for _ in range(100):
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Sshd(port, home, client)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def delivered(wheel: Path, sshd: Sshd) -> deliver.Delivery:
    (done,) = deliver.deliver(
        wheel, ["root@127.0.0.1"], device="", python=PYTHON, bare=True, tiers="", port=sshd.port, env=""
    )
    return done


@pytest.mark.network
def test_deliver_copies_installs_and_sends_nothing_twice(wheel: Path, sshd: Sshd) -> None:
    sshd.known()
    first = delivered(wheel, sshd)
    assert first.looked["machine"] == platform.machine()
    assert first.copied > wheel.stat().st_size
    code = "import vllm; print(vllm.tiny)"
    assert subprocess.check_output([sshd.home / "vllm-env/bin/python", "-c", code], text=True) == "True\n"
    again = delivered(wheel, sshd)
    assert (again.copied, again.there) == (0, first.copied)


@pytest.mark.network
def test_a_file_that_was_cut_goes_on_and_a_damaged_one_is_refused(wheel: Path, sshd: Sshd) -> None:
    sshd.known()
    delivered(wheel, sshd)
    there = next(sshd.home.rglob(wheel.name))
    there.rename(f"{there}.part")
    os.truncate(f"{there}.part", 100)
    assert delivered(wheel, sshd).copied == wheel.stat().st_size - 100
    there.unlink()
    Path(f"{there}.part").write_bytes(b"x" * 100)
    with pytest.raises(BoardFailed, match="arrived damaged"):
        delivered(wheel, sshd)
    assert delivered(wheel, sshd).copied == wheel.stat().st_size


def test_a_host_key_that_is_not_known_or_has_changed_is_refused(
    wheel: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_deliver", lambda *_: pytest.fail("it went on"))
    with pytest.raises(BoardFailed, match="is not known"):
        delivered(wheel, sshd)
    wrong = (sshd.client / "id_ed25519.pub").read_text()
    (sshd.client / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {wrong}")
    with pytest.raises(BoardFailed, match="is not the one that is known"):
        delivered(wheel, sshd)
    sshd.known()
    (sshd.client / "id_ed25519").unlink()
    with pytest.raises(BoardFailed) as caught:
        delivered(wheel, sshd)
    assert "ssh-copy-id" in caught.value.advice


# -- an image ------------------------------------------------------------------------------------


@pytest.mark.network
def test_the_context_of_an_image_is_whole_and_the_same_twice(wheel: Path, tmp_path: Path) -> None:
    done = [
        image.image(
            wheel, device="", python="3.12", bare=True, base="example.org/base@sha256:" + "0" * 64, name="",
            tool="", format="docker", context=tmp_path / name,
        )
        for name in ("a", "b")
    ]  # fmt: skip
    assert not done[0].name
    text = (tmp_path / "a/Containerfile").read_text()
    assert text == (tmp_path / "b/Containerfile").read_text()
    assert f"FROM example.org/base@sha256:{'0' * 64}\n" in text
    assert "--require-hashes" in text
    assert "\nUSER 1000\n" in text
    assert 'ENTRYPOINT ["/opt/vllm/bin/vllm", "serve", "--gpu-memory-utilization", "0.90"]' in text
    assert "HEALTHCHECK" in text
    files = sorted(path.name for path in (tmp_path / "a/files").iterdir())
    assert files == sorted(["requirements.txt", "uv", wheel.name])


def test_a_wheel_whose_name_is_text_does_not_reach_a_containerfile(wheel: Path, places: Places) -> None:
    bad = wheel.rename(wheel.with_name("vllm-0.12.0\nRUN true-py3-none-any.whl"))
    with pytest.raises(NotAWheel):
        bundle(bad, places, device=HERE, bare=True)
