"""Record which of all names that vllm-omni releases ask of vLLM a real import finds, for test_compat_truth.py.

    .venv/bin/python tests/names_compat.py ENV VERSION [VERSION ...]

One line per vLLM version in tests/data/compat/names.json, one letter per question: ``+`` found, ``0`` found as
None, ``-`` missing, ``?`` the import failed for want of something else (a GPU, another platform's package).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.paths import Places
from build_recipes.verify import packages
from build_recipes.verify.check import Checker
from build_recipes.verify.judge import matrix
from build_recipes.verify.read import releases
from build_recipes.verify.read.tree import OMNI, VLLM
from build_recipes.verify.run import environment, probe

DATA = Path(__file__).parent / "data" / "compat" / "names.json"
_ASK = """
import importlib, json, os, sys
sys.argv[1:2], job = [], json.load(open(sys.argv[1]))
sys.path[:0] = [job["probe"], *job["paths"]]
import probe
sys.meta_path.append(probe.Products(job["products"], {"vllm": job["version"]}))
probe._stand_in_operators()

def letter(module, name):
    try:
        importlib.import_module(module)
        if not name or name == "*":
            return "+"
        scope = {}
        exec(f"from {module} import {name} as found", scope)
        return "0" if scope["found"] is None else "+"
    except ModuleNotFoundError as error:
        return "-" if (error.name or "").split(".")[0] == "vllm" else "?"
    except ImportError as error:
        return "-" if str(error).startswith(f"cannot import name {name!r} from {module!r}") else "?"
    except BaseException:
        return "?"

open(job["out"], "w").write("".join(letter(m, n) for m, n in job["questions"]))
os._exit(0)
"""


def questions(places: Places) -> list[tuple[str, str]]:
    """Every ``(module, name)`` that any vllm-omni release imports."""
    found: set[tuple[str, str]] = set()
    omni = packages.named("vllm-omni")
    for published in releases.listing(OMNI, places).releases:
        found.update(
            (module, name) for kind, module, name in matrix._ask(places, published, omni) if kind == "n"
        )
    return sorted(found)


def record(env: Path, version: str, asked: list[tuple[str, str]]) -> str:
    """One letter per question."""
    tree = Checker(Places.from_environment()).release(VLLM, version)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        job = {
            "probe": str(folder),
            "paths": [str(environment.unpack(tree, folder / "vllm"))],
            "products": sorted(name for name in tree.products if ".third_party" not in name),
            "version": version,
            "questions": asked,
            "out": str(folder / "out"),
        }
        shutil.copy(probe.__file__, folder / "probe.py")
        (folder / "job.json").write_text(json.dumps(job))
        (folder / "ask.py").write_text(_ASK)
        process.run([env / "bin" / "python", "-I", folder / "ask.py", folder / "job.json"])
        return (folder / "out").read_text()


if __name__ == "__main__":
    data = json.loads(DATA.read_text()) if DATA.exists() else {}
    data.setdefault("questions", questions(Places.from_environment()))
    for version in sys.argv[2:]:
        sys.stderr.write(f"{version}\n")
        data.setdefault("answers", {})[version] = record(Path(sys.argv[1]), version, data["questions"])
        DATA.write_text(json.dumps(data, indent=0) + "\n")
