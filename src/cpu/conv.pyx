"""Run a rulebook with a weight, in tiles of output rows."""

from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.string cimport memcpy, memset

from spcy._cpu.simd cimport kind_of, kind_of_dtype, level, number, spcy_activation
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/pointwise.h" nogil:
    ctypedef struct spcy_pointwise_kernels:
        void (*apply)(const spcy_activation*, const void*, int64_t, void*) noexcept nogil
    const spcy_pointwise_kernels* spcy_pointwise_kernels_of(int level, int number) noexcept
    cdef enum:
        SPCY_RELU

cdef extern from "cpu/tile.h" nogil:
    ctypedef struct spcy_conv_plan:
        const void* features
        const void* weight
        const void* bias
        const void* residual
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
        int64_t groups
        int64_t steps
        int64_t parts
        int64_t width
        bint relu
        spcy_activation activation
        void (*activate)(const spcy_activation*, const void*, int64_t, void*) noexcept nogil
    ctypedef struct spcy_weight:
        const void* numbers
        int64_t offset, row, column
    ctypedef struct spcy_tile_kernels:
        int64_t lanes
        int64_t sum_bytes
        int64_t channels
        int64_t copied_rows
    const spcy_tile_kernels* spcy_tile_kernels_of(int level, int number) noexcept

cdef extern from "cpu/conv.h" nogil:
    void spcy_pack_weight(
        const spcy_tile_kernels* kernels, const spcy_conv_plan* plan, const spcy_weight* weight,
        bint depthwise, void* packed, spcy_team team,
    ) noexcept
    void spcy_conv(
        const spcy_tile_kernels* kernels, const spcy_conv_plan* plan, bint depthwise, char* scratch,
        int64_t tile_bytes, spcy_team team,
    ) noexcept


cdef enum:
    CACHE_LINE = 64
    PARALLEL_PACK = 1 << 17  # bytes of weights that are worth more than one thread


cdef class Tiles:
    """The pairs of a rulebook, cut into tiles of output ranks."""

    cdef spcy_conv_plan plan  # with all that does not depend on the features
    cdef tuple arrays  # what the plan points into

    def __init__(
        self,
        const int32_t[::1] in_rows,  # (pairs,)
        const int32_t[::1] out_rows,  # (pairs,)
        const int64_t[:, ::1] tile_ptr,  # (K, tiles + 1)
        const int32_t[::1] order,  # None, or the row of each output rank
        const int32_t[::1] rank,  # None, or the rank of each output row
        int64_t tile_size,
        int64_t n_out,
    ):
        self.arrays = in_rows, out_rows, tile_ptr, order, rank
        self.plan.in_rows = self.plan.out_rows = self.plan.order = self.plan.rank = NULL
        if in_rows.shape[0]:
            self.plan.in_rows, self.plan.out_rows = &in_rows[0], &out_rows[0]
        if order is not None:
            self.plan.order, self.plan.rank = &order[0], &rank[0]
        self.plan.tile_ptr = &tile_ptr[0, 0]
        self.plan.n_offsets, self.plan.n_tiles = tile_ptr.shape[0], tile_ptr.shape[1] - 1
        self.plan.tile_size, self.plan.n_out = tile_size, n_out

    def scratch_bytes(self, dtype, int64_t c_in, int64_t c_out, int64_t groups, int n_threads):
        """Return how much scratch `conv` needs: the bias, the packed weight, a tile for each thread."""
        cdef const spcy_tile_kernels* kernels = _kernels(kind_of_dtype(dtype))
        cdef spcy_conv_plan plan = self.plan
        _set_channels(&plan, kernels, c_in, c_out, groups)
        return (
            CACHE_LINE
            + kernels.sum_bytes * (plan.width + _weight_units(kernels, &plan))
            + n_threads * _tile_bytes(kernels, &plan)
        )


cdef const spcy_tile_kernels* _kernels(int kind) noexcept nogil:
    return spcy_tile_kernels_of(level(), kind)


cdef int64_t _padded(int64_t count, int64_t multiple) noexcept nogil:
    return (count + multiple - 1) // multiple * multiple


cdef void _set_channels(
    spcy_conv_plan* plan, const spcy_tile_kernels* kernels, int64_t c_in, int64_t c_out, int64_t groups
) noexcept nogil:
    plan.c_in, plan.c_out, plan.groups = c_in, c_out, groups
    cdef int64_t size = c_out // groups
    cdef bint small = size <= kernels.lanes and (size == 1 or size == 2 or size == 4)
    plan.steps = size if groups > 1 and c_in == c_out and small else 0
    plan.parts = 1 if plan.steps or size % kernels.lanes == 0 else groups
    plan.width = plan.parts * _padded(c_out // plan.parts, kernels.lanes)


cdef int64_t _weight_units(const spcy_tile_kernels* kernels, const spcy_conv_plan* plan) noexcept nogil:
    """Units that the packed weight has; each is as large as a sum."""
    if plan.steps:
        return plan.n_offsets * plan.steps * plan.width
    cdef int64_t c_in = _padded(plan.c_in // plan.groups, kernels.channels)
    return plan.n_offsets * c_in // kernels.channels * plan.width


cdef int64_t _tile_bytes(const spcy_tile_kernels* kernels, const spcy_conv_plan* plan) noexcept nogil:
    """Bytes that a thread's part of the scratch has, in whole cache lines."""
    if plan.steps:
        return _padded(
            kernels.sum_bytes * plan.width + plan.tile_size * (plan.n_offsets + 1) * sizeof(int64_t),
            CACHE_LINE,
        )
    return kernels.sum_bytes * _padded(
        plan.tile_size * plan.width + kernels.copied_rows * plan.c_in, CACHE_LINE
    )


def conv(
    Tiles tiles,
    const number[:, ::1] features,  # IN, (n_in, C_in)
    const number[:, :, :] weight,  # IN, (K, C_in / groups, C_out), a view of any layout
    const number[::1] bias,  # IN or None, (C_out,)
    const number[:, ::1] residual,  # IN or None, (n_out, C_out)
    number[:, ::1] out,  # OUT, (n_out, C_out)
    int activation,  # 0 none, others as in pointwise.pyx
    double slope,
    char[::1] scratch,  # tiles.scratch_bytes(..)
    int64_t groups,
    int n_threads,
):
    """Write ``out[o] = act(bias + sum over pairs (i, o) of features[i] @ weight[k] + residual[o])``.

    The product takes the channels of each group by themselves.
    """
    cdef const spcy_tile_kernels* kernels = _kernels(kind_of(&weight[0, 0, 0]))
    cdef spcy_conv_plan plan = tiles.plan
    cdef char* padded_bias = <char*>(
        <uintptr_t>(&scratch[0] + CACHE_LINE - 1) & ~<uintptr_t>(CACHE_LINE - 1)
    )
    cdef spcy_weight source
    source.numbers, source.offset = &weight[0, 0, 0], weight.strides[0] // <int64_t>sizeof(number)
    source.row = weight.strides[1] // <int64_t>sizeof(number)
    source.column = weight.strides[2] // <int64_t>sizeof(number)
    plan.n_in = features.shape[0]
    _set_channels(&plan, kernels, features.shape[1], weight.shape[2], groups)
    cdef char* packed = padded_bias + kernels.sum_bytes * plan.width
    cdef char* sums = packed + kernels.sum_bytes * _weight_units(kernels, &plan)
    cdef int64_t tile_bytes = _tile_bytes(kernels, &plan)
    memset(padded_bias, 0, packed - padded_bias)
    if bias is not None:
        memcpy(padded_bias, &bias[0], bias.shape[0] * sizeof(number))
    plan.weight, plan.bias, plan.out = packed, padded_bias, &out[0, 0]
    plan.features = &features[0, 0] if features.shape[0] else NULL
    plan.residual = &residual[0, 0] if residual is not None else NULL
    plan.relu = activation == SPCY_RELU
    plan.activation.activation, plan.activation.slope = activation, slope
    plan.activate = NULL
    if activation and not plan.relu:
        plan.activate = spcy_pointwise_kernels_of(level(), kind_of(&weight[0, 0, 0])).apply
    with nogil:
        spcy_pack_weight(
            kernels, &plan, &source, plan.steps > 0, packed,
            team(n_threads if sums - packed > PARALLEL_PACK else 1),
        )
        spcy_conv(kernels, &plan, plan.steps > 0, sums, tile_bytes, team(n_threads))
