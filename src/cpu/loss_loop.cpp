// The losses of one SIMD level, as in tile.cpp.
#include "cpu/loss_loop.h"

extern "C" const spcy_loss_kernels SPCY_TABLE(spcy_loss_kernels)[SPCY_NUMBERS] = {
    {cross_entropy<float>},
    {cross_entropy<double>},
    {cross_entropy<bfloat16>},
    {cross_entropy<float16>},
};
