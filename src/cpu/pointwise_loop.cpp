// The pointwise kernels of one SIMD level, as in tile.cpp.
#if !defined(__clang__)
#pragma GCC optimize("schedule-insns")  // a vector's instructions among another's; clang does so by itself
#endif
#include "cpu/pointwise_loop.h"

extern "C" const spcy_pointwise_kernels SPCY_TABLE(spcy_pointwise_kernels)[SPCY_NUMBERS] = {
    {apply<float>, gradient<float>, combine<float>, nullptr, nullptr, nullptr},
    {apply<double>, gradient<double>, combine<double>, nullptr, nullptr, nullptr},
    {apply<bfloat16>, gradient<bfloat16>, combine<bfloat16>, widen_all<bfloat16>, narrow_all<bfloat16>,
     narrow_doubles<bfloat16>},
    {apply<float16>, gradient<float16>, combine<float16>, widen_all<float16>, narrow_all<float16>,
     narrow_doubles<float16>},
};
