// The tile kernels of one SIMD level. setup.py compiles this file once per level, with SPCY_LEVEL its
// name; all but the table has internal linkage, so that levels cannot be mixed up by the linker.
#include "cpu/conv_tile.h"
#include "cpu/depthwise_tile.h"

template <typename T>
static constexpr spcy_tile_kernels kernels_of() {
    typedef Arithmetic<T> A;
    return {Vector<typename A::Sum>::lanes, sizeof(typename A::Sum), A::channels, Run<T>::copies ? Run<T>::rows : 0,
            pack_weight<T>, conv_tile<T>, pack_depthwise<T>, depthwise_tile<T>};
}

extern "C" const spcy_tile_kernels SPCY_TABLE(spcy_tile_kernels)[SPCY_NUMBERS] = {
    kernels_of<float>(),
    kernels_of<double>(),
    kernels_of<bfloat16>(),
    kernels_of<float16>(),
};
