"""What the proof needs beside vLLM's files: a Python with a CPU torch, and two small libraries compiled here."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

HERE = Path(__file__).resolve().parent
TORCH = "2.13.0"
LIGHT = (
    "blake3 cachetools cbor2 cloudpickle filelock fsspec jinja2 msgspec networkx numpy packaging pillow psutil "
    "pydantic pyyaml pyzmq regex requests setproctitle setuptools<81 sympy typing_extensions"
)
"""What vLLM's platform detection and torch import, in any of the versions."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def python(cache: Path) -> Path:
    """An interpreter with torch; a CPU build is enough.

    PyPI has none for x86_64, so it comes from wherever pip is configured to look, or from PyTorch's own CPU index.
    Where neither answers it is PyPI's, with the 3 GB of CUDA libraries that it needs to be imported.
    """
    version = "-".join(map(str, sys.version_info[:2]))
    kind = hashlib.sha256(f"{LIGHT} {TORCH}".encode()).hexdigest()[:8]
    home = cache / "platform-proof" / f"python-{version}-{kind}"
    program = home / "bin/python"
    if (home / "ready").exists():
        return program
    shutil.rmtree(home, ignore_errors=True)
    run(
        [find_uv_bin(), "venv", "--quiet", "--seed", "--python", sys.executable, home]
    )  # Debian's venv lacks pip
    pip: list[str | Path] = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, *LIGHT.split()])
    wheel = f"torch=={TORCH}"
    for words in (
        ["--no-deps", f"{wheel}+cpu"],
        ["--no-deps", "--index-url", CPU_INDEX, "--retries", "1", f"{wheel}+cpu"],
        [wheel],
    ):
        with contextlib.suppress(AssertionError):
            run([*pip, *words])
            break
    run([program, "-c", "import torch"])
    (home / "ready").touch()
    return program


def libraries(folder: Path) -> tuple[Path, Path]:
    """The fake NVML and the fake root, compiled into ``folder``."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "the proof needs a C compiler: apt-get install gcc"
    made = []
    for name, output in (("nvml.c", "libnvidia-ml.so.1"), ("root.c", "root.so")):
        run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / output, HERE / name, "-ldl"])
        made.append(folder / output)
    return made[0], made[1]


def run(argv: list[str | Path]) -> str:
    """Output of a command; an assertion with its last lines where it fails."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv[0]} {argv[1]}: {done.stderr[-1500:]}"
    return done.stdout
