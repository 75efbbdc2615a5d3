"""Environments for the import tier: uv makes them, from a wheel or from the requirements of a source tree."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from build_recipes.facts.versions import facts, for_version
from build_recipes.kit import console, process
from build_recipes.kit.errors import ArmoryError, CouldNotCheck
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places
from build_recipes.verify.read import archive
from build_recipes.verify.read.tree import VLLM, Tree

_NOT_FOR_IMPORTS = frozenset(
    {"fa3-fwd", "gradio", "flashinfer-python", "flashinfer-cubin", "ray", "vllm", "torch"}
)
"""Requirements that no import needs and that are large or for one machine only."""


@contextmanager
def fresh(wheel: Path, omni: str, places: Places) -> Iterator[Path]:
    """A new environment with a vLLM wheel and a vllm-omni requirement or file; its Python. Removed after use.

    :raises CouldNotCheck: it cannot be made; uv's last words are in the message.
    """
    places.build.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="verify-omni-", dir=places.build))
    try:
        python = _venv(folder)
        _install(python, [str(wheel), omni], folder)
        yield python
    finally:
        remove_tree(folder)


def for_stubs(vllm: Tree, omni: Tree, places: Places) -> Path:
    """The Python of an environment with a CPU torch and the dependencies of both; kept in the cache and shared
    by all pairs that ask for the same.

    :raises CouldNotCheck: it cannot be made.
    """
    needed = requirements(vllm)
    wanted = [line for line in omni.index.requires if _applies(line)]
    inputs = [*needed, "--", *wanted, default_torch(vllm), sys.version]
    key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]
    folder = places.cache / "stub-env" / key
    python = folder / "bin" / "python"
    if (folder / ".whole").exists():
        return python
    remove_tree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    console.step("stub", f"installing a CPU torch and {len(needed)} requirements into {folder}")
    _venv(folder)
    try:
        _install(python, ["--torch-backend", "cpu", "torch", "torchvision", "torchaudio"], folder)
    except CouldNotCheck:
        torch = default_torch(vllm)
        console.warn(f"no CPU torch from its own index; taking {torch} of the default index")
        _install(python, [f"torch=={torch}", "torchvision", f"torchaudio=={torch}"], folder)
    _install(python, needed, folder)
    try:
        _install(python, wanted, folder)
    except CouldNotCheck:
        console.warn("vllm-omni's requirements do not go together with vLLM's; installing them one by one")
        for line in wanted:
            try:
                _install(python, [line], folder)
            except CouldNotCheck as error:
                console.warn(f"without {line}: {error.args[0].splitlines()[-1]}")
    (folder / ".whole").touch()
    return python


def default_torch(vllm: Tree) -> str:
    """The torch to take from PyPI, where torchaudio has the same version: it refuses a torch of another CUDA, and
    its releases have ended."""
    last = facts().last_torchaudio
    try:
        wanted = for_version(Version(vllm.version).base_version).torch
    except (ValueError, ArmoryError):
        return last
    return min(wanted, last, key=Version)


def requirements(vllm: Tree) -> list[str]:
    """What vLLM's Python modules need, without torch and without what only a GPU needs."""
    lines = vllm.index.extras.get("common.txt", "").splitlines() or vllm.index.requires
    return [line for line in (text.partition("#")[0].strip() for text in lines) if line and _applies(line)]


def _applies(line: str) -> bool:
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        return False
    if wanted.name.lower().replace("_", "-") in _NOT_FOR_IMPORTS | {"torchvision", "torchaudio"}:
        return False
    return wanted.marker is None or wanted.marker.evaluate({"extra": ""})


def unpack(tree: Tree, folder: Path) -> Path:
    """Write the Python and data files of a tree below ``folder``, with its name and version as metadata: of vLLM
    those of a build for CPUs.

    (vLLM asks its own version for ``cpu`` to choose its platform; without it none is chosen and half of its
    modules cannot be imported. Member paths were checked when the archive was read.)
    """
    for path in tree.index.files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(tree.source(path))
    for name, content in archive.data_files(tree.path, tree.package):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    version = tree.version or "0"
    if tree.package == VLLM:
        version = f"{version.partition('+')[0]}+cpu"
    name = re.sub(r"\W+", "_", tree.index.name or tree.package)  # a part of a path
    info = folder / f"{name}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def _venv(folder: Path) -> Path:
    _uv(["venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)], folder)
    return folder / "bin" / "python"


def _install(python: Path, what: list[str], folder: Path) -> None:
    _uv(["pip", "install", "--quiet", "--python", str(python), *what], folder)


def _uv(words: list[str], folder: Path) -> None:
    """Run uv. Its errors are a CouldNotCheck: an environment that cannot be made says nothing on the pair."""
    program = Path(sys.executable).with_name("uv")
    uv = str(program) if program.exists() else shutil.which("uv")
    if uv is None:
        raise CouldNotCheck("uv is not there", "./inv sets it up")
    environment = process.child_environment()
    ended = process.run([uv, *words], env=environment)
    if not ended.ok:
        raise CouldNotCheck(
            f"uv {' '.join(words[:3])} failed:\n" + "\n".join(ended.tail[-12:]), "read uv's words above"
        )
