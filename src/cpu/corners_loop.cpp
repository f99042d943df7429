// Means by linear weights, and their gradient, at one SIMD level, as in tile.cpp.
#include "cpu/corners_loop.h"

extern "C" const spcy_corners_kernels SPCY_TABLE(spcy_corners_kernels)[SPCY_NUMBERS] = {
    {interpolate<float>, add_gradient<float>},
    {interpolate<double>, add_gradient<double>},
    {interpolate<bfloat16>, add_gradient<bfloat16>},
    {interpolate<float16>, add_gradient<float16>},
};
