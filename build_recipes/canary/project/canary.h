// What the canary's parts share, and what Python calls through ctypes.
#pragma once

extern "C" {

// Sums 256 bfloat16 values at `in` (device memory) into `out` on a CUDA stream. A cudaError_t, 0 for success.
int canary_sum(const void* in, float* out, void* stream);

// Compute capability of the first GPU, 110 for 11.0; a negated cudaError_t where there is none.
int canary_capability();

// Runs the kernel on ones. 0: the sum is right; -1: it is wrong; else a cudaError_t.
int canary_run();

// The text of a code of canary_run.
const char* canary_error(int code);
}
