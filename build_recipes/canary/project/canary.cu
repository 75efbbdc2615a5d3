// One kernel that uses what vLLM's kernels use: bfloat16, CUB (part of CCCL, which CUDA 13 moved), shared memory.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cub/block/block_reduce.cuh>

#include "canary.h"

namespace {

constexpr int kThreads = 256;

__global__ void sum(const __nv_bfloat16* in, float* out) {
  using Reduce = cub::BlockReduce<float, kThreads>;
  __shared__ typename Reduce::TempStorage storage;
  const float total = Reduce(storage).Sum(__bfloat162float(in[threadIdx.x]));
  if (threadIdx.x == 0) *out = total;
}

}  // namespace

int canary_sum(const void* in, float* out, void* stream) {
  sum<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(static_cast<const __nv_bfloat16*>(in), out);
  return cudaGetLastError();
}

int canary_capability() {
  int major = 0, minor = 0;
  int failed = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (!failed) failed = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
  return failed ? -failed : 10 * major + minor;
}

int canary_run() {
  __nv_bfloat16 ones[kThreads];
  for (auto& one : ones) one = __float2bfloat16(1.0f);
  void* in = nullptr;
  float* out = nullptr;
  float total = 0;
  int failed = cudaMalloc(&in, sizeof ones);
  if (!failed) failed = cudaMalloc(reinterpret_cast<void**>(&out), sizeof *out);
  if (!failed) failed = cudaMemcpy(in, ones, sizeof ones, cudaMemcpyHostToDevice);
  if (!failed) failed = canary_sum(in, out, nullptr);
  if (!failed) failed = cudaMemcpy(&total, out, sizeof total, cudaMemcpyDeviceToHost);
  cudaFree(in);
  cudaFree(out);
  if (failed) return failed;
  return total == kThreads ? 0 : -1;
}

const char* canary_error(int code) {
  return code < 0 ? "the kernel gave a wrong sum" : cudaGetErrorString(static_cast<cudaError_t>(code));
}
