"""Reduce features over the pairs of a rulebook, and over segments of rows."""

from cython cimport floating
from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t
from libcpp cimport bool as cbool

from spcy._cpu.pairs cimport pairs_of, ranks_of, spcy_pairs, spcy_ranks
from spcy._cpu.simd cimport kind_of, level, number
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/pool.h" nogil:
    ctypedef struct spcy_pool_plan:
        const void* features
        void* out
        spcy_pairs pairs
        spcy_ranks ranks
        const int32_t* counts
        int64_t channels
        int operation
    ctypedef struct spcy_pool_kernels:
        pass
    const spcy_pool_kernels* spcy_pool_kernels_of(int level, int number) noexcept
    void spcy_pool(const spcy_pool_kernels* kernels, const spcy_pool_plan* plan, spcy_team team) noexcept
    void spcy_count_pairs_per_row(spcy_pairs pairs, int32_t* counts, spcy_team team) noexcept
    void spcy_reduce_segments[S](
        const spcy_pool_kernels* kernels, const void* features, int64_t channels, const int32_t* order,
        const int64_t* segment_ptr, int64_t segments, int operation, S* out, spcy_team team,
    ) noexcept

    void spcy_sum_segments[S, T](
        const T* values, const double* lows, int64_t channels, const int32_t* order,
        const int64_t* segment_ptr, int64_t segments, cbool mean, S* out, double* out_lows, int32_t* loose,
        spcy_team team,
    ) noexcept

ctypedef fused reduced:
    float
    double

ctypedef fused pooled:
    float
    double
    uint16_t
    int16_t


def pool(
    const number[:, ::1] features,  # IN
    const int32_t[::1] in_rows,  # IN
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    const int32_t[::1] order,  # IN or None, row of each output rank
    int64_t tile_size,
    int operation,  # 0 sum, 1 max, 2 mean
    const int32_t[::1] counts,  # IN or None, (n_out,), what each is divided by; where it is 0 the result is
    pooled[:, ::1] out,  # OUT, maxima of the features' dtype, sums and means of the one that is summed in
    int n_threads,
):
    """Reduce the input rows of each output row; the sum of none is 0, the maximum -inf."""
    cdef spcy_pool_plan plan
    cdef const number* source = &features[0, 0] if features.shape[0] else NULL
    plan.features, plan.out, plan.channels, plan.operation = source, &out[0, 0], out.shape[1], operation
    plan.pairs = pairs_of(in_rows, out_rows, tile_ptr)
    plan.ranks = ranks_of(order, tile_size, out.shape[0])
    plan.counts = &counts[0] if counts is not None else NULL
    cdef const spcy_pool_kernels* kernels = spcy_pool_kernels_of(level(), kind_of(source))
    with nogil:
        spcy_pool(kernels, &plan, team(n_threads))


def count_pairs_per_row(
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    int32_t[::1] counts,  # INOUT, zeros
    int n_threads,
):
    """Add up how many pairs each output row has."""
    cdef spcy_pairs pairs = pairs_of(out_rows, out_rows, tile_ptr)
    with nogil:
        spcy_count_pairs_per_row(pairs, &counts[0], team(n_threads))


def segment_reduce(
    const number[:, ::1] features,  # IN
    const int32_t[::1] order,  # IN or None, rows in the order of segments
    const int64_t[::1] segment_ptr,  # IN, (segments + 1,)
    int operation,  # 0 sum, 1 max
    reduced[:, ::1] out,  # OUT, (segments, C)
    int n_threads,
):
    """Reduce the rows of each segment in double precision; an empty one gives 0, its maximum -inf."""
    cdef const int32_t* rows = &order[0] if order is not None and order.shape[0] else NULL
    cdef const number* source = &features[0, 0] if features.shape[0] else NULL
    cdef const spcy_pool_kernels* kernels = spcy_pool_kernels_of(level(), kind_of(source))
    with nogil:
        spcy_reduce_segments(
            kernels, source, out.shape[1], rows, &segment_ptr[0], out.shape[0], operation, &out[0, 0],
            team(n_threads),
        )


def segment_sums(
    const floating[:, ::1] values,  # IN
    const double[:, ::1] lows,  # IN or None, more of the values
    const int32_t[::1] order,  # IN or None, rows in the order of segments
    const int64_t[::1] segment_ptr,  # IN, (segments + 1,)
    bint mean,
    reduced[:, ::1] out,  # OUT, (segments, C), rounded once; or what `out_lows` is the rest of
    double[:, ::1] out_lows,  # OUT or None
    int32_t[::1] loose,  # OUT, (segments,), 0 where the sum is exact
    int n_threads,
):
    """Add up the rows of each segment exactly, in whatever order they are."""
    cdef const int32_t* rows = &order[0] if order is not None and order.shape[0] else NULL
    cdef const floating* source = &values[0, 0] if values.shape[0] else NULL
    cdef const double* more = &lows[0, 0] if lows is not None and lows.shape[0] else NULL
    cdef double* rest = &out_lows[0, 0] if out_lows is not None else NULL
    with nogil:
        spcy_sum_segments(
            source, more, out.shape[1], rows, &segment_ptr[0], out.shape[0], mean, &out[0, 0], rest,
            &loose[0], team(n_threads),
        )
