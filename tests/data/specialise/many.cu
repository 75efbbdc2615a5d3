// One unit of a module for many GPUs; SPACE, NAME and WORK make the units differ.
namespace SPACE {
__global__ void NAME(float *data) {
#pragma unroll
    for (int i = 0; i < WORK; ++i) data[threadIdx.x + i] = data[threadIdx.x + i] * 2.f + i;
}
}
extern "C" void HOST(float *data) { SPACE::NAME<<<1, 32>>>(data); }
