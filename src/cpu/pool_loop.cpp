// Pools at one SIMD level, as in tile.cpp.
#include "cpu/pool_loop.h"

extern "C" const spcy_pool_kernels SPCY_TABLE(spcy_pool_kernels)[SPCY_NUMBERS] = {
    {pool<float>},
    {pool<double>},
    {pool<bfloat16>},
    {pool<float16>},
};
