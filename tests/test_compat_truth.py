"""The static tier against real imports that were recorded (see record_compat.py and names_compat.py).

The imports ran with a CPU torch on a machine without a GPU, vLLM's compiled modules replaced by stand-ins.
What differs for that reason is in `EXPLAINED`; nothing else may differ.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from build_recipes.kit.paths import Places
from build_recipes.verify import packages
from build_recipes.verify.check import Checker, show
from build_recipes.verify.judge.answers import NONE
from build_recipes.verify.judge.resolve import MISSING, Resolver
from build_recipes.verify.read.tree import OMNI, VLLM

DATA = Path(__file__).parent / "data" / "compat"
NAMES = json.loads((DATA / "names.json").read_text())
PAIRS = {path.stem: json.loads(path.read_text()) for path in sorted((DATA / "imports").glob("*.json"))}
QUICK = {"0.11.0", "0.12.0", "0.14.0", "0.16.0", "0.22.0", "0.33.0"}
"""vLLM releases (130 MB of sdists) whose names and pairs are looked at by default; the others are ``slow``."""
BIG = {"0.32.0rc1-on-0.33.0"}
OTHERS = {"trl-1.0.0-on-0.33.0", "sendnn-inference-2.6.3-on-0.33.0", "vllm-ascend-0.30.0rc2-on-0.33.0"}
"""Pairs of other packages that are looked at by default."""
HOOKED = {
    (
        "vllm-ascend-0.23.0.post1-on-0.33.0",
        "vllm_ascend/patch/worker/patch_weight_utils.py",
    ): "the package's own __import__, recorded as the last file; the module that asked is told"
}

EXPLAINED = {
    ("vllm.v1.attention.backends.fa_utils", "flash_attn_varlen_func"): "only defined where there is a GPU",
    ("vllm.attention.utils.fa_utils", "flash_attn_varlen_func"): "only defined where there is a GPU",
}

pytestmark = pytest.mark.network


_LATER = [pytest.mark.slow, pytest.mark.skipif("ARMORY_SLOW" not in os.environ, reason="set ARMORY_SLOW=1")]


def _marked(cases: Any, vllm: Any) -> list[Any]:
    return [case if vllm(case) in QUICK else pytest.param(case, marks=_LATER) for case in cases]


def _when(pair: str) -> str:
    mine = pair in OTHERS or PAIRS[pair].get("package", "vllm-omni") == "vllm-omni"
    return PAIRS[pair]["vllm"] if mine and pair not in BIG else ""


@functools.cache
def _checker(distribution: str = "vllm-omni") -> Checker:
    """With the real cache: the releases are large, and are fetched once."""
    return Checker(Places.from_environment(), packages.named(distribution))


@pytest.mark.parametrize("version", _marked(NAMES["answers"], lambda version: version))
def test_names(version: str) -> None:
    """Of 1213 names that vllm-omni releases import, those are missing that a real import misses."""
    resolver = Resolver(_checker().release(VLLM, version))
    wrong = []
    for (module, name), real in zip(NAMES["questions"], NAMES["answers"][version], strict=True):
        status = resolver.module(module).status if name == "*" else resolver.name(module, name).status
        letter = "-" if status in MISSING else "0" if status == NONE else "+"
        # a module that is found may still hand out None (`from vllm.x import thing` where thing = None)
        same = real in ("?", letter) or (letter, real) == ("+", "0")
        if not same and (module, name) not in EXPLAINED:
            wrong.append(f"{module}.{name}: static {letter}, real {real}")
    resolver.tree.save()
    assert wrong == []


@pytest.mark.parametrize("pair", _marked(PAIRS, _when))
def test_pairs(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What static and real imports tell of a pair, held against each other both ways; told in 80 columns."""
    recorded = PAIRS[pair]
    checker = _checker(recorded.get("package", "vllm-omni"))
    module = checker.package.module
    report = checker.judge(checker.release(module, recorded["omni"]), checker.release(VLLM, recorded["vllm"]))
    show(report)
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 80
    failures = {entry["module"]: entry for entry in recorded["failures"]}
    assert recorded["modules"] > 20

    broken = {(entry.file, entry.line) for entry in report.breaks}
    files = {file for file, _ in broken}
    missed = [
        f"{entry['file']}:{entry['line']} {entry['error']}: {entry.get('message', '')}"
        for entry in recorded["failures"]
        if entry["fault"] == "vllm" and entry["file"] not in files and (pair, entry["file"]) not in HOOKED
    ]
    assert missed == [], "real imports fail where no break is told"

    imported = [
        f"{entry.file}:{entry.line} {entry.module}.{entry.name}"
        for entry in report.breaks
        if _module(entry.file) not in failures
    ]
    assert imported == [], "modules did import that are told to break"

    first = failures.get(module)
    if first is not None and first["fault"] == "vllm" and first.get("asked"):
        told = report.breaks[0]
        assert told.file == first["file"] and told.tier == "entry"
        assert first["asked"] in (f"{told.module}.{told.name}", told.module), "another break comes first"
    if any(entry["fault"] == "vllm" and "/npu/" not in entry["file"] for entry in recorded["failures"]):
        assert report.verdict == "breaks"


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize(
    ("vllm", "module", "name"),
    [
        ("0.12.0", "vllm.model_executor.models.qwen2_5_vl", "Qwen2_5_VisionRotaryEmbedding"),
        ("0.14.0", "vllm.config.model", "_RUNNER_TASKS"),
    ],
)
def test_the_failures_users_reported(vllm: str, module: str, name: str) -> None:
    """Each cost an hour of build; each is the first break that is told."""
    checker = _checker()
    report = checker.judge(checker.release(OMNI, "0.11.0rc1"), checker.release(VLLM, vllm))
    first = report.breaks[0]
    assert (first.module, first.name, first.tier, first.guard) == (module, name, "entry", None)
    assert first.chain[0] == OMNI and len(first.chain) > 1


@pytest.mark.slow
@pytest.mark.skipif("ARMORY_STUB_ENV" not in os.environ, reason="names an environment: see record_compat.py")
def test_a_recording_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import record_compat

    monkeypatch.setattr(record_compat, "DATA", tmp_path)
    path = record_compat.record(Path(os.environ["ARMORY_STUB_ENV"]), "0.11.0rc1", "0.12.0")
    again = {(f["module"], f["fault"], f.get("asked")) for f in json.loads(path.read_text())["failures"]}
    kept = {(f["module"], f["fault"], f.get("asked")) for f in PAIRS["0.11.0rc1-on-0.12.0"]["failures"]}
    assert again == kept
