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
from typing import Any, cast

import pytest
from wheel_maker import make_wheel

from build_recipes.audit.closure import Listed
from build_recipes.delivery import building, companions, deliver, image, install, judge
from build_recipes.delivery import bundle as bundling
from build_recipes.delivery.bundle import Bundle, bundle
from build_recipes.facts import device as devices
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import paths
from build_recipes.kit.data import parse_toml
from build_recipes.kit.errors import BoardFailed, NotAWheel, UsageError
from build_recipes.kit.hashing import file_sha256
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


@pytest.mark.parametrize(
    "path", sorted((paths.LOCKS / "companions").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_lock_of_companions_has_one_cuda_compiler(path: Path) -> None:
    """nvvm of a newer CUDA writes PTX that nvcc's own ptxas refuses, and FlashInfer's first kernel fails."""
    rows = {row["name"]: row["version"] for row in parse_toml(path.read_text())["packages"]}
    names = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-cccl")
    assert len({rows[name].rsplit(".", 1)[0] for name in names}) == 1, {name: rows[name] for name in names}


def shared(folder: Path, name: str, source: str, *needs: Path) -> Path:
    """A shared library for this machine."""
    (folder / "x.c").write_text(source)
    path = folder / name
    words = ["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", "-Wl,--unresolved-symbols=ignore-all"]
    subprocess.run([*words, f"-Wl,-soname,{name}", "-o", path, folder / "x.c", *needs], check=True)
    return path


@pytest.mark.parametrize(
    ("symbol", "beside", "code"),
    [
        ("_ZN3c1012none_of_theseEv", "", "absent"),
        ("heif_context_alloc", "", "absent"),
        ("heif_context_alloc", "libheif.so.1", "host code"),  # a library of the system: not torch's fault
        ("_ZN3c1012none_of_theseEv", "libheif.so.1", "absent"),
    ],
)
def test_only_what_torch_lacks_is_another_torch(tmp_path: Path, symbol: str, beside: str, code: str) -> None:
    c10 = shared(tmp_path, "libc10.so", "int c10_here;")
    needs = [c10, shared(tmp_path, beside, "int other;")] if beside else [c10]
    source = (
        f"void {symbol}(void); extern int c10_here; int PyInit_x(void) {{ {symbol}(); return c10_here; }}"
    )
    source = f"extern int _ZN3c104hereEv; int *q = &_ZN3c104hereEv; {source}"
    module = shared(tmp_path, "x.so", source, *needs)
    tag = f"cp310-cp310-manylinux_2_17_{platform.machine()}"
    wheel = make_wheel(
        tmp_path, {"x/x.so": module.read_bytes()}, project="x", version="1", tag=tag, requires=()
    )
    torch = [Listed("libc10.so", (), frozenset({"c10_here", "_ZN3c104hereEv"}))]
    assert judge.judge(wheel, devices.device(HERE), torch).code == code
    assert judge.judge(wheel, devices.device(HERE), torch, apart="x/").code == "Python"


def test_the_toolkit_of_wheels_gets_the_names_that_a_linker_asks_for(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libcudart.so.13").write_text("x")
    script = Path(companions.__file__).with_name("toolkit.py")
    for _ in range(2):
        subprocess.run([sys.executable, script, tmp_path], check=True)
        assert (tmp_path / "lib64/libcudart.so").read_text() == "x"


def test_a_set_without_a_torch_for_the_device_is_refused(
    wheel: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = companions.target_of("v0.12.0", None, "orin")
    lost = companions.Entry("torch", "2.11.0", "absent", "no code for 8.7", "", "", None)
    found = companions.Companions(target, (lost,), (), (), Path())
    monkeypatch.setattr(bundling, "target_of", lambda *_: target)
    monkeypatch.setattr(bundling, "companions", lambda *_: found)
    with pytest.raises(UsageError, match=r"torch 2\.11\.0 does not run on orin: no code for 8\.7"):
        bundle(wheel, places, device="orin")


# -- built here ----------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A project with one module in C."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "tiny.c").write_text(
        "#include <Python.h>\n#ifdef __x86_64__\nint cpu = 1;\n#endif\n"
        'static struct PyModuleDef d = {PyModuleDef_HEAD_INIT, "tiny"};\n'
        "PyMODINIT_FUNC PyInit_tiny(void) { return PyModule_Create(&d); }\n"
    )
    (folder / "setup.py").write_text(
        "from setuptools import Extension, setup\n"
        "setup(name='tiny', version='1.0', ext_modules=[Extension('tiny', ['tiny.c'])])\n"
    )
    return folder


@pytest.mark.network
@pytest.mark.parametrize("device", ["h200", "thor"])
def test_a_module_is_built_for_the_device_by_its_own_backend(
    source: Path, places: Places, tmp_path: Path, device: str
) -> None:
    machine = devices.device(device).machine
    if machine != platform.machine() and not shutil.which(f"{machine}-linux-gnu-gcc"):
        pytest.skip(f"no cross compiler: apt-get install g++-{machine}-linux-gnu")
    target = companions.target_of("v0.12.0", None, device, PYTHON)
    made = building.environment(tmp_path, target, building.Recipe(), ["setuptools"], places)
    wheel = building.finish(building.run(tmp_path, source, ["setuptools.build_meta"], made), target, places)
    assert wheel.name.endswith(f"_{machine}.whl")
    assert "-manylinux_2_" in wheel.name
    with Wheel(wheel) as opened:
        (module,) = [name for name in opened.members if name.endswith(".so")]
        assert module == f"tiny.cpython-{PYTHON.replace('.', '')}-{machine}-linux-gnu.so"
    assert judge.judge(wheel, devices.device(device), []).code == "host code"


def test_a_built_companion_joins_the_set_while_its_record_is_true(places: Places) -> None:
    target = companions.target_of("v0.12.0", None, "thor")
    name = next(one.name for one in companions.companions(target, places).entries if one.code == "no wheel")
    tag = "cp312-cp312-manylinux_2_17_aarch64"
    wheel = make_wheel(
        places.wheels, {"x.py": b""}, project=name.replace("-", "_"), version="1", tag=tag, requires=()
    )
    record = companions.Built(
        name=name, version="1", wheel=wheel.name, sha256=file_sha256(wheel), code="Python", reason="built",
        device="thor", torch=target.torch, python="3.12", sdist="0" * 64, build={},
    )  # fmt: skip
    record.path(places).write_text(json.dumps(record.as_dict()))
    found = companions.companions(target, places)
    assert {one.name: one.code for one in found.entries}[name] == "Python"
    assert found.built == {wheel: record.sha256}
    wheel.write_bytes(wheel.read_bytes() + b" ")
    assert not companions.companions(target, places).built


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


@pytest.mark.parametrize(
    ("seen", "said", "advice"),
    [
        ({"compatible": ["nvidia,p3768-0000", "nvidia,tegra234"]}, "Jetson AGX Orin", "--tag v0.33.0 --device orin"),
        ({"gpus": ["NVIDIA GB10"]}, "DGX Spark", "./inv advise --tag v0.33.0 --device spark"),
        ({"machine": "x86_64"}, "is x86_64, the wheel is for aarch64", "./inv devices"),
        ({"glibc": "2.35"}, "has glibc 2.35, the wheel needs 2.39", "./inv image vllm-0.33.0+cu130.thor"),
    ],
)  # fmt: skip
def test_a_board_of_another_device_is_refused_before_a_byte_is_copied(
    seen: dict[str, Any], said: str, advice: str
) -> None:
    """A Jetson tells what it is in its device tree, the others by the model that the driver reads from the GPU."""
    name = Path("vllm-0.33.0+cu130.thor.native-cp38-abi3-manylinux_2_39_aarch64.whl")
    made = Bundle(
        name,
        "0.33.0+cu130.thor.native",
        "thor",
        devices.device("thor"),
        "3.12",
        {},
        {},
        "",
        cast(Any, None),
        None,
    )
    looked: dict[str, Any] = {
        "machine": "aarch64",
        "glibc": "2.39",
        "compatible": [],
        "gpus": [],
        "disk_free": 1 << 40,
    }
    deliver.check("a", cast(Any, looked), made)
    thor = {"compatible": ["nvidia,p3834-0008", "nvidia,tegra264"]}
    deliver.check("thor", cast(Any, looked | thor), made)
    with pytest.raises(BoardFailed, match=said) as caught:
        deliver.check("board", cast(Any, looked | seen), made)
    assert advice in caught.value.advice


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
def test_several_boards_end_in_a_line_for_each(
    wheel: Path, sshd: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    sshd.known()
    boards = [f"root@127.0.0.1:{sshd.port}", "root@127.0.0.1:1"]
    done = deliver.deliver(wheel, boards, device="", python=PYTHON, bare=True, tiers="", port=0, env="")
    assert [bool(one.failed) for one in done] == [False, True]
    deliver.show(done)
    shown = capsys.readouterr().err
    assert "vLLM is on 1 of 2 boards" in shown
    assert f"  {boards[1]}  failed: {boards[1]} cannot be reached" in " ".join(shown.split("\n"))
    with pytest.raises(BoardFailed, match=r"1 of 2 boards failed: root@127\.0\.0\.1:1"):
        deliver.judge(done)


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
