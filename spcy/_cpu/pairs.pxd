from libc.stdint cimport int32_t, int64_t

cdef extern from "cpu/pairs.h" nogil:
    ctypedef struct spcy_pairs:
        const int32_t* in_rows
        const int32_t* out_rows
        const int64_t* tile_ptr
        int64_t n_offsets
        int64_t n_tiles
    ctypedef struct spcy_ranks:
        const int32_t* order
        int64_t tile_size
        int64_t count

cdef inline spcy_pairs pairs_of(
    const int32_t[::1] in_rows, const int32_t[::1] out_rows, const int64_t[:, ::1] tile_ptr
) noexcept nogil:
    cdef spcy_pairs pairs
    pairs.in_rows = &in_rows[0] if in_rows.shape[0] else NULL
    pairs.out_rows = &out_rows[0] if out_rows.shape[0] else NULL
    pairs.tile_ptr = &tile_ptr[0, 0]
    pairs.n_offsets, pairs.n_tiles = tile_ptr.shape[0], tile_ptr.shape[1] - 1
    return pairs

cdef inline spcy_ranks ranks_of(const int32_t[::1] order, int64_t tile_size, int64_t count) noexcept nogil:
    cdef spcy_ranks ranks
    ranks.order = &order[0] if order is not None and order.shape[0] else NULL
    ranks.tile_size, ranks.count = tile_size, count
    return ranks
