"""Count the pairs of each kernel offset, then fill them in, in the order (offset, output key)."""

from cython.parallel import prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from "cpu/walk.h" nogil:
    void spcy_walk_line(
        bint fill, const uint64_t* base, int64_t begin, int64_t end, const uint64_t* keys, int64_t n,
        int64_t first, int width, int32_t* sites, int32_t* found, int64_t stride, int64_t* counts,
    ) noexcept
    void spcy_copy_rows(const int32_t* ranks, int64_t count, const int32_t* order, int32_t* rows) noexcept

CHUNK = 1024  # sites walked at a time: the ranks of a line's pairs stay in the first-level cache
cdef enum:
    CHUNK_ROWS = 1024


def count_pairs(
    const uint64_t[::1] base,  # IN, (sites,) ascending keys of the walking sites
    const uint64_t[::1] keys,  # IN, (n + 1,) ascending keys to meet, and a sentinel
    const int64_t[::1] line_first,  # IN, key step from a site to the line's first offset
    const int64_t[::1] line_ptr,  # IN, the offsets of each line
    int64_t[:, ::1] counts,  # OUT, (chunks, offsets)
    int n_threads,
):
    """Write how many pairs each offset has in each chunk of sites."""
    cdef Py_ssize_t chunk, line, begin, end
    cdef Py_ssize_t n_lines = line_first.shape[0]
    for chunk in prange(counts.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        begin = chunk * CHUNK_ROWS
        end = min(begin + CHUNK_ROWS, base.shape[0])
        for line in range(n_lines):
            spcy_walk_line(
                False, &base[0], begin, end, &keys[0], keys.shape[0] - 1, line_first[line],
                <int>(line_ptr[line + 1] - line_ptr[line]), NULL, NULL, 0,
                &counts[chunk, line_ptr[line]],
            )


def fill_pairs(
    const uint64_t[::1] base,  # IN
    const uint64_t[::1] keys,  # IN
    const int64_t[::1] line_first,  # IN
    const int64_t[::1] line_ptr,  # IN
    const int64_t[:, ::1] places,  # IN, where each chunk's pairs of an offset begin
    const int32_t[::1] base_order,  # IN or None, rows of the walking sites
    const int32_t[::1] keys_order,  # IN or None, rows of the keys
    int32_t[::1] base_rows,  # OUT
    int32_t[::1] keys_rows,  # OUT
    int32_t[:, :, ::1] ranks,  # scratch, (n_threads, 2, widest line * (CHUNK + 1))
    int64_t[:, ::1] counts,  # scratch, (n_threads, widest line)
    int n_threads,
):
    """Write the pairs counted by `count_pairs`."""
    cdef Py_ssize_t chunk, line, begin, end, offset, width, w
    cdef int thread
    cdef Py_ssize_t n_lines = line_first.shape[0]
    cdef const int32_t* base_map = NULL
    cdef const int32_t* keys_map = NULL
    if base_order is not None:
        base_map = &base_order[0]
    if keys_order is not None:
        keys_map = &keys_order[0]
    for chunk in prange(places.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        thread = threadid()
        begin = chunk * CHUNK_ROWS
        end = min(begin + CHUNK_ROWS, base.shape[0])
        for line in range(n_lines):
            offset = line_ptr[line]
            width = line_ptr[line + 1] - offset
            spcy_walk_line(
                True, &base[0], begin, end, &keys[0], keys.shape[0] - 1, line_first[line], <int>width,
                &ranks[thread, 0, 0], &ranks[thread, 1, 0], CHUNK_ROWS + 1, &counts[thread, 0],
            )
            for w in range(width):
                if counts[thread, w]:
                    spcy_copy_rows(
                        &ranks[thread, 0, w * (CHUNK_ROWS + 1)], counts[thread, w], base_map,
                        &base_rows[places[chunk, offset + w]],
                    )
                    spcy_copy_rows(
                        &ranks[thread, 1, w * (CHUNK_ROWS + 1)], counts[thread, w], keys_map,
                        &keys_rows[places[chunk, offset + w]],
                    )


def mirror_pairs(
    const int64_t[::1] offset_ptr,  # IN
    int32_t[::1] in_rows,  # INOUT
    int32_t[::1] out_rows,  # INOUT
    int n_threads,
):
    """Write the pairs of the last offsets of a symmetric kernel: those of the first, swapped."""
    cdef Py_ssize_t k
    cdef Py_ssize_t n_offsets = offset_ptr.shape[0] - 1
    cdef int64_t source, target, size
    for k in prange(n_offsets // 2, nogil=True, schedule="dynamic", num_threads=n_threads):
        source = offset_ptr[k]
        target = offset_ptr[n_offsets - 1 - k]
        size = (offset_ptr[k + 1] - source) * sizeof(int32_t)
        if size:
            memcpy(&in_rows[target], &out_rows[source], size)
            memcpy(&out_rows[target], &in_rows[source], size)


def cut_tiles(
    const int32_t[::1] out_rows,  # IN
    const int64_t[::1] offset_ptr,  # IN
    const int32_t[::1] rank,  # IN or None, rank of each output row
    Py_ssize_t tile_size,
    int64_t[:, ::1] tile_ptr,  # OUT, (offsets, tiles + 1)
    int n_threads,
):
    """Write where the pairs of each tile of output ranks begin, under each offset."""
    cdef Py_ssize_t k
    cdef const int32_t* ranks = NULL
    cdef const int32_t* rows = NULL
    if rank is not None:
        ranks = &rank[0]
    if out_rows.shape[0]:
        rows = &out_rows[0]
    for k in prange(tile_ptr.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        _cut_offset(
            rows, ranks, offset_ptr[k], offset_ptr[k + 1], tile_size, &tile_ptr[k, 0],
            tile_ptr.shape[1],
        )


cdef void _cut_offset(
    const int32_t* rows, const int32_t* ranks, int64_t begin, int64_t end, int64_t tile_size,
    int64_t* cuts, Py_ssize_t n_cuts,
) noexcept nogil:
    cdef Py_ssize_t cut
    cdef int64_t low, size, half, at, limit
    cdef int32_t value
    low = begin
    for cut in range(n_cuts):
        # An output row occurs once under an offset, so a tile has at most tile_size pairs of it.
        limit = cut * tile_size
        size = min(tile_size, end - low) if cut else 0
        while size > 0:
            half = size // 2
            at = low + half
            value = ranks[rows[at]] if ranks != NULL else rows[at]
            if value < limit:
                low = at + 1
                size = size - half - 1
            else:
                size = half
        cuts[cut] = low
