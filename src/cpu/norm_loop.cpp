// The norms of one SIMD level, as in tile.cpp.
#include "cpu/norm_loop.h"

#define SPCY_JOIN(a, b) a##b
#define SPCY_TABLE(level) SPCY_JOIN(spcy_norm_kernels_, level)

template <typename T>
static constexpr spcy_norm_kernels kernels_of() {
    return {column_moments<T>, apply_norm<T>, norm_gradient_sums<T>, norm_gradient<T>};
}

extern "C" const spcy_norm_kernels SPCY_TABLE(SPCY_LEVEL)[SPCY_NUMBERS] = {
    kernels_of<float>(),
    kernels_of<double>(),
    kernels_of<bfloat16>(),
};
