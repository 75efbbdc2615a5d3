"""The official aarch64 wheels and torch 2.11.0: what they must show.

Half a gigabyte each, so only where they are in the cache already, or with ARMORY_LARGE=1 (then fetched once).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from build_recipes.audit import exports
from build_recipes.audit.audit import Audit, audit_wheel
from build_recipes.audit.closure import close, readable
from build_recipes.kit.paths import Places

DOWNLOADS = {
    "0.12.0": "44684361b22b12898fb356074cc3e8786036f9f1e17ea1105bd27d1ffa63cbe9",
    "0.33.0": "e9e404f52c8494b69bd83fe99fe7ecfa9f6b89fbd156d2a9639c24ea41d6d606",
    "torch": "d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6",
}
PLACES = Places.from_environment()
HERE = all((PLACES.downloads / digest).exists() for digest in DOWNLOADS.values())
pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(not HERE and not os.environ.get("ARMORY_LARGE"), reason="1.2 GB: ARMORY_LARGE=1"),
]


def wheel(name: str) -> Path:
    from build_recipes.audit.subject import official

    found = list((PLACES.downloads / DOWNLOADS[name]).glob("*.whl"))
    if found:
        return found[0]
    return exports.torch_wheel("2.11.0", "aarch64", PLACES) if name == "torch" else official(name, PLACES)


@pytest.fixture(scope="module")
def old() -> Audit:
    with contextlib.ExitStack() as stack:
        torch = exports.libraries(str(wheel("torch")), "aarch64", PLACES, stack)
        return audit_wheel(wheel("0.12.0"), libraries=torch)


def test_0_12_0_lacks_exactly_the_two_symbols_that_torch_2_11_moved(old: Audit) -> None:
    assert old.closure is not None
    missing = {symbol for symbols in old.closure.symbols.values() for symbol in symbols}
    assert {readable(symbol) for symbol in missing} == {
        "c10::cuda::c10_cuda_check_implementation",
        "c10::MessageLogger::MessageLogger",
    }
    assert len(missing) == 2


def test_0_12_0_is_not_for_thor(old: Audit) -> None:
    thor = old.devices["thor"]
    assert thor.verdict == "not usable"
    assert any("CUDA 12" in reason for reason in thor.reasons)
    assert any("no code for sm_110" in reason for reason in thor.reasons)
    assert thor.families["flash-attention-2"].status == "jit"
    assert thor.families["flash-attention-2"].driver == "12.9"
    assert old.devices["gh200"].families["flash-attention-3"].status == "native"
    assert not any("110" in name for module in old.modules for name in module.code)


def test_0_33_0_runs_on_thor_with_flash_attention_compiled_at_first_use() -> None:
    audit = audit_wheel(wheel("0.33.0"))
    thor = audit.devices["thor"]
    assert thor.verdict == "runs with JIT"
    assert thor.families["flash-attention-2"].status == "jit"
    assert thor.families["nvfp4"].status == "native"
    assert thor.families["flash-attention-3"].status == "not needed"
    assert audit.devices["h200"].verdict == "not usable"  # another CPU
    assert "tag-mismatch" in {one.id for one in audit.findings}


def test_a_closure_against_torch_is_sub_second_once_its_exports_are_known(old: Audit) -> None:
    modules = {module.path: module for module in old.modules}
    with contextlib.ExitStack() as stack:
        started = time.process_time()
        found = close(modules, exports.libraries(str(wheel("torch")), "aarch64", PLACES, stack))
        assert time.process_time() - started < 1
    assert found == old.closure
