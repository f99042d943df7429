"""Gradients: of a convolution's weight, and of maxima."""

from cython cimport floating
from libc.stdint cimport int32_t, int64_t, uint32_t, uintptr_t

from spcy._cpu.pairs cimport pairs_of, ranks_of, spcy_pairs, spcy_ranks
from spcy._cpu.simd cimport kind_of, kind_of_dtype, level, number
from spcy._cpu.threads cimport spcy_team, team

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
    const spcy_grad_kernels* spcy_grad_kernels_of(int level, int number) noexcept
    bint spcy_sums_in_place(
        const spcy_grad_plan* plan, int64_t number_bytes, int64_t sum_bytes
    ) noexcept
    int64_t spcy_copied_step(int64_t channels, int64_t sum_bytes) noexcept
    void spcy_weight_gradient(
        const spcy_grad_kernels* kernels, const spcy_grad_plan* plan, int64_t offsets, int64_t channels,
        char* copies, int64_t copy_bytes, spcy_team team,
    ) noexcept

cdef extern from "cpu/maxima.h" nogil:
    ctypedef struct spcy_maxima:
        const void* features
        const void* maxima
        const void* gradient
        void* dx
        uint32_t* left
        uint32_t* taken
        spcy_pairs pairs
        spcy_ranks ranks
        int64_t channels
    ctypedef struct spcy_maxima_kernels:
        pass
    const spcy_maxima_kernels* spcy_maxima_kernels_of(int level, int number) noexcept
    void spcy_find_maxima(
        const spcy_maxima_kernels* kernels, const spcy_maxima* plan, spcy_team team,
    ) noexcept
    void spcy_return_maxima(
        const spcy_maxima_kernels* kernels, const spcy_maxima* plan, spcy_team team,
    ) noexcept
    void spcy_return_segment_maxima[T](
        const spcy_maxima_kernels* kernels, const T* features, const T* maxima, const T* gradient,
        const int32_t* order, const int64_t* segment_ptr, int64_t segments, int64_t channels, T* dx,
        spcy_team team,
    ) noexcept


cdef enum:
    CACHE_LINE = 64
    FEWEST_CHANNELS = 8  # that are worth reading the rows once more
    TASKS = 4  # for each thread
    CHUNK_PAIRS = 2048  # of an offset that have sums of their own ..
    CHUNKS_BYTES = 1 << 25  # .. as far as memory allows
    MOST_CHUNKS = 64


cdef const spcy_grad_kernels* _kernels(int kind) noexcept nogil:
    return spcy_grad_kernels_of(level(), kind)


cdef int64_t _up(int64_t count, int64_t divisor) noexcept nogil:
    return (count + divisor - 1) // divisor


cdef void _set_channels(
    spcy_grad_plan* plan, const spcy_grad_kernels* kernels, int64_t c_in, int64_t c_out, int64_t groups
) noexcept nogil:
    """Set how many sums a row has: whole vectors for each group, or for all of one channel."""
    plan.c_in, plan.c_out, plan.groups = c_in, c_out, groups
    if c_in == 1 and c_out == 1:
        plan.width = _up(groups, kernels.lanes) * kernels.lanes
    else:
        plan.width = groups * _up(c_out, kernels.lanes) * kernels.lanes


cdef int64_t _chunk_bytes(const spcy_grad_kernels* kernels, const spcy_grad_plan* plan) noexcept nogil:
    return kernels.sum_bytes * plan.n_offsets * plan.c_in * plan.width


cdef int64_t _copy_bytes(const spcy_grad_kernels* kernels, const spcy_grad_plan* plan) noexcept nogil:
    """Bytes that a thread's copies of the rows of two runs take, in whole cache lines."""
    cdef int64_t x = plan.width if plan.c_in == 1 and plan.c_out == 1 else plan.groups * plan.c_in
    return 2 * kernels.run * kernels.sum_bytes * (
        spcy_copied_step(x, kernels.sum_bytes) + spcy_copied_step(plan.width, kernels.sum_bytes)
    )


def num_chunks(
    int64_t n_pairs, int64_t n_offsets, int64_t n_tiles, int64_t c_in, int64_t c_out, int64_t groups,
    dtype,
):
    """Return how many sums of their own the pairs get: for any threads the same, so that the bits are."""
    cdef int64_t weight_bytes = dtype.itemsize * n_offsets * c_in * c_out * groups
    cdef int64_t chunks = min(n_pairs // (CHUNK_PAIRS * n_offsets), CHUNKS_BYTES // weight_bytes)
    return max(1, min(chunks, MOST_CHUNKS, n_tiles))


def scratch_bytes(
    dtype, int64_t n_offsets, int64_t c_in, int64_t c_out, int64_t groups, int64_t n_chunks,
    int n_threads,
):
    """Return how much scratch `weight_gradient` needs: sums for each chunk, copied rows for each thread."""
    cdef const spcy_grad_kernels* kernels = _kernels(kind_of_dtype(dtype))
    cdef spcy_grad_plan plan
    plan.n_offsets = n_offsets
    _set_channels(&plan, kernels, c_in, c_out, groups)
    cdef int64_t chunks = n_chunks - spcy_sums_in_place(&plan, dtype.itemsize, kernels.sum_bytes)
    return 2 * CACHE_LINE + chunks * _chunk_bytes(kernels, &plan) + n_threads * _copy_bytes(kernels, &plan)


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
    cdef const spcy_grad_kernels* kernels = _kernels(kind_of(&features[0, 0]))
    cdef spcy_grad_plan plan
    plan.features, plan.gradient = &features[0, 0], &gradient[0, 0]
    plan.in_rows, plan.out_rows, plan.tile_ptr = &in_rows[0], &out_rows[0], &tile_ptr[0, 0]
    plan.n_offsets, plan.n_tiles = tile_ptr.shape[0], tile_ptr.shape[1] - 1
    plan.n_chunks, plan.tiles_per_chunk = n_chunks, _up(plan.n_tiles, n_chunks)
    _set_channels(&plan, kernels, out.shape[1], out.shape[2] // groups, groups)
    plan.sums = <void*>(<uintptr_t>(&scratch[0] + CACHE_LINE - 1) & ~<uintptr_t>(CACHE_LINE - 1))
    plan.out = &out[0, 0, 0]
    cdef int64_t chunks = n_chunks - spcy_sums_in_place(&plan, sizeof(number), kernels.sum_bytes)
    cdef int64_t sums_bytes = _up(chunks * _chunk_bytes(kernels, &plan), CACHE_LINE) * CACHE_LINE
    cdef char* copies = <char*>plan.sums + sums_bytes
    cdef int64_t copy_bytes = _copy_bytes(kernels, &plan)
    cdef int64_t tasks = _up(TASKS * n_threads, n_chunks) if n_threads > 1 else 1  # of a chunk
    # by offsets as far as they go: parts of the channels read the other rows once more
    cdef int64_t offsets = _up(plan.n_offsets, min(tasks, plan.n_offsets))
    tasks = _up(tasks, _up(plan.n_offsets, offsets))
    cdef int64_t channels = max(_up(plan.c_in, tasks), min(FEWEST_CHANNELS, plan.c_in))
    with nogil:
        spcy_weight_gradient(kernels, &plan, offsets, channels, copies, copy_bytes, team(n_threads))


def find_maxima(
    const number[:, ::1] features,  # IN, (n_in, C)
    const number[:, ::1] maxima,  # IN, (n_out, C)
    const int32_t[::1] in_rows,  # IN
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1)
    const int32_t[::1] order,  # IN or None, row of each output rank
    int64_t tile_size,
    uint32_t[:, ::1] left,  # OUT, (n_out, ceil(C / 32)), a bit for each channel that no pair has
    uint32_t[:, ::1] taken,  # OUT, (P, ceil(C / 32)), a bit for each that the pair has
    int n_threads,
):
    """Find the channels in which each pair has its output's maximum: the first one, if several have it."""
    cdef spcy_maxima plan
    plan.features, plan.maxima, plan.gradient, plan.dx = &features[0, 0], &maxima[0, 0], NULL, NULL
    plan.left, plan.taken, plan.channels = &left[0, 0], &taken[0, 0], features.shape[1]
    plan.pairs = pairs_of(in_rows, out_rows, tile_ptr)
    plan.ranks = ranks_of(order, tile_size, left.shape[0])
    cdef const spcy_maxima_kernels* kernels = spcy_maxima_kernels_of(level(), kind_of(&features[0, 0]))
    with nogil:
        spcy_find_maxima(kernels, &plan, team(n_threads))


def return_maxima(
    const number[:, ::1] gradient,  # IN, (n_out, C)
    uint32_t[:, ::1] taken,  # IN, (P, ceil(C / 32)), a bit for each channel
    const int32_t[::1] in_rows,  # IN
    const int32_t[::1] out_rows,  # IN
    const int64_t[:, ::1] tile_ptr,  # IN, (K, tiles + 1) of input ranks
    const int32_t[::1] order,  # IN or None, row of each input rank
    int64_t tile_size,
    floating[:, ::1] out,  # OUT, (n_in, C), of the dtype that the gradient's is summed in
    int n_threads,
):
    """Add the gradient of each maximum to the input row that has it; write 0 to those that have none."""
    cdef spcy_maxima plan
    plan.features, plan.maxima, plan.gradient, plan.dx = NULL, NULL, &gradient[0, 0], &out[0, 0]
    plan.left = <uint32_t*>NULL
    plan.taken = &taken[0, 0]
    plan.channels = out.shape[1]
    plan.pairs = pairs_of(in_rows, out_rows, tile_ptr)
    plan.ranks = ranks_of(order, tile_size, out.shape[0])
    cdef const spcy_maxima_kernels* kernels = spcy_maxima_kernels_of(level(), kind_of(&gradient[0, 0]))
    with nogil:
        spcy_return_maxima(kernels, &plan, team(n_threads))


def return_segment_maxima(
    const number[:, ::1] features,  # IN, (n_in, C)
    const number[:, ::1] maxima,  # IN, (segments, C)
    const number[:, ::1] gradient,  # IN, (segments, C)
    const int32_t[::1] order,  # IN or None, rows in the order of segments
    const int64_t[::1] segment_ptr,  # IN, (segments + 1,)
    number[:, ::1] out,  # INOUT, (n_in, C)
    int n_threads,
):
    """Write the gradient of each maximum to its segment's first row that has it, 0 to the others."""
    cdef const int32_t* rows = &order[0] if order is not None else NULL
    cdef const spcy_maxima_kernels* kernels = spcy_maxima_kernels_of(level(), kind_of(&features[0, 0]))
    with nogil:
        spcy_return_segment_maxima(
            kernels, &features[0, 0], &maxima[0, 0], &gradient[0, 0], rows, &segment_ptr[0], maxima.shape[0],
            features.shape[1], &out[0, 0], team(n_threads),
        )
