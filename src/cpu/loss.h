// The interface of losses: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_LOSS_H
#define SPCY_CPU_LOSS_H

#include "cpu/team.h"
#include "cpu/tile.h"

enum { SPCY_LOSS_ROWS = 256 };  // that have a sum of their own, so that threads change no bit

// Returns the sum of the cross entropies of rows (rows, classes) times their shares, and writes the gradient.
typedef double (*spcy_cross_entropy_kernel)(const void* logits, const int32_t* target, const double* share,
                                            int64_t rows, int64_t classes, void* gradient);

extern "C" {
extern const spcy_cross_entropy_kernel spcy_loss_kernels_baseline[SPCY_NUMBERS];
extern const spcy_cross_entropy_kernel spcy_loss_kernels_avx2[SPCY_NUMBERS];
extern const spcy_cross_entropy_kernel spcy_loss_kernels_avx512[SPCY_NUMBERS];
extern const spcy_cross_entropy_kernel spcy_loss_kernels_avx512_bf16[SPCY_NUMBERS];
}

static inline spcy_cross_entropy_kernel spcy_cross_entropy_of(int level, int number) {
    switch (level) {
#ifdef SPCY_HAVE_AVX512_BF16
        case SPCY_AVX512_BF16: return spcy_loss_kernels_avx512_bf16[number];
#endif
#ifdef SPCY_HAVE_AVX512
        case SPCY_AVX512: return spcy_loss_kernels_avx512[number];
#endif
#ifdef SPCY_HAVE_AVX2
        case SPCY_AVX2: return spcy_loss_kernels_avx2[number];
#endif
        default: return spcy_loss_kernels_baseline[number];
    }
}

// Numbers are of `size` bytes; `losses` has one for each block of rows.
static inline void spcy_cross_entropy(spcy_cross_entropy_kernel kernel, const void* logits, const int32_t* target,
                                      const double* share, int64_t rows, int64_t classes, int64_t size,
                                      double* losses, void* gradient, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_LOSS_ROWS, [=](int64_t begin, int64_t end, int) {
        const int64_t at = begin * classes * size;
        losses[begin / SPCY_LOSS_ROWS] =
            kernel(static_cast<const char*>(logits) + at, target + begin, share + begin, end - begin, classes,
                   static_cast<char*>(gradient) + at);
    });
}

#endif
