// The interface of norms, over all rows or of each row: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_NORM_H
#define SPCY_CPU_NORM_H

#include <string.h>

#include "cpu/pointwise.h"
#include "cpu/stream.h"
#include "cpu/team.h"
#include "cpu/tile.h"

enum {
    SPCY_NORM_ROWS = 256,    // that have sums of their own, so that threads change no bit
    SPCY_NORM_PIECE = 8192,  // bytes
};

// Rows of `channels` numbers, float, double, bfloat16 or float16; what is kept for each channel is of the type that they
// are computed in, sums are double.
typedef struct {
    // The mean of each column, and the sum of the squares of what lies beyond: (2, channels).
    void (*moments)(const void* x, int64_t rows, int64_t channels, double* sums);
    // y = (x - centre) * scale + shift.
    void (*apply)(const void* x, int64_t rows, int64_t channels, const void* centre, const void* scale,
                  const void* shift, void* y);
    // Add dy and dy * (x - centre) to the sums: (2, channels).
    void (*gradient_sums)(const void* x, const void* dy, int64_t rows, int64_t channels, const void* centre,
                          double* sums);
    // dx = (dy - mean - (x - centre) * slope) * scale.
    void (*gradient)(const void* x, const void* dy, int64_t rows, int64_t channels, const void* centre,
                     const void* mean, const void* slope, const void* scale, void* dx);
    // y = (x - mean) * inverse * weight + bias, with each row's own mean and inverse standard deviation, which
    // are written too: (rows, 2).
    void (*layer)(const void* x, int64_t rows, int64_t channels, const void* weight, const void* bias, double eps,
                  void* moments, void* y);
    // dx = (g - mean of g - normal * mean of g * normal) * inverse for g = dy * weight, by row; and add the columns'
    // dy and dy * normal to the sums: (2, channels).
    void (*layer_gradient)(const void* x, const void* dy, int64_t rows, int64_t channels, const void* weight,
                           const void* moments, void* dx, double* sums);
} spcy_norm_kernels;

SPCY_LEVEL_TABLES(spcy_norm_kernels)

// A matrix (rows, channels) of numbers of `size` bytes.
typedef struct {
    int64_t rows, channels, size;
} spcy_matrix;

static inline const char* spcy_row(const void* x, spcy_matrix m, int64_t row) {
    return static_cast<const char*>(x) + row * m.channels * m.size;
}

// Call use(begin, end) for the rows that stay in the nearest cache while each vector of columns goes down them.
template <typename Use>
static inline void spcy_each_piece(spcy_matrix m, int64_t begin, int64_t end, Use use) {
    const int64_t fit = SPCY_NORM_PIECE / (m.channels * m.size), rows = fit < 8 ? 8 : fit;
    for (int64_t row = begin; row < end; row += rows) use(row, row + rows < end ? row + rows : end);
}

static inline int64_t spcy_bytes(spcy_matrix m) { return m.rows * m.channels * m.size; }

// Whether an activation, or none, takes less time than its memory: the others gain nothing from streams.
static inline bool spcy_waits_for_memory(spcy_activation activation) {
    return activation.activation <= SPCY_LEAKY_RELU;
}

// Call make(begin, end, to) for all rows of an output, a piece at a time, as spcy_make_rows does.
template <typename Make>
static inline void spcy_make_pieces(spcy_matrix m, void* out, bool gains, spcy_team team, const Make& make) {
    const bool streams = gains && spcy_streams(spcy_bytes(m));
    spcy_parallel_rows(team, m.rows, SPCY_NORM_ROWS, [=](int64_t first, int64_t last, int) {
        spcy_each_piece(m, first, last, [=](int64_t begin, int64_t end) {
            spcy_make_rows(streams, static_cast<char*>(out), m.channels * m.size, begin, end, make);
        });
    });
}

static inline void spcy_column_moments(const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, double* sums,
                                       spcy_team team) {
    spcy_parallel_rows(team, m.rows, SPCY_NORM_ROWS, [=](int64_t begin, int64_t end, int) {
        kernels->moments(spcy_row(x, m, begin), end - begin, m.channels,
                         sums + begin / SPCY_NORM_ROWS * 2 * m.channels);
    });
}

// What is taken to each column, ``(x - centre) * scale + shift``, and the function of each number after that, or none:
// it follows while a block of rows is in the cache.
typedef struct {
    const void *centre, *scale, *shift;
    const spcy_pointwise_kernels* pointwise;
    spcy_activation activation;  // 0 is none
} spcy_norm;

static inline void spcy_apply_norm(const spcy_norm_kernels* kernels, spcy_matrix m, const void* x,
                                   const spcy_norm* norm, void* y, spcy_team team) {
    const bool gains = y != x && spcy_waits_for_memory(norm->activation);
    spcy_make_pieces(m, y, gains, team, [=](int64_t begin, int64_t end, char* to) {
        kernels->apply(spcy_row(x, m, begin), end - begin, m.channels, norm->centre, norm->scale, norm->shift, to);
        if (norm->activation.activation)
            norm->pointwise->apply(&norm->activation, to, (end - begin) * m.channels, to);
    });
}

// The gradient before the activation is written too, if there is one: its slope is worked out once.
static inline void spcy_norm_gradient_sums(const spcy_norm_kernels* kernels, spcy_matrix m, const void* x,
                                           const void* dy, const spcy_norm* norm, void* before, double* sums,
                                           spcy_team team) {
    const bool streams = before && spcy_waits_for_memory(norm->activation) && spcy_streams(spcy_bytes(m));
    spcy_parallel_rows(team, m.rows, SPCY_NORM_ROWS, [=](int64_t first, int64_t last, int) {
        double* own = sums + first / SPCY_NORM_ROWS * 2 * m.channels;
        memset(own, 0, 2 * m.channels * sizeof(double));
        const auto add = [=](int64_t begin, int64_t end, const char* gradient) {
            kernels->gradient_sums(spcy_row(x, m, begin), gradient, end - begin, m.channels, norm->centre, own);
        };
        spcy_each_piece(m, first, last, [=](int64_t begin, int64_t end) {
            if (!norm->activation.activation) return add(begin, end, spcy_row(dy, m, begin));
            spcy_make_rows(streams, static_cast<char*>(before), m.channels * m.size, begin, end,
                           [=](int64_t begin, int64_t end, char* made) {
                kernels->apply(spcy_row(x, m, begin), end - begin, m.channels, norm->centre, norm->scale, norm->shift,
                               made);
                norm->pointwise->gradient(&norm->activation, made, spcy_row(dy, m, begin),
                                          (end - begin) * m.channels, made);
                add(begin, end, made);
            });
        });
    });
}

static inline void spcy_norm_gradient(const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, const void* dy,
                                      const void* centre, const void* mean, const void* slope, const void* scale,
                                      void* dx, spcy_team team) {
    spcy_make_pieces(m, dx, dx != x && dx != dy, team, [=](int64_t begin, int64_t end, char* to) {
        kernels->gradient(spcy_row(x, m, begin), spcy_row(dy, m, begin), end - begin, m.channels, centre, mean, slope,
                          scale, to);
    });
}

// A row's moments are two numbers of the type that is computed in: 16 bits become 32.
static inline int64_t spcy_moments_at(spcy_matrix m, int64_t row) {
    return row * 2 * (m.size < 4 ? 4 : m.size);
}

static inline void spcy_layer_norm(const spcy_norm_kernels* kernels, spcy_matrix m, const void* x, const void* weight,
                                   const void* bias, double eps, void* moments, void* y, spcy_team team) {
    spcy_parallel_rows(team, m.rows, SPCY_NORM_ROWS, [=](int64_t begin, int64_t end, int) {
        kernels->layer(spcy_row(x, m, begin), end - begin, m.channels, weight, bias, eps,
                       static_cast<char*>(moments) + spcy_moments_at(m, begin),
                       const_cast<char*>(spcy_row(y, m, begin)));
    });
}

static inline void spcy_layer_norm_gradient(const spcy_norm_kernels* kernels, spcy_matrix m, const void* x,
                                            const void* dy, const void* weight, const void* moments, void* dx,
                                            double* sums, spcy_team team) {
    spcy_parallel_rows(team, m.rows, SPCY_NORM_ROWS, [=](int64_t first, int64_t last, int) {
        double* own = sums + first / SPCY_NORM_ROWS * 2 * m.channels;
        memset(own, 0, 2 * m.channels * sizeof(double));
        spcy_each_piece(m, first, last, [=](int64_t begin, int64_t end) {
            kernels->layer_gradient(spcy_row(x, m, begin), spcy_row(dy, m, begin), end - begin, m.channels, weight,
                                    static_cast<const char*>(moments) + spcy_moments_at(m, begin),
                                    const_cast<char*>(spcy_row(dx, m, begin)), own);
        });
    });
}

#endif
