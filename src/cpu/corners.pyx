"""The sites at the corners of the cells between sites' centres that hold points, and linear weights."""

from cython cimport floating
from libc.stdint cimport int32_t, int64_t, uint64_t

from spcy._cpu.simd cimport kind_of, level, number
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/corners.h" nogil:
    void spcy_find_corners(
        int axes, const uint64_t* queries, int64_t count, const uint64_t* keys, int64_t n,
        const int64_t* shift, bint back, const int32_t* order, int32_t* rows, spcy_team team,
    ) noexcept
    ctypedef struct spcy_interpolation:
        const void* features
        const int32_t* rows
        const int32_t* order
        const int64_t* starts
        const double* fractions
        double* totals
        void* out
        int64_t cells
        int64_t channels
        int axes
        bint renormalize
    ctypedef struct spcy_corners_kernels:
        pass
    const spcy_corners_kernels* spcy_corners_kernels_of(int level, int number) noexcept
    void spcy_interpolate(
        const spcy_corners_kernels* kernels, const spcy_interpolation* plan, spcy_team team
    ) noexcept
    void spcy_interpolate_gradient[T](
        int axes, const T* gradient, int64_t channels, const int32_t* order, const int64_t* starts,
        const double* fractions, const double* totals, const int32_t* around, const int32_t* site_order,
        int64_t sites, T* out, spcy_team team,
    ) noexcept


def rows(
    const uint64_t[::1] queries,  # IN, (Q,), ascending
    const uint64_t[::1] keys,  # IN, (N + 1,), ascending, and a sentinel
    const int64_t[::1] shift,  # IN, layout
    bint back,
    const int32_t[::1] order,  # IN or None, row of each rank
    int32_t[:, ::1] rows,  # OUT, (Q, 2**D), -1 where none is
    int n_threads,
):
    """Write the row of each corner of each cell; or `back`, the cells around each site, last corner first."""
    cdef const int32_t* ranked = &order[0] if order is not None and order.shape[0] else NULL
    with nogil:
        spcy_find_corners(
            <int>shift.shape[0] - 1, &queries[0], rows.shape[0], &keys[0], keys.shape[0] - 1, &shift[0], back,
            ranked, &rows[0, 0], team(n_threads),
        )


def interpolate(
    const number[:, ::1] features,  # IN, (N, C)
    const int32_t[:, ::1] rows,  # IN, (U, 2**D), of the corners of each cell, -1 where none is
    const int32_t[::1] order,  # IN, (M,), points by cells
    const int64_t[::1] starts,  # IN, (U + 1,), where those of each cell begin
    const double[:, ::1] fractions,  # IN, (M, D), where in its cell each point lies
    bint renormalize,
    double[::1] totals,  # OUT or None, (M,), the sum of the weights that are there, points by cells
    number[:, ::1] out,  # OUT, (M, C)
    int n_threads,
):
    """Write the weighted mean of the corners that are there, or their weighted sum; 0 where none is."""
    cdef spcy_interpolation plan
    plan.features, plan.out = &features[0, 0], &out[0, 0]
    plan.rows, plan.order, plan.starts = &rows[0, 0], &order[0], &starts[0]
    plan.fractions = &fractions[0, 0]
    plan.totals = &totals[0] if totals is not None else NULL
    plan.cells, plan.channels, plan.axes = rows.shape[0], out.shape[1], <int>fractions.shape[1]
    plan.renormalize = renormalize
    cdef const spcy_corners_kernels* kernels = spcy_corners_kernels_of(level(), kind_of(&features[0, 0]))
    with nogil:
        spcy_interpolate(kernels, &plan, team(n_threads))


def interpolate_gradient(
    const floating[:, ::1] gradient,  # IN, (M, C)
    const int32_t[::1] order,  # IN, as `interpolate` takes them
    const int64_t[::1] starts,  # IN
    const double[:, ::1] fractions,  # IN
    const double[::1] totals,  # IN, or None for sums
    const int32_t[:, ::1] around,  # IN, (N, 2**D), the cells around each rank, last corner first
    const int32_t[::1] site_order,  # IN or None, row of each rank
    floating[:, ::1] out,  # OUT, (N, C)
    int n_threads,
):
    """Write the gradient of the features, summed in double precision: by corners, then by points."""
    cdef const int32_t* ranked = &site_order[0] if site_order is not None and site_order.shape[0] else NULL
    cdef const double* sums = &totals[0] if totals is not None else NULL
    with nogil:
        spcy_interpolate_gradient(
            <int>fractions.shape[1], &gradient[0, 0], out.shape[1], &order[0], &starts[0], &fractions[0, 0],
            sums, &around[0, 0], ranked, out.shape[0], &out[0, 0], team(n_threads),
        )
