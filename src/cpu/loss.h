// The interface of losses: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_LOSS_H
#define SPCY_CPU_LOSS_H

#include "cpu/team.h"
#include "cpu/tile.h"

enum { SPCY_LOSS_ROWS = 256 };  // that have a sum of their own, so that threads change no bit

typedef struct {
    // Returns the sum of the cross entropies of rows (rows, classes) times their shares; writes the gradient.
    double (*cross_entropy)(const void* logits, const int32_t* target, const double* share, int64_t rows,
                            int64_t classes, void* gradient);
} spcy_loss_kernels;

SPCY_LEVEL_TABLES(spcy_loss_kernels)

// Numbers are of `size` bytes; `losses` has one for each block of rows.
static inline void spcy_cross_entropy(const spcy_loss_kernels* kernels, const void* logits, const int32_t* target,
                                      const double* share, int64_t rows, int64_t classes, int64_t size,
                                      double* losses, void* gradient, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_LOSS_ROWS, [=](int64_t begin, int64_t end, int) {
        const int64_t at = begin * classes * size;
        losses[begin / SPCY_LOSS_ROWS] =
            kernels->cross_entropy(static_cast<const char*>(logits) + at, target + begin, share + begin, end - begin,
                                   classes, static_cast<char*>(gradient) + at);
    });
}

#endif
