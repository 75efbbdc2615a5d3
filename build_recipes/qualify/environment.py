"""An environment that holds the wheel: a virtual environment over a Python that has torch, and nothing more."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from build_recipes.build.stages import record
from build_recipes.kit import process
from build_recipes.kit.errors import CouldNotCheck, ToolFailed, UsageError
from build_recipes.kit.once import remove_tree

_ASK = (
    "import importlib.util as u, sysconfig, sys; s = u.find_spec('torch'); "
    "print(sysconfig.get_path('purelib'), s.origin if s else '', '{}.{}'.format(*sys.version_info[:2]), sep='\\n')"
)


@dataclass(frozen=True)
class Base:
    """A Python that has torch."""

    python: Path
    site: Path
    torch: Path
    """The torch package's folder."""

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Folders of the libraries that vLLM's modules are loaded with."""
        return tuple(path for path in (self.torch / "lib", self.site / "nvidia/cu13/lib") if path.is_dir())


def base(python: str) -> Base:
    """The Python at ``python``, or the python3 of PATH (less this program's own environment).

    :raises UsageError: it does not run.
    :raises CouldNotCheck: it has no torch.
    """
    own = Path(sys.prefix) / "bin"
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != own)
    program = python or shutil.which("python3", path=path) or "python3"
    try:
        site, torch, _ = f"{process.capture([program, '-c', _ASK])}\n\n".split("\n")[:3]
    except (ValueError, ToolFailed) as error:
        raise UsageError(
            f"{program} does not run: {error.args[0]}", "name a Python: --python /path/to/python3"
        ) from None
    if not torch:
        raise CouldNotCheck(
            f"{program} has no torch, and a vLLM wheel runs on one",
            "name a Python that has it and vLLM's requirements: --python /path/to/python3",
        )
    return Base(Path(program), Path(site), Path(torch).parent)


def make(under: Base, wheel: Path, extra: list[Path], folder: Path, digest: str) -> Path:
    """A virtual environment with the wheel and ``extra`` wheels, in which ``under``'s packages are seen, too.

    Nothing is resolved and nothing is fetched: what a wheel needs is in ``extra`` or in ``under``.

    :param digest: SHA-256 of the wheel; the same again is not made again.
    :returns: its interpreter.
    :raises CouldNotCheck: uv cannot install the wheels; its words are given.
    """
    seal = {"wheel": digest, "extra": sorted(path.name for path in extra), "under": str(under.site)}

    def work() -> dict[str, str]:
        remove_tree(folder / "env")
        python = folder / "env/bin/python"
        _uv(
            ["venv", "--quiet", "--no-project", "--offline", "--python", under.python, folder / "env"], folder
        )
        words: list[str | Path] = [
            "pip",
            "install",
            "--quiet",
            "--offline",
            "--no-index",
            "--no-deps",
            "--python",
            python,
        ]
        _uv([*words, wheel, *extra], folder)
        site = next((folder / "env/lib").glob("python3*/site-packages"))
        (site / "zz-under.pth").write_text(f"{under.site}\n")  # its own packages come first
        return {"python": str(python)}

    return Path(record.once(folder, "environment", seal, work).outputs["python"])


def _uv(words: list[str | Path], folder: Path) -> None:
    from uv import find_uv_bin

    environment = process.child_environment(UV_NO_CONFIG="1", UV_CACHE_DIR=str(folder / "uv-cache"))
    environment.pop("VIRTUAL_ENV", None)
    done = process.run([find_uv_bin(), *words], env=environment)
    if not done.ok:
        raise CouldNotCheck(
            "the wheel cannot be installed for the trial:\n" + "\n".join(done.tail[-8:]),
            "check its platform tag and --with",
        )
