// The norms of one SIMD level, as in tile.cpp.
#include "cpu/norm_loop.h"

template <typename T>
static constexpr spcy_norm_kernels kernels_of() {
    return {column_moments<T>, apply_norm<T>,  norm_gradient_sums<T>,
            norm_gradient<T>,  layer_norm<T>, layer_norm_gradient<T>};
}

extern "C" const spcy_norm_kernels SPCY_TABLE(spcy_norm_kernels)[SPCY_NUMBERS] = {
    kernels_of<float>(),
    kernels_of<double>(),
    kernels_of<bfloat16>(),
    kernels_of<float16>(),
};
