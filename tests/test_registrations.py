"""The ops that a build registers, read from the sources it compiles."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from build_recipes.audit.closure import Listed, close
from build_recipes.build.registrations import declared, of_graph
from build_recipes.build.units.graph import Command, Graph
from build_recipes.formats.elf import Symbols
from build_recipes.qualify import ops

SOURCE = """
// TORCH_LIBRARY(_commented, m) { m.def("never() -> ()"); }
TORCH_LIBRARY_EXPAND(TORCH_EXTENSION_NAME, ops) {
  ops.def(
      "rms_norm(Tensor! result, Tensor input, "
      "float epsilon) -> ()");
  /* ops.def("gone() -> ()"); */
  ops.def("weak_ref_tensor(Tensor input) -> Tensor"); ops.impl("weak_ref_tensor", torch::kCUDA, &weak_ref_tensor);
#ifdef USE_ROCM
  ops.def("rocm_only() -> ()");
#else
  ops.def("cuda_only() -> ()");
#endif
#ifndef USE_ROCM
#ifdef SOMETHING
  ops.def("perhaps.overload() -> ()");
#endif
#elif defined(OTHER)
  ops.def("rocm_too() -> ()");
#endif
#if defined(USE_ROCM)
  ops.def("rocm_again() -> ()");
#endif
}
STABLE_TORCH_LIBRARY_FRAGMENT(CONCAT(TORCH_EXTENSION_NAME, _cache_ops), ops) {
  ops.def("reshape_and_cache(Tensor key) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(_C, CUDA, ops) { ops.impl("rms_norm", TORCH_BOX(&rms_norm)); }
TORCH_LIBRARY(_moe_C, m) { m.def("topk_softmax", &topk_softmax); }
"""


def test_ops_are_read_as_a_cuda_build_compiles_them() -> None:
    assert set(declared(SOURCE, "_C")) == {
        ("_C", "rms_norm"),
        ("_C", "weak_ref_tensor"),
        ("_C", "cuda_only"),
        ("_C", "perhaps"),
        ("_C_cache_ops", "reshape_and_cache"),
        ("_moe_C", "topk_softmax"),
    }


def test_only_what_is_compiled_counts_and_other_platforms_ops_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "cuda.cpp").write_text(SOURCE)
    (tmp_path / "cpu.cpp").write_text('TORCH_LIBRARY(_C, m) { m.def("onednn_mm() -> ()"); }')
    unit = Command(
        "_C/cuda.cpp.o",
        "CMakeFiles/_C.dir/cuda.cpp.o",
        "g++ -o CMakeFiles/_C.dir/cuda.cpp.o -c cuda.cpp",
        False,
    )
    there = of_graph(Graph(tmp_path, Path("ninja"), ("_C",), (unit,)))
    assert there["_C"] == ["cuda_only", "perhaps", "rms_norm", "weak_ref_tensor"]
    read = ops.calls(
        [("a.py", "torch.ops._C.rms_norm(x)\ntorch.ops._C.onednn_mm(x)\ntorch.ops._xpu_C.fp8_gemm(x)\n")]
    )
    assert ops.wanted(read, (), there) == ({"_C": ["rms_norm"]}, ["_C.onednn_mm", "_xpu_C.fp8_gemm"])


def test_a_module_may_find_the_cpp_runtime_through_a_library_that_it_names() -> None:
    """As the official spinloop of 0.22.0 does: it names libtorch, and libtorch names libstdc++."""

    class Linked:
        soname, needed = "", ("libtorch.so",)
        version_needs: ClassVar[dict[str, tuple[str, ...]]] = {}
        symbols = Symbols(
            frozenset(),
            dict.fromkeys(
                ("_ZNSt13basic_filebufIcSt11char_traitsIcEED1Ev", "_ZNSi4peekEv", "_ZN3c105ErrorE"), ""
            ),
        )

        def exports(self, name: str) -> bool:
            return False

    def torch(*needed: str) -> list[Listed]:
        return [Listed("libtorch.so", needed, frozenset({"_ZN3c105ErrorE"}))]

    through = [*torch("libc10.so"), Listed("libc10.so", ("libstdc++.so.6",), frozenset())]
    assert close({"spinloop.so": Linked()}, through).symbols == {}
    assert list(close({"spinloop.so": Linked()}, torch()).symbols) == ["spinloop.so"]
