"""Run a rulebook with a weight, in tiles of output rows."""

from cython cimport floating
from cython.parallel import prange, threadid
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.string cimport memcpy, memset

from spcy._cpu.simd cimport level

cdef extern from "cpu/tile.h" nogil:
    ctypedef struct spcy_conv_plan:
        const void* features
        const void* weight
        const void* bias
        const int32_t* in_rows
        const int32_t* out_rows
        const int64_t* tile_ptr
        const int32_t* order
        const int32_t* rank
        void* out
        int64_t n_offsets
        int64_t n_tiles
        int64_t n_in
        int64_t n_out
        int64_t tile_size
        int64_t c_in
        int64_t c_out
        int64_t width
    ctypedef struct spcy_tile_kernels:
        int64_t lanes
        void (*pack)(const void*, int64_t, const spcy_conv_plan*, void*) noexcept nogil
        void (*conv)(const spcy_conv_plan*, int64_t, void*) noexcept nogil
    const spcy_tile_kernels* spcy_tile_kernels_of(int level, bint is_double) noexcept

cdef enum:
    CACHE_LINE = 64
    PARALLEL_PACK = 1 << 17  # weights worth a second team of threads


cdef int64_t _width(int itemsize, int64_t c_out) noexcept nogil:
    """Output channels, padded to whole vectors."""
    cdef int64_t lanes = spcy_tile_kernels_of(level(), itemsize == sizeof(double)).lanes
    return (c_out + lanes - 1) // lanes * lanes


def scratch_bytes(
    int itemsize, int64_t n_offsets, int64_t c_in, int64_t c_out, int64_t tile_size, int n_threads
):
    """Return how much scratch `conv` needs: the padded bias, the packed weight, a tile for each thread."""
    return CACHE_LINE + itemsize * _width(itemsize, c_out) * (1 + n_offsets * c_in + n_threads * tile_size)


def conv(
    const floating[:, ::1] features,  # IN, (n_in, C_in)
    const floating[:, :, ::1] weight,  # IN, (K, C_in, C_out)
    const floating[::1] bias,  # IN or None, (C_out,)
    const int32_t[::1] in_rows,  # IN, (pairs,)
    const int32_t[::1] out_rows,  # IN, (pairs,)
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    const int32_t[::1] order,  # IN or None, row of each output rank
    const int32_t[::1] rank,  # IN or None, rank of each output row
    int64_t tile_size,
    char[::1] scratch,  # scratch_bytes(..)
    floating[:, ::1] out,  # OUT, (n_out, C_out)
    int n_threads,
):
    """Write ``out[o] = bias + sum over pairs (i, o) of features[i] @ weight[k]``."""
    cdef const spcy_tile_kernels* kernels = spcy_tile_kernels_of(level(), floating is double)
    cdef spcy_conv_plan plan
    cdef Py_ssize_t tile, k
    cdef int64_t width = _width(sizeof(floating), weight.shape[2])
    cdef floating* padded_bias = <floating*>(
        <uintptr_t>(&scratch[0] + CACHE_LINE - 1) & ~<uintptr_t>(CACHE_LINE - 1)
    )
    cdef floating* packed = padded_bias + width
    cdef floating* tiles = packed + weight.shape[0] * weight.shape[1] * width
    memset(padded_bias, 0, width * sizeof(floating))
    if bias is not None:
        memcpy(padded_bias, &bias[0], bias.shape[0] * sizeof(floating))
    plan.n_offsets, plan.c_in, plan.c_out = weight.shape[0], weight.shape[1], weight.shape[2]
    plan.n_in, plan.n_out = features.shape[0], out.shape[0]
    plan.n_tiles, plan.tile_size = tile_ptr.shape[1] - 1, tile_size
    plan.width = width
    plan.tile_ptr = &tile_ptr[0, 0]
    plan.weight, plan.bias, plan.out = packed, padded_bias, &out[0, 0]
    plan.features = plan.in_rows = plan.out_rows = plan.order = plan.rank = NULL
    if in_rows.shape[0]:
        plan.features, plan.in_rows, plan.out_rows = &features[0, 0], &in_rows[0], &out_rows[0]
    if order is not None:
        plan.order, plan.rank = &order[0], &rank[0]
    for k in prange(
        weight.shape[0], nogil=True, schedule="static", num_threads=n_threads,
        use_threads_if=tiles - packed > PARALLEL_PACK,
    ):
        kernels.pack(&weight[k, 0, 0], k, &plan, packed)
    for tile in prange(plan.n_tiles, nogil=True, schedule="dynamic", num_threads=n_threads):
        kernels.conv(&plan, tile, tiles + threadid() * tile_size * width)
