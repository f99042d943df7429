"""Reduce features over the pairs of a rulebook, over segments of rows, and between cells."""

from cython cimport floating
from cython.parallel import prange
from libc.stdint cimport int32_t, int64_t

cdef extern from "cpu/pool.h" nogil:
    void spcy_fill_row[T](T* row, int64_t channels, int operation) noexcept
    void spcy_combine_row[S, T](S* y, const T* x, int64_t channels, int operation) noexcept
    void spcy_reduce_rows[T](
        const T* features, int64_t channels, const int32_t* order, int64_t begin, int64_t end,
        int operation, double* y,
    ) noexcept
    void spcy_interpolate_row[T](
        const T* features, int64_t channels, const int32_t* rows, const double* weights, int64_t corners,
        bint renormalize, T* y,
    ) noexcept

cdef enum:
    CHUNK_ROWS = 64  # points, or segments of many, that a thread takes at a time


def pool(
    const floating[:, ::1] features,  # IN
    const int32_t[::1] in_rows,  # IN
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    const int32_t[::1] order,  # IN or None, row of each output rank
    int64_t tile_size,
    int operation,  # 0 sum, 1 max
    floating[:, ::1] out,  # OUT
    int n_threads,
):
    """Reduce the input rows of each output row; the sum of none is 0, the maximum -inf."""
    cdef Py_ssize_t tile
    for tile in prange(tile_ptr.shape[1] - 1, nogil=True, schedule="dynamic", num_threads=n_threads):
        _pool_tile(features, in_rows, out_rows, tile_ptr, order, tile_size, operation, out, tile)


cdef void _pool_tile(
    const floating[:, ::1] features, const int32_t[::1] in_rows, const int32_t[::1] out_rows,
    const int64_t[:, ::1] tile_ptr, const int32_t[::1] order, int64_t tile_size, int operation,
    floating[:, ::1] out, Py_ssize_t tile,
) noexcept nogil:
    cdef Py_ssize_t rank, k, j
    cdef int64_t channels = out.shape[1]
    cdef bint ordered = order is not None
    for rank in range(tile * tile_size, min((tile + 1) * tile_size, out.shape[0])):
        spcy_fill_row(&out[order[rank] if ordered else rank, 0], channels, operation)
    for k in range(tile_ptr.shape[0]):
        for j in range(tile_ptr[k, tile], tile_ptr[k, tile + 1]):
            spcy_combine_row(&out[out_rows[j], 0], &features[in_rows[j], 0], channels, operation)


def count_pairs_per_row(
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    int32_t[::1] counts,  # INOUT, zeros
    int n_threads,
):
    """Add up how many pairs each output row has."""
    cdef Py_ssize_t tile, k, j
    for tile in prange(tile_ptr.shape[1] - 1, nogil=True, schedule="dynamic", num_threads=n_threads):
        for k in range(tile_ptr.shape[0]):
            for j in range(tile_ptr[k, tile], tile_ptr[k, tile + 1]):
                counts[out_rows[j]] += 1


def segment_reduce(
    const floating[:, ::1] features,  # IN
    const int32_t[::1] order,  # IN or None, rows in the order of segments
    const int64_t[::1] segment_ptr,  # IN, (segments + 1,)
    int operation,  # 0 sum, 1 max, 2 mean, 3 first
    double[:, ::1] out,  # OUT, (segments, C)
    int n_threads,
):
    """Reduce the rows of each segment; an empty one gives 0, its maximum -inf."""
    cdef Py_ssize_t s
    cdef const int32_t* rows = NULL
    cdef const floating* source = NULL
    if order is not None and order.shape[0]:
        rows = &order[0]
    if features.shape[0]:
        source = &features[0, 0]
    cdef Py_ssize_t chunk = max(1, min(CHUNK_ROWS, out.shape[0] // (4 * n_threads)))
    for s in prange(out.shape[0], nogil=True, schedule="dynamic", chunksize=chunk, num_threads=n_threads):
        spcy_reduce_rows(
            source, out.shape[1], rows, segment_ptr[s], segment_ptr[s + 1], operation, &out[s, 0]
        )


def interpolate(
    const floating[:, ::1] features,  # IN, (N, C)
    const int32_t[:, ::1] rows,  # IN, (M, J), -1 where absent
    const double[:, ::1] weights,  # IN, (M, J)
    bint renormalize,
    floating[:, ::1] out,  # OUT, (M, C)
    int n_threads,
):
    """Write the weighted mean of the rows that are there, or their sum; 0 where none is."""
    cdef Py_ssize_t i
    for i in prange(
        out.shape[0], nogil=True, schedule="dynamic", chunksize=CHUNK_ROWS, num_threads=n_threads
    ):
        spcy_interpolate_row(
            &features[0, 0], out.shape[1], &rows[i, 0], &weights[i, 0], rows.shape[1], renormalize,
            &out[i, 0],
        )
