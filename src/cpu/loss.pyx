"""Losses with their gradients."""

from libc.stdint cimport int32_t, int64_t

from spcy._cpu.simd cimport kind_of, level, number
from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/loss.h" nogil:
    ctypedef struct spcy_loss_kernels:
        pass
    const spcy_loss_kernels* spcy_loss_kernels_of(int level, int number) noexcept
    void spcy_cross_entropy(
        const spcy_loss_kernels* kernels, const void* logits, const int32_t* target, const double* share,
        int64_t rows, int64_t classes, int64_t size, double* losses, void* gradient, spcy_team team,
    ) noexcept
    cdef enum:
        SPCY_LOSS_ROWS


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
    cdef const spcy_loss_kernels* kernels = spcy_loss_kernels_of(level(), kind_of(&logits[0, 0]))
    with nogil:
        spcy_cross_entropy(
            kernels, &logits[0, 0], &target[0], &share[0], logits.shape[0], logits.shape[1], sizeof(number),
            &losses[0], &out[0, 0], team(n_threads),
        )
