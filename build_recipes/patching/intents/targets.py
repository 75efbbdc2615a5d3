"""Intents about the architectures that units are compiled for: does each hold something that the device can use?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from build_recipes.facts import architectures
from build_recipes.kit.errors import ConfigureFailed
from build_recipes.patching.intents import cmake
from build_recipes.patching.intents.answer import Verdict

EXTERNAL = ("qutlass", "flashmla")
"""CMake files of external trees that are evaluated with vLLM's own."""


def in_family(trees: Mapping[str, Path]) -> Verdict:
    """What of the external trees is compiled for 10.0 and 12.0 loads on 10.3 and 12.1, which vLLM builds as these."""
    return _loads(trees, {"10.0": 103, "12.0": 121}, EXTERNAL, r"^/")


def on_orin(trees: Mapping[str, Path]) -> Verdict:
    """What of the fused GDN kernels is compiled for 8.7 loads there, or is PTX that the driver compiles."""
    return _loads(trees, {"8.7": 87}, (), "gdn")


def older_gcc(trees: Mapping[str, Path]) -> Verdict:
    """CMake goes on with a GCC before 13, which only DeepGEMM and DeepSelect need (<format> in libstdc++)."""
    tree = trees.get("vllm")
    if tree is None:
        return Verdict(None, "no vllm tree here")
    cmake.evaluate(tree, "11.0")  # whatever else stops it is no matter of the compiler
    try:
        cmake.evaluate(tree, "11.0", compiler=("GNU", "12.2.0"))
    except ConfigureFailed as error:
        _, _, said = " ".join(str(error.args[0]).split()).rpartition("CMake Error at ")
        return Verdict(False, f"with GCC 12.2 CMake stops at {said}")
    return Verdict(True)


def _loads(
    trees: Mapping[str, Path], wanted: Mapping[str, int], external: tuple[str, ...], of: str
) -> Verdict:
    tree = trees.get("vllm")
    if tree is None:
        return Verdict(None, "no vllm tree here")
    faults = []
    for archs, capability in wanted.items():
        seen = cmake.evaluate(tree, archs, external=external)
        for source in (name for name in seen.gencode if re.search(of, name)):
            codes = seen.codes(source)
            if not any(usable(code, capability) for code in codes):
                what = f"{Path(source).name} is compiled to {sorted(filter(None, codes))}"
                faults.append(f"for {archs}, {what}, nothing of which {capability} runs")
    return Verdict.of(*faults)


def usable(code: str, capability: int) -> bool:
    """Whether a GPU runs code of a ``-gencode`` value: ``sm_110f`` as it is, ``compute_80`` by its driver."""
    match = re.fullmatch(r"(sm|compute)_(\d+)([af]?)", code)
    if match is None:
        return False
    runs = architectures.loads if match[1] == "sm" else architectures.compiles
    return runs(int(match[2]), match[3], capability)
