"""The sites at the corners of the cells between sites' centres that hold points, and linear weights."""

from cython cimport floating
from libc.stdint cimport int32_t, int64_t, uint64_t

from spcy._cpu.simd cimport kind_of, level, number
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/corners.h" nogil:
    void spcy_find_corners(
        int axes, const uint64_t* queries, int64_t count, const uint64_t* keys, int64_t n,
        const int64_t* shift, int32_t* ranks, spcy_team team,
    ) noexcept
    ctypedef struct spcy_corners:
        const int32_t* ranks
        const int32_t* site_order
        const int32_t* order
        const int64_t* starts
        const double* fractions
        int64_t cells
        int axes
        bint renormalize
    ctypedef struct spcy_interpolation:
        spcy_corners corners
        const void* features
        void* out
        int64_t channels
    ctypedef struct spcy_interpolation_gradient:
        spcy_corners corners
        const void* gradient
        void* out
        int64_t sites
        int64_t channels
        int64_t row_bytes
    ctypedef struct spcy_corners_kernels:
        pass
    const spcy_corners_kernels* spcy_corners_kernels_of(int level, int number) noexcept
    void spcy_interpolate(
        const spcy_corners_kernels* kernels, const spcy_interpolation* plan, spcy_team team
    ) noexcept
    void spcy_interpolate_gradient(
        const spcy_corners_kernels* kernels, const spcy_interpolation_gradient* plan, spcy_team team
    ) noexcept


def ranks(
    const uint64_t[::1] queries,  # IN, (U,), ascending
    const uint64_t[::1] keys,  # IN, (N + 1,), ascending, and a sentinel
    const int64_t[::1] shift,  # IN, layout
    int32_t[:, ::1] ranks,  # OUT, (U, 2**D), -1 where none is
    int n_threads,
):
    """Write the rank of each corner of each cell."""
    with nogil:
        spcy_find_corners(
            <int>shift.shape[0] - 1, &queries[0], ranks.shape[0], &keys[0], keys.shape[0] - 1, &shift[0],
            &ranks[0, 0], team(n_threads),
        )


cdef spcy_corners corners_of(
    const int32_t[:, ::1] ranks, const int32_t[::1] site_order, const int32_t[::1] order,
    const int64_t[::1] starts, const double[:, ::1] fractions, bint renormalize,
) noexcept:
    cdef spcy_corners corners
    corners.ranks, corners.order, corners.starts = &ranks[0, 0], &order[0], &starts[0]
    corners.site_order = &site_order[0] if site_order is not None and site_order.shape[0] else NULL
    corners.fractions, corners.renormalize = &fractions[0, 0], renormalize
    corners.cells, corners.axes = ranks.shape[0], <int>fractions.shape[1]
    return corners


def interpolate(
    const number[:, ::1] features,  # IN, (N, C)
    const int32_t[:, ::1] ranks,  # IN, (U, 2**D), of the corners of each cell, -1 where none is
    const int32_t[::1] site_order,  # IN or None, (N,), row of each rank
    const int32_t[::1] order,  # IN, (M,), points by cells
    const int64_t[::1] starts,  # IN, (U + 1,), where those of each cell begin
    const double[:, ::1] fractions,  # IN, (M, D), where in its cell each point lies
    bint renormalize,
    number[:, ::1] out,  # OUT, (M, C)
    int n_threads,
):
    """Write the weighted mean of the corners that are there, or their weighted sum; 0 where none is."""
    cdef spcy_interpolation plan
    plan.corners = corners_of(ranks, site_order, order, starts, fractions, renormalize)
    plan.features, plan.out, plan.channels = &features[0, 0], &out[0, 0], out.shape[1]
    cdef const spcy_corners_kernels* kernels = spcy_corners_kernels_of(level(), kind_of(&features[0, 0]))
    with nogil:
        spcy_interpolate(kernels, &plan, team(n_threads))


def interpolate_gradient(
    const number[:, ::1] gradient,  # IN, (M, C)
    const int32_t[:, ::1] ranks,  # IN, as `interpolate` takes them
    const int32_t[::1] site_order,  # IN or None
    const int32_t[::1] order,  # IN
    const int64_t[::1] starts,  # IN
    const double[:, ::1] fractions,  # IN
    bint renormalize,
    floating[:, ::1] out,  # OUT, (N, C), of the type that it is summed in
    int n_threads,
):
    """Write the gradient of the features, summed by cells, and of a cell by some points at a time."""
    cdef spcy_interpolation_gradient plan
    plan.corners = corners_of(ranks, site_order, order, starts, fractions, renormalize)
    plan.gradient, plan.out, plan.sites = &gradient[0, 0], &out[0, 0], out.shape[0]
    plan.channels, plan.row_bytes = out.shape[1], out.shape[1] * sizeof(floating)
    cdef const spcy_corners_kernels* kernels = spcy_corners_kernels_of(level(), kind_of(&gradient[0, 0]))
    with nogil:
        spcy_interpolate_gradient(kernels, &plan, team(n_threads))
