"""Which kernel a vLLM operator takes on which device, told by vLLM's own dispatcher.

``scaled_mm_entry.cu`` is host code: it asks for the capability and calls one kernel or refuses. It is
compiled here by the host compiler against stand-ins for torch, with the definitions that CMake sets for an
architecture, and then run for each device.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from build_recipes.kit import process

ENTRY = "scaled_mm_entry.cu"
OPERATORS = ("cutlass_scaled_mm", "cutlass_scaled_mm_azp", "cutlass_moe_mm")

_BEFORE = r"""
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <tuple>
#include <type_traits>
#define CUDA_VERSION 13000
struct Any {  // equal to everything: shapes, strides and types always fit
  template <typename T> bool operator==(T const&) const { return true; }
  template <typename T> bool operator!=(T const&) const { return false; }
  template <typename T> bool operator<=(T const&) const { return true; }
  template <typename T> bool operator>=(T const&) const { return true; }
  template <typename T> Any operator%(T const&) const { return {}; }
};
struct Tensor {
  template <typename... T> Any dim(T...) const { return {}; }
  template <typename... T> Any size(T...) const { return {}; }
  template <typename... T> Any stride(T...) const { return {}; }
  Any numel() const { return {}; }
  Any dtype() const { return {}; }
  Any scalar_type() const { return {}; }
  bool is_contiguous() const { return true; }
  void* data_ptr() const { return nullptr; }
  int get_device_index() const { return 0; }
};
struct Guard { template <typename... T> Guard(T const&...) {} };
inline int device_of(Tensor const&) { return 0; }
namespace at { namespace cuda { using OptionalCUDAGuard = Guard; } }
namespace c10 { namespace cuda { using OptionalCUDAGuard = Guard; } }
namespace torch {
using ::Tensor;
const Any kInt32, kInt8, kFloat32, kFloat8_e4m3fn;
namespace stable { using ::Tensor; namespace accelerator { using DeviceGuard = Guard; } }
namespace headeronly { struct ScalarType { static constexpr Any Int{}, Char{}, Float{}, Float8_e4m3fn{}; }; }
}
struct Refused {};
#define TORCH_CHECK(condition, ...) \
  do { if (!(condition)) throw Refused(); } while (0)
#define STD_TORCH_CHECK TORCH_CHECK
#define TORCH_CHECK_NOT_IMPLEMENTED TORCH_CHECK
#define STD_TORCH_CHECK_NOT_IMPLEMENTED TORCH_CHECK
static int32_t sm;
static char const* took;
int32_t get_sm_version_num() { return sm; }
"""

_ASK = r"""
template <typename... A> void ask(char const* name, void (*function)(A...), bool first) {
  std::tuple<std::decay_t<A>...> words{};
  took = "nothing";
  try {
    std::apply(function, words);
  } catch (Refused const&) {
    took = "refused";
  }
  std::printf("%s\"%s\": \"%s\"", first ? "" : ", ", name, took);
}
"""
_PART = r"""
void all(int count, char** words) {
  for (int n = 1; n < count; ++n) {
    sm = std::atoi(words[n]);
    std::printf("%s\"%d\": {", n == 1 ? "" : ", ", sm);
    @ASK@
    std::printf(", \"group_gemm_supported\": \"%s\"}", cutlass_group_gemm_supported(sm) ? "yes" : "no");
  }
}
"""

Answers = dict[str, dict[str, str]]
"""For each capability (``110``) and operator the kernel that is called, or ``refused``."""


def taken(
    tree: Path, definitions: Mapping[str, set[str]], capabilities: tuple[str, ...], compiler: str
) -> dict[str, Answers]:
    """What the dispatcher calls, for each set of definitions.

    :param definitions: by any name the names that the GPU flags define, as `cmake.Evaluation` has them.
    :raises ToolFailed: the dispatcher does not compile.
    """
    entry = next(iter(sorted((tree / "csrc").rglob(ENTRY))))
    text = entry.read_text(encoding="utf-8")
    used = tuple(
        (name, tuple(sorted(word for word in words if re.search(rf"\b{word}\b", text))))
        for name, words in definitions.items()
    )
    found: dict[str, Answers] = json.loads(_run(text, used, capabilities, compiler))
    return found


@functools.lru_cache(maxsize=256)
def _run(
    text: str, sets: tuple[tuple[str, tuple[str, ...]], ...], capabilities: tuple[str, ...], compiler: str
) -> str:
    """Compile the dispatcher once for each set of definitions, in a namespace of its own, and run it."""
    kernels = re.findall(r"^void\s+(\w+)\s*\(([^;{]*)\);", text, re.MULTILINE)
    kernels = [(name, re.sub(r"=\s*[\w:]+", "", words)) for name, words in kernels]  # default arguments
    bodies = "".join(
        f'void {name}({words}) {{ took = "{name}"; }}\n' for name, words in kernels if name not in OPERATORS
    )
    asks = "\n    ".join(
        f'ask("{name}", &{name}, {str(n == 0).lower()});' for n, name in enumerate(OPERATORS)
    )
    plain = re.sub(r"^\s*#\s*include.*$", "", text, flags=re.MULTILINE)
    parts, calls = [], []
    for number, (name, words) in enumerate(sets):
        parts += [f"#define {word} 1\n" for word in words]
        parts += [f"namespace set{number} {{\n", plain, bodies, _PART.replace("@ASK@", asks), "}\n"]
        parts += [f"#undef {word}\n" for word in words]
        comma = ", " if number else ""
        calls.append(
            f'std::printf("{comma}\\"{name}\\": {{"); set{number}::all(count, words); std::printf("}}");'
        )
    main = 'int main(int count, char** words) {\n  std::printf("{");\n  ' + "\n  ".join(calls)
    with tempfile.TemporaryDirectory(prefix="armory-dispatch-") as name:
        folder = Path(name)
        source = _BEFORE + _ASK + "".join(parts) + main + '\n  std::printf("}\\n");\n}\n'
        (folder / "dispatch.cpp").write_text(source, encoding="utf-8")
        flags = ["-std=c++20", "-O0", "-w"]
        process.capture([compiler, *flags, folder / "dispatch.cpp", "-o", folder / "dispatch"], cwd=folder)
        return process.capture([folder / "dispatch", *capabilities], cwd=folder)
