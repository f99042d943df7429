"""Keys of sites: pack, unpack, sort, make unique, and find the sites that a kernel reaches."""

from cython cimport floating
from cython.parallel import prange
from libc.math cimport floor
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef extern from "common/key.h" nogil:
    const uint64_t NO_KEY "SPCY_NO_KEY"
    uint64_t spcy_pack(
        const int32_t* index, const int64_t* low, const int64_t* shift, int columns
    ) noexcept
    int64_t spcy_unpack(uint64_t key, const int64_t* low, const int64_t* shift, int c) noexcept
    uint64_t spcy_repack(
        uint64_t key, const int64_t* low0, const int64_t* shift0, const int64_t* low1,
        const int64_t* shift1, int columns,
    ) noexcept

cdef extern from "cpu/radix.h" nogil:
    void spcy_histogram(
        const uint64_t* keys, int64_t begin, int64_t end, int shift, int digit_bits, int64_t* counts
    ) noexcept
    void spcy_digit_places(int64_t* counts, int parts, int digit_bits) noexcept
    void spcy_scatter(
        const uint64_t* keys, const int32_t* rows, int64_t begin, int64_t end, int shift,
        int digit_bits, int64_t* places, uint64_t* out_keys, int32_t* out_rows,
    ) noexcept

CHUNK = 4096  # rows of a chunk wherever a function takes or returns one value per chunk
cdef enum:
    CHUNK_ROWS = 4096


def bounds(
    const int32_t[:, ::1] indices,  # IN
    int32_t[:, :, ::1] found,  # OUT, (chunks, 2, columns)
    int n_threads,
):
    """Write the least and greatest value of each column, of each chunk of rows; in the first of all rows."""
    cdef Py_ssize_t chunk, c
    for chunk in prange(found.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        _chunk_bounds(indices, chunk * CHUNK_ROWS, &found[chunk, 0, 0], &found[chunk, 1, 0])
    for chunk in range(found.shape[0]):
        for c in range(found.shape[2]):
            found[0, 0, c] = min(found[0, 0, c], found[chunk, 0, c])
            found[0, 1, c] = max(found[0, 1, c], found[chunk, 1, c])


cdef void _chunk_bounds(
    const int32_t[:, ::1] indices, Py_ssize_t begin, int32_t* low, int32_t* high
) noexcept nogil:
    cdef Py_ssize_t i, c
    cdef Py_ssize_t columns = indices.shape[1]
    for c in range(columns):
        low[c] = high[c] = indices[begin, c]
    for i in range(begin, min(begin + CHUNK_ROWS, indices.shape[0])):
        for c in range(columns):
            low[c] = min(low[c], indices[i, c])
            high[c] = max(high[c], indices[i, c])


def pack(
    const int32_t[:, ::1] indices,  # IN
    const int64_t[::1] low,  # IN
    const int64_t[::1] shift,  # IN
    uint64_t[::1] keys,  # OUT
    int n_threads,
):
    """Write the key of each row of indices; every row must lie inside the layout."""
    cdef Py_ssize_t i
    cdef int columns = <int>indices.shape[1]
    for i in prange(indices.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        keys[i] = spcy_pack(&indices[i, 0], &low[0], &shift[0], columns)


def pack_inside(
    const int32_t[:, ::1] indices,  # IN
    const int64_t[::1] low,  # IN
    const int64_t[::1] high,  # IN
    const int64_t[::1] shift,  # IN
    uint64_t[::1] keys,  # OUT
    int n_threads,
):
    """Like `pack`, for any indices: rows outside the layout get the key that no site has."""
    cdef Py_ssize_t i, c
    cdef int columns = <int>indices.shape[1]
    cdef bint inside
    for i in prange(indices.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        inside = True
        for c in range(columns):
            inside = inside and low[c] <= indices[i, c] and indices[i, c] <= high[c]
        keys[i] = spcy_pack(&indices[i, 0], &low[0], &shift[0], columns) if inside else NO_KEY


def unpack(
    const uint64_t[::1] keys,  # IN
    const int64_t[::1] low,  # IN
    const int64_t[::1] shift,  # IN
    int32_t[:, ::1] indices,  # OUT
    int n_threads,
):
    """Write the coordinates of each key."""
    cdef Py_ssize_t i
    cdef int c
    cdef int columns = <int>indices.shape[1]
    for i in prange(indices.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        for c in range(columns):
            indices[i, c] = <int32_t>spcy_unpack(keys[i], &low[0], &shift[0], c)


def repack(
    const uint64_t[::1] keys,  # IN
    const int64_t[::1] low0,  # IN
    const int64_t[::1] shift0,  # IN
    const int64_t[::1] low1,  # IN
    const int64_t[::1] shift1,  # IN
    uint64_t[::1] out,  # OUT
    int n_threads,
):
    """Write the keys, in layout 1, of keys in layout 0."""
    cdef Py_ssize_t i
    cdef int columns = <int>low0.shape[0]
    for i in prange(keys.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        out[i] = spcy_repack(keys[i], &low0[0], &shift0[0], &low1[0], &shift1[0], columns)


def count_descents(const uint64_t[::1] keys, int n_threads):
    """Return how many keys are not greater than the one before."""
    cdef Py_ssize_t i
    cdef int64_t count = 0
    for i in prange(1, keys.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        count += keys[i] <= keys[i - 1]
    return count


def sort(
    uint64_t[::1] keys,  # INOUT
    int32_t[::1] rows,  # OUT, the row each sorted key came from
    uint64_t[::1] spare_keys,  # scratch
    int32_t[::1] spare_rows,  # scratch
    int64_t[:, ::1] counts,  # scratch, (n_threads, at least 2**digit_bits)
    int bits,
    int digit_bits,
    int n_threads,
):
    """Sort keys of `bits` bits, stably; return whether the result ended in the spare arrays."""
    cdef int64_t n = keys.shape[0]
    cdef int passes = (bits + digit_bits - 1) // digit_bits
    cdef int step, shift, part
    cdef uint64_t* source = &keys[0]
    cdef uint64_t* target = &spare_keys[0]
    cdef int32_t* source_rows = NULL
    cdef int32_t* target_rows = &spare_rows[0]
    cdef int32_t* other_rows = &rows[0]
    cdef int64_t* place = &counts[0, 0]
    cdef int64_t digits = 1 << digit_bits
    for step in range(passes):
        shift = step * digit_bits
        for part in prange(n_threads, nogil=True, schedule="static", num_threads=n_threads):
            spcy_histogram(
                source, n * part // n_threads, n * (part + 1) // n_threads, shift, digit_bits,
                place + part * digits,
            )
        spcy_digit_places(place, n_threads, digit_bits)
        for part in prange(n_threads, nogil=True, schedule="static", num_threads=n_threads):
            spcy_scatter(
                source, source_rows, n * part // n_threads, n * (part + 1) // n_threads, shift,
                digit_bits, place + part * digits, target, target_rows,
            )
        source, target = target, source
        source_rows = target_rows
        target_rows, other_rows = other_rows, target_rows
    return passes % 2 == 1


def count_runs(const uint64_t[::1] keys, int64_t[::1] counts, int n_threads):
    """Write, for each chunk of sorted keys, how many differ from the key before them."""
    cdef Py_ssize_t chunk, i
    cdef Py_ssize_t n = keys.shape[0]
    cdef int64_t count
    for chunk in prange(counts.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        count = 0
        for i in range(chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, n)):
            count = count + (i == 0 or keys[i] != keys[i - 1])
        counts[chunk] = count


def fill_runs(
    const uint64_t[::1] keys,  # IN
    const int64_t[::1] chunk_ptr,  # IN, first run of each chunk
    int64_t[::1] starts,  # OUT, where each run begins
    uint64_t[::1] unique,  # OUT, the key of each run
    int n_threads,
):
    """Write where each run of equal sorted keys begins, and its key."""
    cdef Py_ssize_t chunk, i
    cdef Py_ssize_t n = keys.shape[0]
    cdef int64_t run
    for chunk in prange(chunk_ptr.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        run = chunk_ptr[chunk]
        for i in range(chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, n)):
            if i == 0 or keys[i] != keys[i - 1]:
                starts[run] = i
                unique[run] = keys[i]
                run = run + 1


def spread_runs(
    const int64_t[::1] starts,  # IN, (runs + 1,)
    const int32_t[::1] order,  # IN, the row at each sorted place
    int32_t[::1] rows,  # OUT
    int n_threads,
):
    """Write to each row the number of the run that it is in."""
    cdef Py_ssize_t run, i
    for run in prange(starts.shape[0] - 1, nogil=True, schedule="static", num_threads=n_threads):
        for i in range(starts[run], starts[run + 1]):
            rows[order[i]] = <int32_t>run


def quantize(
    const floating[:, ::1] points,  # IN
    const int32_t[::1] batch,  # IN or None
    const double[::1] origin,  # IN
    const double[::1] voxel_size,  # IN
    const double[::1] low,  # IN, least valid cell
    const double[::1] high,  # IN, greatest valid cell
    int32_t[:, ::1] indices,  # OUT, (M, 1 + D)
    uint8_t[::1] state,  # OUT, 0 valid, 1 outside [low, high], 2 not finite
    int n_threads,
):
    """Write the cell of each point, `floor((point - origin) / voxel_size)` in double precision."""
    cdef Py_ssize_t i, d
    cdef Py_ssize_t ndim = points.shape[1]
    cdef bint batched = batch is not None
    cdef double cell
    for i in prange(points.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        state[i] = 0
        indices[i, 0] = batch[i] if batched else 0
        for d in range(ndim):
            cell = floor((points[i, d] - origin[d]) / voxel_size[d])
            indices[i, 1 + d] = 0
            if cell >= low[d] and cell <= high[d]:
                indices[i, 1 + d] = <int32_t>cell
            elif points[i, d] - points[i, d] == 0.0:
                state[i] = max(state[i], <uint8_t>1)
            else:
                state[i] = 2


def corners(
    const floating[:, ::1] points,  # IN
    const int32_t[::1] batch,  # IN or None
    const double[::1] origin,  # IN
    const double[::1] voxel_size,  # IN
    const int64_t[::1] low,  # IN, layout
    const int64_t[::1] high,  # IN
    const int64_t[::1] shift,  # IN
    uint64_t[:, ::1] keys,  # OUT, (M, 2**D), the key that no site has where a cell is outside the layout
    double[:, ::1] weights,  # OUT, (M, 2**D)
    uint8_t[::1] state,  # OUT, 0 valid, 2 not finite
    int n_threads,
):
    """Write the keys of the cells whose centres surround each point, and their linear weights."""
    cdef Py_ssize_t i
    for i in prange(points.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        state[i] = _point_corners(
            &points[i, 0], <int>points.shape[1], batch[i] if batch is not None else 0, &origin[0],
            &voxel_size[0], &low[0], &high[0], &shift[0], &keys[i, 0], &weights[i, 0],
        )


cdef uint8_t _point_corners(
    const floating* point, int ndim, int64_t batch, const double* origin, const double* voxel_size,
    const int64_t* low, const int64_t* high, const int64_t* shift, uint64_t* keys, double* weights,
) noexcept nogil:
    cdef int corners = 1 << ndim
    cdef int corner, d, upper
    cdef double place, cell, fraction
    cdef bint finite = True
    for corner in range(corners):
        weights[corner] = 1.0
        keys[corner] = NO_KEY
        if low[0] <= batch and batch <= high[0]:
            keys[corner] = <uint64_t>(batch - low[0]) << shift[0]
    for d in range(ndim):
        place = (point[d] - origin[d]) / voxel_size[d] - 0.5
        cell = floor(place)
        fraction = place - cell
        finite = finite and point[d] - point[d] == 0.0
        for corner in range(corners):
            upper = (corner >> (ndim - 1 - d)) & 1
            weights[corner] *= fraction if upper else 1.0 - fraction
            if keys[corner] == NO_KEY or not (low[1 + d] <= cell + upper and cell + upper <= high[1 + d]):
                keys[corner] = NO_KEY
            else:
                keys[corner] += <uint64_t>(<int64_t>cell + upper - low[1 + d]) << shift[1 + d]
    return 0 if finite else 2
