// The pointwise kernels of one SIMD level, as in tile.cpp.
#include "cpu/pointwise_loop.h"

extern "C" const spcy_pointwise_kernels SPCY_TABLE(spcy_pointwise_kernels)[SPCY_NUMBERS] = {
    {apply<float>, gradient<float>},
    {apply<double>, gradient<double>},
    {apply<bfloat16>, gradient<bfloat16>},
    {apply<float16>, gradient<float16>},
};
