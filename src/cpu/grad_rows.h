// Gradients of what is not a convolution: operations on rows, shared among threads.
#ifndef SPCY_CPU_GRAD_ROWS_H
#define SPCY_CPU_GRAD_ROWS_H

#include <stdint.h>

#include "cpu/pairs.h"

// Whether x is the maximum y: NaN, if that is. Without branches, so that vectors can be.
template <typename T>
static inline bool spcy_is_maximum(T x, T y) {
    return (x == y) | ((x != x) & (y != y));
}

// Note `row` for the channels in which x is the maximum y, unless one has been noted.
template <typename T>
static inline void spcy_note_maxima(const T* __restrict x, const T* __restrict y, int64_t channels, int32_t row,
                                    int32_t* __restrict noted) {
    for (int64_t c = 0; c < channels; ++c) {
        noted[c] = (spcy_is_maximum(x[c], y[c]) & (noted[c] < 0)) ? row : noted[c];
    }
}

// y = y + x in the channels for which `row` is noted.
template <typename T>
static inline void spcy_add_noted(const T* __restrict x, const int32_t* __restrict noted, int64_t channels,
                                  int32_t row, T* __restrict y) {
    for (int64_t c = 0; c < channels; ++c) {
        const T value = x[c];  // read in any case, so that vectors can be
        y[c] += noted[c] == row ? value : T(0);
    }
}

// Move what is left of the gradient to the channels in which x is the maximum y.
template <typename T>
static inline void spcy_move_gradient(const T* __restrict x, const T* __restrict y, int64_t channels,
                                      T* __restrict left, T* __restrict dx) {
    for (int64_t c = 0; c < channels; ++c) {
        const bool maximum = spcy_is_maximum(x[c], y[c]);
        const T rest = left[c];
        dx[c] = maximum ? rest : T(0);
        left[c] = maximum ? T(0) : rest;
    }
}

enum { SPCY_GRAD_ROWS = 64 };  // that a thread takes at a time

template <typename T>
static inline void spcy_find_maxima(const T* features, const T* maxima, spcy_pairs pairs, int64_t channels,
                                    int32_t* found, spcy_team team) {
    spcy_parallel_pairs(team, pairs, [=](int64_t in, int64_t out) {
        spcy_note_maxima(features + in * channels, maxima + out * channels, channels, (int32_t)in,
                         found + out * channels);
    });
}

// The pairs are cut into tiles of input ranks.
template <typename T>
static inline void spcy_return_maxima(const T* gradient, const int32_t* found, spcy_pairs pairs, int64_t channels,
                                      T* dx, spcy_team team) {
    spcy_parallel_pairs(team, pairs, [=](int64_t in, int64_t out) {
        spcy_add_noted(gradient + out * channels, found + out * channels, channels, (int32_t)in, dx + in * channels);
    });
}

// What the two above do where no input row has two pairs: the first pair of a maximum takes all that is left.
template <typename T>
static inline void spcy_move_maxima(const T* features, const T* maxima, spcy_pairs pairs, int64_t channels, T* left,
                                    T* dx, spcy_team team) {
    spcy_parallel_pairs(team, pairs, [=](int64_t in, int64_t out) {
        spcy_move_gradient(features + in * channels, maxima + out * channels, channels, left + out * channels,
                           dx + in * channels);
    });
}

template <typename T>
static inline void spcy_find_segment_maxima(const T* features, const T* maxima, const int32_t* order,
                                            const int64_t* segment_ptr, int64_t segments, int64_t channels,
                                            int32_t* found, spcy_team team) {
    spcy_parallel_rows(team, segments, SPCY_GRAD_ROWS, [=](int64_t begin, int64_t end, int) {
        for (int64_t s = begin; s < end; ++s)
            for (int64_t i = segment_ptr[s]; i < segment_ptr[s + 1]; ++i)
                spcy_note_maxima(features + order[i] * channels, maxima + s * channels, channels, order[i],
                                 found + s * channels);
    });
}

#endif
