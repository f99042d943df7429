// Gradients of maxima at one SIMD level, as in tile.cpp.
#include "cpu/maxima_loop.h"

extern "C" const spcy_maxima_kernels SPCY_TABLE(spcy_maxima_kernels)[SPCY_NUMBERS] = {
    {find<float>, give<float>, give_segment<float>},
    {find<double>, give<double>, give_segment<double>},
    {find<bfloat16>, give<bfloat16>, give_segment<bfloat16>},
    {find<float16>, give<float16>, give_segment<float16>},
};
