// The gradient kernels of one SIMD level, as in tile.cpp.
#include "cpu/grad_tile.h"

#define SPCY_JOIN(a, b) a##b
#define SPCY_TABLE(level) SPCY_JOIN(spcy_grad_kernels_, level)

extern "C" const spcy_grad_kernels SPCY_TABLE(SPCY_LEVEL)[SPCY_NUMBERS] = {
    grad_kernels_of<float>(),
    grad_kernels_of<double>(),
    grad_kernels_of<bfloat16>(),
};
