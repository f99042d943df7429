// The pointwise kernels of one SIMD level, as in tile.cpp.
#include "cpu/pointwise_loop.h"

#define SPCY_JOIN(a, b) a##b
#define SPCY_TABLE(level) SPCY_JOIN(spcy_pointwise_kernels_, level)

extern "C" const spcy_pointwise_kernels SPCY_TABLE(SPCY_LEVEL)[SPCY_NUMBERS] = {
    {apply<float>, gradient<float>},
    {apply<double>, gradient<double>},
    {apply<bfloat16>, gradient<bfloat16>},
};
