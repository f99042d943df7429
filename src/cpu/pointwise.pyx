"""Functions of each feature by itself, and their gradients."""

from libc.stdint cimport int64_t

from spcy._cpu.simd cimport kind_of, level, number, spcy_activation
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/pointwise.h" nogil:
    ctypedef struct spcy_pointwise_kernels:
        pass
    const spcy_pointwise_kernels* spcy_pointwise_kernels_of(int level, int number) noexcept
    void spcy_activate(
        const spcy_pointwise_kernels* kernels, spcy_activation activation, const void* x, int64_t count,
        int64_t size, void* y, spcy_team team,
    ) noexcept
    void spcy_activation_gradient(
        const spcy_pointwise_kernels* kernels, spcy_activation activation, const void* x, const void* dy,
        int64_t count, int64_t size, void* dx, spcy_team team,
    ) noexcept


cdef const spcy_pointwise_kernels* _kernels(int kind) noexcept nogil:
    return spcy_pointwise_kernels_of(level(), kind)


def activate(
    const number[::1] x,  # IN
    int kind,  # 1 ReLU, 2 leaky ReLU, 3 GELU, 4 GELU by a tanh, 5 SiLU
    double slope,  # of a leaky ReLU
    number[::1] out,  # OUT, may be x
    int n_threads,
):
    """Write the function of each number."""
    cdef spcy_activation activation
    activation.activation, activation.slope = kind, slope
    with nogil:
        spcy_activate(
            _kernels(kind_of(&x[0])), activation, &x[0], x.shape[0], sizeof(number), &out[0], team(n_threads)
        )


def activation_gradient(
    const number[::1] x,  # IN, what went in; of a ReLU also what came out
    const number[::1] dy,  # IN
    int kind,
    double slope,
    number[::1] out,  # OUT
    int n_threads,
):
    """Write the gradient times the function's slope at each number."""
    cdef spcy_activation activation
    activation.activation, activation.slope = kind, slope
    with nogil:
        spcy_activation_gradient(
            _kernels(kind_of(&x[0])), activation, &x[0], &dy[0], x.shape[0], sizeof(number), &out[0],
            team(n_threads),
        )
