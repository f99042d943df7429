"""Losses with their gradients."""

from libc.stdint cimport int32_t, int64_t, uint16_t

from spcy._cpu.simd cimport level
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/loss.h" nogil:
    ctypedef double (*spcy_cross_entropy_kernel)(
        const void*, const int32_t*, const double*, int64_t, int64_t, void*
    ) noexcept nogil
    spcy_cross_entropy_kernel spcy_cross_entropy_of(int level, int number) noexcept
    void spcy_cross_entropy(
        spcy_cross_entropy_kernel kernel, const void* logits, const int32_t* target, const double* share,
        int64_t rows, int64_t classes, int64_t size, double* losses, void* gradient, spcy_team team,
    ) noexcept
    cdef enum:
        SPCY_FLOAT
        SPCY_DOUBLE
        SPCY_BFLOAT16
        SPCY_LOSS_ROWS

ctypedef fused number:
    float
    double
    uint16_t  # the bits of a bfloat16

BLOCK = SPCY_LOSS_ROWS  # rows that have a sum of their own


def cross_entropy(
    const number[:, ::1] logits,  # IN, (N, C)
    const int32_t[::1] target,  # IN, (N,), a class for every row
    const double[::1] share,  # IN, (N,), what a row's entropy is multiplied by
    double[::1] losses,  # OUT, (blocks,)
    number[:, ::1] out,  # OUT, (N, C), the gradient
    int n_threads,
):
    """Write the sums of the rows' cross entropies, by blocks, and their gradient."""
    cdef spcy_cross_entropy_kernel kernel = spcy_cross_entropy_of(
        level(), SPCY_DOUBLE if sizeof(number) == 8 else SPCY_FLOAT if sizeof(number) == 4 else SPCY_BFLOAT16
    )
    with nogil:
        spcy_cross_entropy(
            kernel, &logits[0, 0], &target[0], &share[0], logits.shape[0], logits.shape[1], sizeof(number),
            &losses[0], &out[0, 0], team(n_threads),
        )
