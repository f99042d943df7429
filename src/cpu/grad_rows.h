// Row operations of gradients.
#ifndef SPCY_CPU_GRAD_ROWS_H
#define SPCY_CPU_GRAD_ROWS_H

#include <stdint.h>

// dx = dy where a ReLU passed, so its output y is not 0; NaN passes. A uint16_t is the bits of a bfloat16.
template <typename T>
static inline void spcy_mask_relu(const T* __restrict y, const T* __restrict dy, int64_t count, T* __restrict dx) {
    for (int64_t i = 0; i < count; ++i) dx[i] = y[i] == 0 ? 0 : dy[i];
}

inline void spcy_mask_relu(const uint16_t* __restrict y, const uint16_t* __restrict dy, int64_t count,
                           uint16_t* __restrict dx) {
    for (int64_t i = 0; i < count; ++i) dx[i] = (y[i] & 0x7fff) == 0 ? 0 : dy[i];
}

// Note `row` for the channels in which x is the maximum y (NaN, if that is), unless one has been noted.
template <typename T>
static inline void spcy_note_maxima(const T* __restrict x, const T* __restrict y, int64_t channels, int32_t row,
                                    int32_t* __restrict noted) {
    for (int64_t c = 0; c < channels; ++c) {
        const bool maximum = (x[c] == y[c]) | ((x[c] != x[c]) & (y[c] != y[c]));
        noted[c] = maximum & (noted[c] < 0) ? row : noted[c];
    }
}

// y = y + x in the channels for which `row` is noted.
template <typename T>
static inline void spcy_add_noted(const T* __restrict x, const int32_t* __restrict noted, int64_t channels,
                                  int32_t row, T* __restrict y) {
    for (int64_t c = 0; c < channels; ++c) y[c] += noted[c] == row ? x[c] : T(0);
}

// The sum of rows entries[begin:end] / corners by their entries' weights, in double precision.
template <typename T>
static inline void spcy_weigh_rows(const T* features, int64_t channels, const int32_t* entries, int64_t begin,
                                   int64_t end, const double* weights, int64_t corners, T* y) {
    constexpr int kBlock = 32;
    for (int64_t first = 0; first < channels; first += kBlock) {
        const int64_t size = channels - first < kBlock ? channels - first : kBlock;
        double value[kBlock] = {};
        for (int64_t i = begin; i < end; ++i) {
            const T* x = features + entries[i] / corners * channels + first;
            const double weight = weights[entries[i]];
            for (int64_t c = 0; weight != 0 && c < size; ++c) value[c] += weight * x[c];  // 0 takes no inf along
        }
        for (int64_t c = 0; c < size; ++c) y[first + c] = (T)value[c];
    }
}

#endif
