"""What is installed together: a vLLM wheel, its companions, and the requirements that hold their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from build_recipes.delivery.companions import Companions, companions, facts, target_of
from build_recipes.delivery.settings import Settings, settings
from build_recipes.facts import device as devices
from build_recipes.facts.device import Device
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.console import one_line
from build_recipes.kit.errors import NotAWheel, UsageError
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.sources.download import fetch_files

REQUIREMENTS, TOOLKIT = "requirements.txt", "toolkit.py"


@dataclass(frozen=True)
class Bundle:
    """Files and the text that pins them."""

    wheel: Path
    version: str
    device_name: str
    device: Device
    python: str
    """Minor version of the Python it is for."""
    files: dict[str, tuple[Path, str]]
    """File name to path and SHA-256; the wheel first."""
    texts: dict[str, str]
    """Files that lie beside them: requirements with hashes, for pip and uv (``--require-hashes``), and the script
    that makes the toolkit whole."""
    toolkit: str
    """The CUDA toolkit among the companions, below the environment ``{env}``; empty where there is none."""
    settings: Settings
    companions: Companions | None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path, _ in self.files.values())


def device_of(wheel: Path, given: str = "") -> str:
    """The device a wheel is for: the one given, else its version's local part, else this machine's.

    :raises NotAWheel: it is not a wheel of vLLM.
    :raises UsageError: nothing says which.
    """
    with Wheel(wheel) as opened:
        if opened.name != "vllm":
            raise NotAWheel(f"{wheel.name} is a wheel of {opened.name}", "give a vLLM wheel")
        local = opened.version.partition("+")[2].split(".")
    name = given or next((part for part in local if part in devices.devices()), "") or devices.detect() or ""
    if not name:
        raise UsageError(f"{wheel.name} does not say which device it is for", "say it: --device thor")
    return devices.canonical(name)


def bundle(wheel: Path, places: Places, *, device: str = "", python: str = "", bare: bool = False) -> Bundle:
    """Everything an installation needs, in the cache, each file checked by its hash.

    :param bare: the wheel alone; what it needs is there already.
    :raises ArmoryError: see `device_of`, `companions` and `fetch_files`.
    """
    name = device_of(wheel, device)
    python = python or facts().python
    digest = file_sha256(wheel)
    try:
        version = str(
            parse_wheel_filename(wheel.name)[1]
        )  # it goes into commands and files: a version, no text
    except InvalidWheelFilename as error:
        raise NotAWheel(
            f"{one_line(wheel.name)} is not a name of a wheel", "./inv retag makes a right one"
        ) from error
    files = {wheel.name: (wheel, digest)}
    lines = [f"vllm=={version} --hash=sha256:{digest}"]
    found = None if bare else companions(target_of("", wheel, name, python), places)
    triton = toolkit = ""
    if found:
        _check(found)
        paths = fetch_files(found.locked, places.downloads)
        files |= {pin.filename: (paths[pin.filename], pin.sha256) for pin in found.locked}
        files |= {path.name: (path, digest) for path, digest in found.built.items()}
        lines += [
            f"{canonicalize_name(pin.project)}=={pin.version} --hash=sha256:{pin.sha256}"
            for pin in found.locked
        ]
        lines += [
            "{}=={} --hash=sha256:{}".format(*parse_wheel_filename(path.name)[:2], digest)
            for path, digest in found.built.items()
        ]
        triton = next((pin.version for pin in found.locked if pin.project == "triton"), "")
        if any(pin.project == "nvidia-cuda-nvcc" for pin in found.locked):
            cuda = found.target.cuda.split(".")[0]
            toolkit = f"{{env}}/lib/python{python}/site-packages/nvidia/cu{cuda}"
    texts = {REQUIREMENTS: "\n".join(lines) + "\n"}
    if toolkit:
        texts[TOOLKIT] = Path(__file__).with_name(TOOLKIT).read_text(encoding="utf-8")
    chosen = settings(devices.device(name), triton, toolkit)
    return Bundle(wheel, version, name, devices.device(name), python, files, texts, toolkit, chosen, found)


def _check(found: Companions) -> None:
    """Refuse a set with which vLLM does not start.

    :raises UsageError: naming what is lacking.
    """
    device = found.target.device_name
    for one in found.entries:
        if facts().companion[one.name].vital and not one.runs:
            raise UsageError(
                f"{one.name} {one.version} does not run on {device}: {one.reason}",
                f"bring a {one.name} for {device} onto it, then --bare installs vLLM beside it",
            )
    if found.unbuilt:
        raise UsageError(
            f"{', '.join(found.unbuilt)} has no wheel for {device}",
            f"./inv companions --wheel WHEEL --device {device} --build {found.unbuilt[0].partition('==')[0]}",
        )


def installing(
    uv: str, environment: str, folder: str, python: str, *, under: bool = False, toolkit: str = ""
) -> list[list[str]]:
    """The commands that make an environment and install a bundle's files into it, without an index.

    :param uv: path of uv where they are run; so are the others.
    :param under: the environment sees what its Python has already.
    :param toolkit: `Bundle.toolkit`.
    """
    whole = [f"{environment}/bin/python", f"{folder}/{TOOLKIT}", toolkit.format(env=environment)]
    seen = ["--system-site-packages"] if under else []
    return [
        [uv, "venv", "--quiet", "--allow-existing", *seen, "--python", python, environment],
        [
            uv, "pip", "install", "--quiet", "--python", f"{environment}/bin/python", "--no-index", "--no-deps",
            "--find-links", folder, "--require-hashes", "--requirements", f"{folder}/{REQUIREMENTS}",
        ],
        *([whole] if toolkit else []),
    ]  # fmt: skip


def serve_line(made: Bundle, environment: str) -> str:
    """The line that starts vLLM from an environment, for a shell."""
    import shlex

    variables = [f"{key}={value.format(env=environment)}" for key, value in made.settings.environment.items()]
    words = [f"{environment}/bin/vllm", "serve", "MODEL", *made.settings.options]
    return " ".join(shlex.quote(word) for word in (*variables, *words))
