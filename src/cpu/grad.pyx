"""Gradients: of a convolution's weight, of maxima, of interpolation."""

from cython cimport floating
from cython.parallel import prange, threadid
from libc.stdint cimport int32_t, int64_t, uint16_t, uintptr_t

from spcy._cpu.simd cimport level

cdef extern from "cpu/grad.h" nogil:
    ctypedef struct spcy_grad_plan:
        const void* features
        const void* gradient
        const int32_t* in_rows
        const int32_t* out_rows
        const int64_t* tile_ptr
        void* sums
        void* out
        int64_t n_offsets
        int64_t n_tiles
        int64_t n_chunks
        int64_t tiles_per_chunk
        int64_t c_in
        int64_t c_out
        int64_t groups
        int64_t width
    ctypedef struct spcy_grad_kernels:
        int64_t lanes
        int64_t sum_bytes
        int64_t run
        void (*add_chunk)(const spcy_grad_plan*, int64_t, int64_t, int64_t, void*) noexcept nogil
        void (*reduce_chunks)(const spcy_grad_plan*, int64_t) noexcept nogil
    const spcy_grad_kernels* spcy_grad_kernels_of(int level, int number) noexcept
    cdef enum:
        SPCY_FLOAT
        SPCY_DOUBLE
        SPCY_BFLOAT16

cdef extern from "cpu/grad_rows.h" nogil:
    void spcy_mask_relu(const float* y, const float* dy, int64_t count, float* dx) noexcept
    void spcy_mask_relu(const double* y, const double* dy, int64_t count, double* dx) noexcept
    void spcy_mask_relu(const uint16_t* y, const uint16_t* dy, int64_t count, uint16_t* dx) noexcept
    void spcy_note_maxima[T](const T* x, const T* y, int64_t channels, int32_t row, int32_t* noted) noexcept
    void spcy_add_noted[T](const T* x, const int32_t* noted, int64_t channels, int32_t row, T* y) noexcept
    void spcy_weigh_rows[T](
        const T* features, int64_t channels, const int32_t* entries, int64_t begin, int64_t end,
        const double* weights, int64_t corners, T* y
    ) noexcept

ctypedef fused number:
    float
    double
    uint16_t  # the bits of a bfloat16

cdef enum:
    CACHE_LINE = 64
    FEWEST_CHANNELS = 8  # that are worth reading the rows once more
    TASKS = 4  # for each thread
    CHUNK_PAIRS = 2048  # of an offset that have sums of their own ..
    CHUNKS_BYTES = 1 << 25  # .. as far as memory allows
    MOST_CHUNKS = 64
    CHUNK_ROWS = 64  # that a thread takes at a time


cdef const spcy_grad_kernels* _kernels(int number_bytes) noexcept nogil:
    return spcy_grad_kernels_of(
        level(), SPCY_DOUBLE if number_bytes == 8 else SPCY_FLOAT if number_bytes == 4 else SPCY_BFLOAT16
    )


cdef int64_t _up(int64_t count, int64_t divisor) noexcept nogil:
    return (count + divisor - 1) // divisor


cdef int64_t _width(
    const spcy_grad_kernels* kernels, int64_t c_in, int64_t c_out, int64_t groups
) noexcept nogil:
    """Sums of a row of the weight's gradient: whole vectors for each group, or for all of one channel."""
    if c_in == 1 and c_out == 1:
        return _up(groups, kernels.lanes) * kernels.lanes
    return groups * _up(c_out, kernels.lanes) * kernels.lanes


cdef int64_t _copies(
    const spcy_grad_kernels* kernels, int64_t c_in, int64_t groups, int64_t width
) noexcept nogil:
    """Sums that a thread's copies of the rows of two runs take, in whole cache lines."""
    return _up(2 * kernels.run * (groups * c_in + width + kernels.lanes), CACHE_LINE) * CACHE_LINE


def num_chunks(
    int64_t n_pairs, int64_t n_offsets, int64_t n_tiles, int64_t c_in, int64_t c_out, int64_t groups,
    int number_bytes,
):
    """Return how many sums of their own the pairs get: for any threads the same, so that the bits are."""
    cdef int64_t weight_bytes = number_bytes * n_offsets * c_in * c_out * groups
    cdef int64_t chunks = min(n_pairs // (CHUNK_PAIRS * n_offsets), CHUNKS_BYTES // weight_bytes)
    return max(1, min(chunks, MOST_CHUNKS, n_tiles))


def scratch_bytes(
    int number_bytes, int64_t n_offsets, int64_t c_in, int64_t c_out, int64_t groups, int64_t n_chunks,
    int n_threads,
):
    """Return how much scratch `weight_gradient` needs: sums for each chunk, copied rows for each thread."""
    cdef const spcy_grad_kernels* kernels = _kernels(number_bytes)
    cdef int64_t width = _width(kernels, c_in, c_out, groups)
    return CACHE_LINE + kernels.sum_bytes * (
        n_chunks * n_offsets * c_in * width + n_threads * _copies(kernels, c_in, groups, width)
    )


def weight_gradient(
    const number[:, ::1] features,  # IN, (n_in, groups * C_in)
    const number[:, ::1] gradient,  # IN, (n_out, groups * C_out)
    const int32_t[::1] in_rows,  # IN
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    int64_t groups,
    int64_t n_chunks,  # sums of their own, which are added up in order
    number[:, :, ::1] out,  # OUT, (K, C_in, groups * C_out)
    char[::1] scratch,  # scratch_bytes(..)
    int n_threads,
):
    """Write ``out[k] = sum over pairs (i, o) of features[i]^T gradient[o]``, by group."""
    cdef const spcy_grad_kernels* kernels = _kernels(sizeof(number))
    cdef spcy_grad_plan plan
    cdef Py_ssize_t task, k
    plan.features, plan.gradient = &features[0, 0], &gradient[0, 0]
    plan.in_rows, plan.out_rows, plan.tile_ptr = &in_rows[0], &out_rows[0], &tile_ptr[0, 0]
    plan.n_offsets, plan.n_tiles = tile_ptr.shape[0], tile_ptr.shape[1] - 1
    plan.n_chunks, plan.tiles_per_chunk = n_chunks, _up(plan.n_tiles, n_chunks)
    plan.c_in, plan.c_out, plan.groups = out.shape[1], out.shape[2] // groups, groups
    plan.width = _width(kernels, plan.c_in, plan.c_out, groups)
    plan.sums = <void*>(<uintptr_t>(&scratch[0] + CACHE_LINE - 1) & ~<uintptr_t>(CACHE_LINE - 1))
    plan.out = &out[0, 0, 0]
    cdef int64_t chunk_bytes = kernels.sum_bytes * plan.n_offsets * plan.c_in * plan.width
    cdef int64_t copy_bytes = kernels.sum_bytes * _copies(kernels, plan.c_in, groups, plan.width)
    cdef char* copies = <char*>plan.sums + n_chunks * chunk_bytes
    cdef int64_t wanted = TASKS * n_threads if n_threads > 1 else 1
    cdef int64_t part = max(_up(plan.c_in, _up(wanted, n_chunks)), min(FEWEST_CHANNELS, plan.c_in))
    cdef int64_t parts = _up(plan.c_in, part)
    for task in prange(n_chunks * parts, nogil=True, schedule="dynamic", num_threads=n_threads):
        kernels.add_chunk(
            &plan, task // parts, task % parts * part, min(task % parts * part + part, plan.c_in),
            copies + threadid() * copy_bytes,
        )
    for k in prange(plan.n_offsets, nogil=True, schedule="static", num_threads=n_threads):
        kernels.reduce_chunks(&plan, k)


def mask_relu(
    const number[:, ::1] features,  # IN, (N, C), the output of a ReLU
    const number[:, ::1] gradient,  # IN, (N, C)
    number[:, ::1] out,  # OUT, (N, C)
    int n_threads,
):
    """Write the gradient where the ReLU passed its input, else 0."""
    cdef Py_ssize_t row, rows
    for row in prange(0, out.shape[0], CHUNK_ROWS, nogil=True, schedule="static", num_threads=n_threads):
        rows = min(CHUNK_ROWS, out.shape[0] - row)
        spcy_mask_relu(&features[row, 0], &gradient[row, 0], rows * out.shape[1], &out[row, 0])


def find_maxima(
    const floating[:, ::1] features,  # IN, (n_in, C)
    const floating[:, ::1] maxima,  # IN, (n_out, C)
    const int32_t[::1] in_rows,  # IN
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    int32_t[:, ::1] found,  # INOUT, -1
    int n_threads,
):
    """Find the input row of each maximum: that of its first pair, if several have it."""
    cdef Py_ssize_t tile, k, j
    for tile in prange(tile_ptr.shape[1] - 1, nogil=True, schedule="dynamic", num_threads=n_threads):
        for k in range(tile_ptr.shape[0]):
            for j in range(tile_ptr[k, tile], tile_ptr[k, tile + 1]):
                spcy_note_maxima(
                    &features[in_rows[j], 0], &maxima[out_rows[j], 0], features.shape[1], in_rows[j],
                    &found[out_rows[j], 0],
                )


def return_maxima(
    const floating[:, ::1] gradient,  # IN, (n_out, C)
    const int32_t[:, ::1] found,  # IN, (n_out, C)
    const int32_t[::1] in_rows,  # IN
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1) of input ranks
    floating[:, ::1] out,  # INOUT, (n_in, C), zeros
    int n_threads,
):
    """Add the gradient of each maximum to the row that it was found in."""
    cdef Py_ssize_t tile, k, j
    for tile in prange(tile_ptr.shape[1] - 1, nogil=True, schedule="dynamic", num_threads=n_threads):
        for k in range(tile_ptr.shape[0]):
            for j in range(tile_ptr[k, tile], tile_ptr[k, tile + 1]):
                spcy_add_noted(
                    &gradient[out_rows[j], 0], &found[out_rows[j], 0], out.shape[1], in_rows[j],
                    &out[in_rows[j], 0],
                )


def find_segment_maxima(
    const floating[:, ::1] features,  # IN, (n_in, C)
    const floating[:, ::1] maxima,  # IN, (segments, C)
    const int32_t[::1] order,  # IN, rows in the order of segments
    const int64_t[::1] segment_ptr,  # IN, (segments + 1,)
    int32_t[:, ::1] found,  # INOUT, (segments, C), -1
    int n_threads,
):
    """Find the row of each maximum: the first in the segment's order, if several have it."""
    cdef Py_ssize_t s, i
    for s in prange(
        found.shape[0], nogil=True, schedule="dynamic", chunksize=CHUNK_ROWS, num_threads=n_threads
    ):
        for i in range(segment_ptr[s], segment_ptr[s + 1]):
            spcy_note_maxima(&features[order[i], 0], &maxima[s, 0], features.shape[1], order[i], &found[s, 0])


def weigh(
    const floating[:, ::1] gradient,  # IN, (M, C)
    const double[:, ::1] weights,  # IN, (M, J)
    const int32_t[::1] entries,  # IN, places in the raveled weights, in the order of segments
    const int64_t[::1] segment_ptr,  # IN, (n_out + 1,)
    floating[:, ::1] out,  # OUT, (n_out, C)
    int n_threads,
):
    """Write the weighted sum of the gradient's rows that each segment's entries name."""
    cdef Py_ssize_t s
    for s in prange(
        out.shape[0], nogil=True, schedule="dynamic", chunksize=CHUNK_ROWS, num_threads=n_threads
    ):
        spcy_weigh_rows(
            &gradient[0, 0], out.shape[1], &entries[0], segment_ptr[s], segment_ptr[s + 1], &weights[0, 0],
            weights.shape[1], &out[s, 0],
        )
