// Pools at one SIMD level, as in tile.cpp.
#include "cpu/pool_loop.h"

extern "C" const spcy_pool_kernels SPCY_TABLE(spcy_pool_kernels)[SPCY_NUMBERS] = {
    {pool<float>, reduce<float, float>, reduce<double, float>},
    {pool<double>, reduce<float, double>, reduce<double, double>},
    {pool<bfloat16>, reduce<float, bfloat16>, reduce<double, bfloat16>},
    {pool<float16>, reduce<float, float16>, reduce<double, float16>},
};
