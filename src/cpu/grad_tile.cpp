// The gradient kernels of one SIMD level, as in tile.cpp.
#include "cpu/grad_tile.h"

extern "C" const spcy_grad_kernels SPCY_TABLE(spcy_grad_kernels)[SPCY_NUMBERS] = {
    grad_kernels_of<float>(),
    grad_kernels_of<double>(),
    grad_kernels_of<bfloat16>(),
    grad_kernels_of<float16>(),
};
