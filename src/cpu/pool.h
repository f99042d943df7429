// Row operations of pools, segments and interpolation.
#ifndef SPCY_CPU_POOL_H
#define SPCY_CPU_POOL_H

#include <stdint.h>

#include <limits>

enum { SPCY_SUM, SPCY_MAX, SPCY_MEAN, SPCY_FIRST };

template <typename T>
static inline void spcy_fill_row(T* row, int64_t channels, int operation) {
    const T value = operation == SPCY_MAX ? -std::numeric_limits<T>::infinity() : T(0);
    for (int64_t c = 0; c < channels; ++c) row[c] = value;
}

// y = y + x, or the greater of the two, NaN if either is.
template <typename S, typename T>
static inline void spcy_combine_row(S* y, const T* x, int64_t channels, int operation) {
    if (operation == SPCY_MAX)
        for (int64_t c = 0; c < channels; ++c) y[c] = x[c] > y[c] || x[c] != x[c] ? x[c] : y[c];
    else
        for (int64_t c = 0; c < channels; ++c) y[c] += x[c];
}

// Reduce rows order[begin:end] (order NULL: the rows themselves) in double precision, by blocks of channels.
template <typename T>
static inline void spcy_reduce_rows(const T* features, int64_t channels, const int32_t* order, int64_t begin,
                                    int64_t end, int operation, double* y) {
    constexpr int kBlock = 32;
    if (operation == SPCY_FIRST && begin < end) end = begin + 1;
    for (int64_t first = 0; first < channels; first += kBlock) {
        const int64_t size = channels - first < kBlock ? channels - first : kBlock;
        double value[kBlock];
        spcy_fill_row(value, size, operation);
        for (int64_t i = begin; i < end; ++i)
            spcy_combine_row(value, features + (order ? order[i] : i) * channels + first, size, operation);
        const double divisor = operation == SPCY_MEAN && end > begin ? (double)(end - begin) : 1.0;
        for (int64_t c = 0; c < size; ++c) y[first + c] = value[c] / divisor;
    }
}

// The weighted mean of the rows that are there (row >= 0), or without `renormalize` their sum; 0 where none is.
template <typename T>
static inline void spcy_interpolate_row(const T* features, int64_t channels, const int32_t* rows,
                                        const double* weights, int64_t corners, bool renormalize, T* y) {
    double total = 0;
    for (int64_t c = 0; c < channels; ++c) y[c] = 0;
    for (int64_t j = 0; j < corners; ++j)
        if (rows[j] >= 0) total += weights[j];
    if (!(total > 0)) return;
    if (!renormalize) total = 1;
    for (int64_t j = 0; j < corners; ++j) {
        if (rows[j] < 0 || weights[j] == 0) continue;
        const T weight = (T)(weights[j] / total);
        const T* x = features + rows[j] * channels;
        for (int64_t c = 0; c < channels; ++c) y[c] += weight * x[c];
    }
}

#endif
