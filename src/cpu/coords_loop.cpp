// The cells of points at one SIMD level, as in tile.cpp; points are float or double.
#include "cpu/coords_loop.h"

extern "C" const spcy_coords_kernels SPCY_TABLE(spcy_coords_kernels)[SPCY_NUMBERS] = {
    {cell_keys<float>},
    {cell_keys<double>},
    {nullptr},
    {nullptr},
};
