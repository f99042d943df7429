// Means by linear weights at one SIMD level, as in tile.cpp.
#include "cpu/corners_loop.h"

extern "C" const spcy_corners_kernels SPCY_TABLE(spcy_corners_kernels)[SPCY_NUMBERS] = {
    {interpolate<float>},
    {interpolate<double>},
    {interpolate<bfloat16>},
    {interpolate<float16>},
};
