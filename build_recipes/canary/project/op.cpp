// One torch op: it needs torch's headers, C++ standard and ABI, and links torch's libraries.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "canary.h"

namespace {

at::Tensor sum(const at::Tensor& in) {
  TORCH_CHECK(in.is_cuda() && in.scalar_type() == at::kBFloat16 && in.numel() == 256, "256 bfloat16 on CUDA");
  at::Tensor out = at::empty({1}, in.options().dtype(at::kFloat));
  const int failed = canary_sum(in.data_ptr(), out.data_ptr<float>(), c10::cuda::getCurrentCUDAStream().stream());
  TORCH_CHECK(failed == 0, canary_error(failed));
  return out;
}

}  // namespace

TORCH_LIBRARY(armory_canary, library) {
  library.def("sum(Tensor values) -> Tensor");
  library.impl("sum", c10::DispatchKey::CUDA, &sum);
}
