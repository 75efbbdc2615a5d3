"""Record what real imports of a package (vllm-omni where none is named) on vLLM tell, for test_compat_truth.py.

    .venv/bin/python tests/record_compat.py ENV [NAME==]VERSION:VLLM ...

ENV is an environment with torch and the dependencies of both (`invoke verify-omni --stub` makes one in the
cache; one environment serves many pairs). Each pair is one file in tests/data/compat/imports: the modules
that failed, whose fault each failure is, and the versions of what it was run with.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.errors import CouldNotCheck, OmniBreaks
from build_recipes.verify.command import verify
from build_recipes.verify.options import Options

DATA = Path(__file__).parent / "data" / "compat" / "imports"
_VERSIONS = "from importlib.metadata import version as v; print(v('torch'), v('transformers'), v('pydantic'))"


def record(env: Path, omni: str, vllm: str) -> Path:
    """Import one pair and write its file."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(OmniBreaks, CouldNotCheck):
        package = omni if "==" in omni else f"vllm-omni=={omni}"
        verify(Options(tag=f"v{vllm}", packages=(package,), stub=True, env=str(env), limit=7200, json=True))
    found = json.loads(printed.getvalue())["imports"]
    torch, transformers, pydantic = process.capture([env / "bin" / "python", "-c", _VERSIONS]).split()
    document = {
        "package": omni.partition("==")[0] if "==" in omni else "vllm-omni",
        "omni": omni.rpartition("==")[2],
        "vllm": vllm,
        "made_by": f"invoke verify-omni --tag v{vllm} --omni {omni} --stub --json"
        if "==" not in omni
        else f"invoke verify --package {omni} --tag v{vllm} --stub --json",
        "with": {"torch": torch, "transformers": transformers, "pydantic": pydantic},
        "modules": found["modules"],
        "failures": [{k: v for k, v in entry.items() if v != ""} for entry in found["failures"]],
    }
    DATA.mkdir(parents=True, exist_ok=True)
    path = DATA / f"{omni.replace('==', '-')}-on-{vllm}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


if __name__ == "__main__":
    for pair in sys.argv[2:]:
        path = DATA / (pair.replace(":", "-on-").replace("==", "-") + ".json")
        if not path.exists():
            sys.stderr.write(f"{pair}\n")
            record(Path(sys.argv[1]), *pair.split(":"))
