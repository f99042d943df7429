"""Keys of sites and of points' cells: pack, unpack, sort, make unique."""

from cython cimport floating
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from spcy._cpu.simd cimport kind_of, level
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/coords.h" nogil:
    cdef enum:
        SPCY_COORDS_CHUNK
    void spcy_bounds[T](const T* values, int64_t rows, int columns, T* found, spcy_team team) noexcept
    void spcy_pack_rows(
        const int32_t* indices, int64_t rows, int columns, const int64_t* low, const int64_t* shift,
        uint64_t* keys, spcy_team team,
    ) noexcept
    void spcy_pack_rows_inside(
        const int32_t* indices, int64_t rows, int columns, const int64_t* low, const int64_t* high,
        const int64_t* shift, uint64_t* keys, spcy_team team,
    ) noexcept
    void spcy_unpack_rows(
        const uint64_t* keys, int64_t rows, int columns, const int64_t* low, const int64_t* shift,
        int32_t* indices, spcy_team team,
    ) noexcept
    void spcy_repack_rows(
        const uint64_t* keys, int64_t rows, const int64_t* low0, const int64_t* shift0, const int64_t* low1,
        const int64_t* shift1, int columns, uint64_t* out, spcy_team team,
    ) noexcept
    int64_t spcy_count_descents(const uint64_t* keys, int64_t rows, spcy_team team) noexcept
    bint spcy_sort(
        uint64_t* keys, int64_t n, int32_t* rows, uint64_t* spare_keys, int32_t* spare_rows, int64_t* counts,
        int parts, int bits, int digit_bits, spcy_team team,
    ) noexcept
    void spcy_count_runs(const uint64_t* keys, int64_t rows, int64_t* counts, spcy_team team) noexcept
    void spcy_fill_runs(
        const uint64_t* keys, int64_t rows, const int64_t* chunk_ptr, int64_t* starts, uint64_t* unique,
        spcy_team team,
    ) noexcept
    void spcy_spread_runs(
        const int64_t* starts, int64_t runs, const int32_t* order, int32_t* rows, spcy_team team
    ) noexcept
    ctypedef struct spcy_cells:
        const void* points
        const int32_t* batch
        const double* origin
        const double* voxel_size
        const int64_t* low
        const int64_t* high
        const int64_t* layout_low
        const int64_t* shift
        uint64_t none
        uint64_t* keys
        double* fractions
        uint8_t* state
        int axes
        bint between
    ctypedef struct spcy_coords_kernels:
        pass
    const spcy_coords_kernels* spcy_coords_kernels_of(int level, int number) noexcept
    void spcy_cell_keys(
        const spcy_coords_kernels* kernels, const spcy_cells* grid, int64_t points, spcy_team team
    ) noexcept

ctypedef fused value:
    int32_t
    float
    double

CHUNK = SPCY_COORDS_CHUNK  # rows of a chunk wherever a function takes or returns one value per chunk


def bounds(
    const value[:, ::1] values,  # IN
    value[:, :, ::1] found,  # OUT, (chunks, 2, columns)
    int n_threads,
):
    """Write the least and greatest value of each column, of each chunk of rows; in the first of all rows."""
    with nogil:
        spcy_bounds(
            &values[0, 0], values.shape[0], <int>values.shape[1], &found[0, 0, 0], team(n_threads)
        )


def pack(
    const int32_t[:, ::1] indices,  # IN
    const int64_t[::1] low,  # IN
    const int64_t[::1] shift,  # IN
    uint64_t[::1] keys,  # OUT
    int n_threads,
):
    """Write the key of each row of indices; every row must lie inside the layout."""
    with nogil:
        spcy_pack_rows(
            &indices[0, 0], indices.shape[0], <int>indices.shape[1], &low[0], &shift[0], &keys[0],
            team(n_threads),
        )


def pack_inside(
    const int32_t[:, ::1] indices,  # IN
    const int64_t[::1] low,  # IN
    const int64_t[::1] high,  # IN
    const int64_t[::1] shift,  # IN
    uint64_t[::1] keys,  # OUT
    int n_threads,
):
    """Like `pack`, for any indices: rows outside the layout get the key that no site has."""
    with nogil:
        spcy_pack_rows_inside(
            &indices[0, 0], indices.shape[0], <int>indices.shape[1], &low[0], &high[0], &shift[0], &keys[0],
            team(n_threads),
        )


def unpack(
    const uint64_t[::1] keys,  # IN
    const int64_t[::1] low,  # IN
    const int64_t[::1] shift,  # IN
    int32_t[:, ::1] indices,  # OUT
    int n_threads,
):
    """Write the coordinates of each key."""
    with nogil:
        spcy_unpack_rows(
            &keys[0], indices.shape[0], <int>indices.shape[1], &low[0], &shift[0], &indices[0, 0],
            team(n_threads),
        )


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
    with nogil:
        spcy_repack_rows(
            &keys[0], keys.shape[0], &low0[0], &shift0[0], &low1[0], &shift1[0], <int>low0.shape[0], &out[0],
            team(n_threads),
        )


def count_descents(const uint64_t[::1] keys, int n_threads):
    """Return how many keys are not greater than the one before."""
    cdef int64_t count
    with nogil:
        count = spcy_count_descents(&keys[0], keys.shape[0], team(n_threads))
    return count


def sort(
    uint64_t[::1] keys,  # INOUT
    int32_t[::1] rows,  # OUT, the row each sorted key came from
    uint64_t[::1] spare_keys,  # scratch
    int32_t[::1] spare_rows,  # scratch
    int64_t[:, ::1] counts,  # scratch, (parts, 2**digit_bits)
    int bits,
    int digit_bits,
    int n_threads,
):
    """Sort keys of `bits` bits, stably; return whether the result ended in the spare arrays."""
    cdef bint in_spare
    with nogil:
        in_spare = spcy_sort(
            &keys[0], keys.shape[0], &rows[0], &spare_keys[0], &spare_rows[0], &counts[0, 0],
            <int>counts.shape[0], bits, digit_bits, team(n_threads),
        )
    return in_spare


def count_runs(const uint64_t[::1] keys, int64_t[::1] counts, int n_threads):
    """Write, for each chunk of sorted keys, how many differ from the key before them."""
    with nogil:
        spcy_count_runs(&keys[0], keys.shape[0], &counts[0], team(n_threads))


def fill_runs(
    const uint64_t[::1] keys,  # IN
    const int64_t[::1] chunk_ptr,  # IN, first run of each chunk
    int64_t[::1] starts,  # OUT, where each run begins
    uint64_t[::1] unique,  # OUT, the key of each run
    int n_threads,
):
    """Write where each run of equal sorted keys begins, and its key."""
    with nogil:
        spcy_fill_runs(&keys[0], keys.shape[0], &chunk_ptr[0], &starts[0], &unique[0], team(n_threads))


def spread_runs(
    const int64_t[::1] starts,  # IN, (runs + 1,)
    const int32_t[::1] order,  # IN, the row at each sorted place
    int32_t[::1] rows,  # OUT
    int n_threads,
):
    """Write to each row the number of the run that it is in."""
    with nogil:
        spcy_spread_runs(&starts[0], starts.shape[0] - 1, &order[0], &rows[0], team(n_threads))


def cell_keys(
    const floating[:, ::1] points,  # IN
    const int32_t[::1] batch,  # IN or None
    const double[::1] origin,  # IN
    const double[::1] voxel_size,  # IN
    bint between,  # cells between centres, named after their lowest corner
    const int64_t[::1] low,  # IN, least batch and cell
    const int64_t[::1] high,  # IN, greatest batch and cell
    const int64_t[::1] layout_low,  # IN
    const int64_t[::1] shift,  # IN
    uint64_t none,
    uint64_t[::1] keys,  # OUT, `none` outside [low, high]
    double[:, ::1] fractions,  # OUT or None, (M, D), where in its cell each point lies
    uint8_t[::1] state,  # OUT, 0 valid, 2 not finite
    int n_threads,
):
    """Write the key of the cell that holds each point, computed in double precision."""
    cdef spcy_cells grid
    grid.points, grid.axes, grid.between = &points[0, 0], <int>points.shape[1], between
    grid.batch = &batch[0] if batch is not None else NULL
    grid.origin, grid.voxel_size = &origin[0], &voxel_size[0]
    grid.low, grid.high, grid.layout_low, grid.shift = &low[0], &high[0], &layout_low[0], &shift[0]
    grid.none, grid.keys, grid.state = none, &keys[0], &state[0]
    grid.fractions = &fractions[0, 0] if fractions is not None else NULL
    cdef const spcy_coords_kernels* kernels = spcy_coords_kernels_of(level(), kind_of(&points[0, 0]))
    with nogil:
        spcy_cell_keys(kernels, &grid, points.shape[0], team(n_threads))
