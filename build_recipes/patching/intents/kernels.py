"""Intents about kernels that are compiled for a device and would do nothing there."""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from build_recipes.kit import process
from build_recipes.kit.errors import ToolFailed
from build_recipes.patching.intents import cmake, dispatch
from build_recipes.patching.intents.answer import Verdict

BODY = "Kernel::operator()"
REACHED = {
    "8.7": {"87": ("sm80",)},
    "11.0": {"110": ("sm100",), "100": ("sm100",), "103": ("sm100",)},
    "12.0": {"120": ("sm120",), "121": ("sm120",)},
}
"""For an architecture asked for: capabilities, and the kernels that have a body there. CMake sets the same
definitions for 10.0 as for 11.0."""
FAMILIES = {"sm100": ("1000", "1100"), "sm120": ("1200",)}
"""Files by the family in their name, and each `__CUDA_ARCH__` they are compiled for and dispatched to: vLLM
sends 10.x and 11.0 to sm100 files, 12.x to sm120 files, and compiles 12.1 as 12.0."""


def no_empty_kernels(trees: Mapping[str, Path]) -> Verdict:
    """What is compiled for 11.0 and 12.0 has a body there, and c2x, which has none, is not compiled."""
    if "vllm" not in trees:
        return Verdict(None, "no vllm tree here")
    tree = trees["vllm"]
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    faults: list[str] = []
    definitions = {}
    for archs, wanted in (("11.0", set()), ("12.0", set()), ("8.7", {"sm_87"})):
        seen = cmake.evaluate(tree, archs)
        units = [unit for name in seen.modules for unit in seen.units(name)]
        if archs == "11.0" and not any(map(seen.codes, units)):
            continue  # nothing at all is compiled for it: refused by the series
        definitions[archs] = seen.definitions
        codes = {code for unit in units if Path(unit).name == "scaled_mm_c2x.cu" for code in seen.codes(unit)}
        if codes != wanted:
            faults.append(f"for {archs}, scaled_mm_c2x.cu is compiled to {sorted(codes) or 'nothing'}")
    if compiler:
        faults += _dispatch(tree, definitions, compiler)
    if compiler is None:
        return Verdict(False, "; ".join(faults)) if faults else Verdict(None, "no C++ compiler here")
    for family, archs_ in FAMILIES.items():
        guards = guards_of(tree, family)
        for arch in archs_:
            empty = sorted(guards - bodies(tree, arch, compiler))
            faults += [f"{name} leaves {family} kernels empty for __CUDA_ARCH__ {arch}" for name in empty]
    return Verdict.of(*faults)


def _dispatch(tree: Path, definitions: Mapping[str, set[str]], compiler: str) -> list[str]:
    """Operators sent to a kernel without a body, or called supported and then refused."""
    faults = []
    capabilities = tuple(dict.fromkeys(name for served in REACHED.values() for name in served))
    try:
        said = dispatch.taken(tree, definitions, capabilities, compiler)
    except ToolFailed as error:
        return [f"{dispatch.ENTRY} does not compile: {error.words[-300:]}"]
    for archs in definitions:
        for capability, families in REACHED[archs].items():
            answers = said[archs][capability]
            for operator in dispatch.OPERATORS:
                kernel = answers[operator]
                if kernel != "refused" and not kernel.endswith(families):
                    faults.append(f"on {capability}, {operator} calls {kernel}, which has no code there")
            if answers["group_gemm_supported"] == "yes" and answers["cutlass_moe_mm"] == "refused":
                faults.append(f"on {capability}, cutlass_moe_mm is said to be supported and refuses")
    return faults


def guards_of(tree: Path, family: str) -> set[str]:
    """Names of the guards (``enable_...``) that files of a family put around their kernels."""
    found: set[str] = set()
    for suffix in ("cu", "cuh"):
        for path in (tree / "csrc").rglob(f"*{family}*.{suffix}"):
            found.update(re.findall(r"\b(enable_sm\w+)<", path.read_text(errors="replace")))
    return found


def bodies(tree: Path, arch: str, compiler: str) -> set[str]:
    """The guards whose kernel is not empty for an architecture, as the real preprocessor leaves them."""
    found: set[str] = set()
    for header in (tree / "csrc").rglob("cutlass_extensions/common.hpp"):
        found |= _bodies(header.read_text(errors="replace"), arch, compiler)
    return found


@functools.lru_cache(maxsize=256)
def _bodies(text: str, arch: str, compiler: str) -> frozenset[str]:
    with tempfile.TemporaryDirectory(prefix="armory-guards-") as name:
        plain = Path(name) / "guards.cpp"
        plain.write_text(re.sub(r"^\s*#\s*(include|pragma).*$", "", text, flags=re.MULTILINE))
        flags = ["-E", "-P", "-std=c++17", f"-D__CUDA_ARCH__={arch}"]
        left = process.capture([compiler, *flags, plain], cwd=Path(name))
    parts = re.split(r"\bstruct\s+", left)[1:]
    return frozenset(part.split(None, 1)[0] for part in parts if BODY in part)
