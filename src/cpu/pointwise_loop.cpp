// The pointwise kernels of one SIMD level, as in tile.cpp.
#if !defined(__clang__)
#pragma GCC optimize("schedule-insns")  // a vector's instructions among another's; clang does so by itself
#endif
#include "cpu/pointwise_loop.h"

extern "C" const spcy_pointwise_kernels SPCY_TABLE(spcy_pointwise_kernels)[SPCY_NUMBERS] = {
    {apply<float>, gradient<float>},
    {apply<double>, gradient<double>},
    {apply<bfloat16>, gradient<bfloat16>},
    {apply<float16>, gradient<float16>},
};
