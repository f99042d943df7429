// The losses of one SIMD level, as in tile.cpp.
#include "cpu/loss_loop.h"

#define SPCY_JOIN(a, b) a##b
#define SPCY_TABLE(level) SPCY_JOIN(spcy_loss_kernels_, level)

extern "C" const spcy_cross_entropy_kernel SPCY_TABLE(SPCY_LEVEL)[SPCY_NUMBERS] = {
    cross_entropy<float>,
    cross_entropy<double>,
    cross_entropy<bfloat16>,
};
