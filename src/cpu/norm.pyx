"""Norms over all rows, by columns, and of each row: moments, the norm itself, its gradient."""

from libc.stdint cimport int64_t

from spcy._cpu.simd cimport kind_of, level, number, spcy_activation
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/norm.h" nogil:
    ctypedef struct spcy_pointwise_kernels:
        pass
    const spcy_pointwise_kernels* spcy_pointwise_kernels_of(int level, int number) noexcept
    ctypedef struct spcy_norm_kernels:
        pass
    ctypedef struct spcy_matrix:
        int64_t rows
        int64_t channels
        int64_t size
    ctypedef struct spcy_norm:
        const void* centre
        const void* scale
        const void* shift
        const spcy_pointwise_kernels* pointwise
        spcy_activation activation
    const spcy_norm_kernels* spcy_norm_kernels_of(int level, int number) noexcept
    void spcy_column_moments(
        const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, double* sums, spcy_team team
    ) noexcept
    void spcy_apply_norm(
        const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, const spcy_norm* norm, void* y,
        spcy_team team,
    ) noexcept
    void spcy_norm_gradient_sums(
        const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, const void* dy, const spcy_norm* norm,
        void* before, double* sums, spcy_team team,
    ) noexcept
    void spcy_norm_gradient(
        const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, const void* dy, const void* centre,
        const void* mean, const void* slope, const void* scale, void* dx, spcy_team team,
    ) noexcept
    void spcy_layer_norm(
        const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, const void* weight, const void* bias,
        double eps, void* moments, void* y, spcy_team team,
    ) noexcept
    void spcy_layer_norm_gradient(
        const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, const void* dy, const void* weight,
        const void* moments, void* dx, double* sums, spcy_team team,
    ) noexcept
    cdef enum:
        SPCY_NORM_ROWS

ctypedef fused wide:
    float
    double

BLOCK = SPCY_NORM_ROWS  # rows that have sums of their own


cdef const spcy_norm_kernels* _kernels(int kind) noexcept nogil:
    return spcy_norm_kernels_of(level(), kind)


cdef spcy_matrix _matrix(int64_t rows, int64_t channels, int64_t size) noexcept nogil:
    cdef spcy_matrix m
    m.rows, m.channels, m.size = rows, channels, size
    return m


cdef spcy_norm _norm(
    int place, const void* centre, const void* scale, const void* shift, int kind, double leak
) noexcept nogil:
    cdef spcy_norm norm
    norm.centre, norm.scale, norm.shift = centre, scale, shift
    norm.pointwise = spcy_pointwise_kernels_of(level(), place)
    norm.activation.activation, norm.activation.slope = kind, leak
    return norm


def moments(
    const number[:, ::1] x,  # IN, (N, C)
    double[:, :, ::1] sums,  # OUT, (blocks, 2, C)
    int n_threads,
):
    """Write, for each block of rows, each column's mean and the sum of the squares of what lies beyond."""
    with nogil:
        spcy_column_moments(
            _kernels(kind_of(&x[0, 0])), _matrix(x.shape[0], x.shape[1], sizeof(number)), &x[0, 0],
            &sums[0, 0, 0], team(n_threads),
        )


def apply(
    const number[:, ::1] x,  # IN, (N, C)
    const wide[::1] centre,  # IN, (C,)
    const wide[::1] scale,  # IN
    const wide[::1] shift,  # IN
    int kind,  # of the activation after it, see pointwise.pyx; 0 is none
    double leak,  # the slope of a leaky ReLU
    number[:, ::1] out,  # OUT, (N, C)
    int n_threads,
):
    """Write the activation of ``(x - centre) * scale + shift``."""
    cdef int own = kind_of(&x[0, 0])
    cdef spcy_norm norm = _norm(own, &centre[0], &scale[0], &shift[0], kind, leak)
    with nogil:
        spcy_apply_norm(
            _kernels(own), _matrix(x.shape[0], x.shape[1], sizeof(number)), &x[0, 0], &norm, &out[0, 0],
            team(n_threads),
        )


def gradient_sums(
    const number[:, ::1] x,  # IN, (N, C)
    const number[:, ::1] dy,  # IN, (N, C)
    const wide[::1] centre,  # IN, (C,)
    const wide[::1] scale,  # IN
    const wide[::1] shift,  # IN
    int kind,
    double leak,
    number[:, ::1] before,  # OUT, (N, C), g; None without an activation
    double[:, :, ::1] sums,  # OUT, (blocks, 2, C)
    int n_threads,
):
    """Write each block's sums, by columns, of g and of ``g * (x - centre)``, g dy before the activation."""
    cdef int own = kind_of(&x[0, 0])
    cdef spcy_norm norm = _norm(own, &centre[0], &scale[0], &shift[0], kind, leak)
    cdef number* room = NULL
    if before is not None:
        room = &before[0, 0]
    with nogil:
        spcy_norm_gradient_sums(
            _kernels(own), _matrix(x.shape[0], x.shape[1], sizeof(number)), &x[0, 0], &dy[0, 0], &norm, room,
            &sums[0, 0, 0], team(n_threads),
        )


def gradient(
    const number[:, ::1] x,  # IN, (N, C)
    const number[:, ::1] dy,  # IN, (N, C)
    const wide[::1] centre,  # IN, (C,)
    const wide[::1] mean,  # IN
    const wide[::1] slope,  # IN
    const wide[::1] scale,  # IN
    number[:, ::1] out,  # OUT, (N, C)
    int n_threads,
):
    """Write ``(dy - mean - (x - centre) * slope) * scale``."""
    with nogil:
        spcy_norm_gradient(
            _kernels(kind_of(&x[0, 0])), _matrix(x.shape[0], x.shape[1], sizeof(number)), &x[0, 0], &dy[0, 0],
            &centre[0], &mean[0], &slope[0], &scale[0], &out[0, 0], team(n_threads),
        )


def layer(
    const number[:, ::1] x,  # IN, (N, C)
    const wide[::1] weight,  # IN, (C,)
    const wide[::1] bias,  # IN
    double eps,
    wide[:, ::1] moments,  # OUT, (N, 2), each row's mean and inverse standard deviation
    number[:, ::1] out,  # OUT, (N, C)
    int n_threads,
):
    """Write ``(x - mean) * inverse * weight + bias``, by row."""
    with nogil:
        spcy_layer_norm(
            _kernels(kind_of(&x[0, 0])), _matrix(x.shape[0], x.shape[1], sizeof(number)), &x[0, 0],
            &weight[0], &bias[0], eps, &moments[0, 0], &out[0, 0], team(n_threads),
        )


def layer_gradient(
    const number[:, ::1] x,  # IN, (N, C)
    const number[:, ::1] dy,  # IN, (N, C)
    const wide[::1] weight,  # IN, (C,)
    const wide[:, ::1] moments,  # IN, (N, 2)
    number[:, ::1] out,  # OUT, (N, C)
    double[:, :, ::1] sums,  # OUT, (blocks, 2, C)
    int n_threads,
):
    """Write the gradient; and, for each block of rows, the columns' sums of dy and of dy times the normal."""
    with nogil:
        spcy_layer_norm_gradient(
            _kernels(kind_of(&x[0, 0])), _matrix(x.shape[0], x.shape[1], sizeof(number)), &x[0, 0], &dy[0, 0],
            &weight[0], &moments[0, 0], &out[0, 0], &sums[0, 0, 0], team(n_threads),
        )
