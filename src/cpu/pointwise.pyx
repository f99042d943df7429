"""Functions of each feature by itself, and their gradients."""

from cython cimport floating
from libc.stdint cimport int16_t, int64_t, uint16_t

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
    void spcy_combine(
        const spcy_pointwise_kernels* kernels, int operation, const void* x, const void* y, double number,
        int64_t count, int64_t size, void* out, spcy_team team,
    ) noexcept
    void spcy_widen(
        const spcy_pointwise_kernels* kernels, const uint16_t* x, int64_t count, float* y, spcy_team team,
    ) noexcept
    void spcy_narrow[T](
        const spcy_pointwise_kernels* kernels, const T* x, int64_t count, uint16_t* y, spcy_team team,
    ) noexcept

ctypedef fused half:
    uint16_t  # the bits of a bfloat16
    int16_t  # the bits of a float16


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


def combine(
    const number[::1] x,  # IN
    const number[::1] y,  # IN or None
    int operation,  # 0 adds, 1 multiplies
    double other,  # what each is combined with, if y is None
    number[::1] out,  # OUT, may be x or y
    int n_threads,
):
    """Write the sum or the product of each two numbers, or of each and a number."""
    cdef const number* second = &y[0] if y is not None else NULL
    with nogil:
        spcy_combine(
            _kernels(kind_of(&x[0])), operation, &x[0], second, other, x.shape[0], sizeof(number), &out[0],
            team(n_threads),
        )


def widen(
    const half[::1] x,  # IN
    float[::1] out,  # OUT
    int n_threads,
):
    """Write numbers of 16 bits as float32."""
    with nogil:
        spcy_widen(_kernels(kind_of(&x[0])), <const uint16_t*>&x[0], x.shape[0], &out[0], team(n_threads))


def narrow(
    const floating[::1] x,  # IN
    half[::1] out,  # OUT
    int n_threads,
):
    """Write numbers in 16 bits, rounded once, to nearest, ties to even."""
    with nogil:
        spcy_narrow(_kernels(kind_of(&out[0])), &x[0], x.shape[0], <uint16_t*>&out[0], team(n_threads))
