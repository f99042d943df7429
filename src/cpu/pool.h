// Pools, segments and interpolation: operations on rows, shared among threads.
#ifndef SPCY_CPU_POOL_H
#define SPCY_CPU_POOL_H

#include <stdint.h>

#include <limits>

#include "cpu/pairs.h"

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
    constexpr int kBlock = 16, kMost = 16;  // channels that registers hold the sums of, corners in 4 dimensions
    double total = 0;
    const T* there[kMost];
    T share[kMost];
    int count = 0;
    for (int64_t j = 0; j < corners; ++j)
        if (rows[j] >= 0) total += weights[j];
    const double divisor = renormalize ? total : 1;
    for (int64_t j = 0; total > 0 && j < corners; ++j) {
        if (rows[j] < 0 || weights[j] == 0) continue;
        there[count] = features + rows[j] * channels;
        share[count++] = (T)(weights[j] / divisor);
    }
    int64_t c = 0;
    for (; c + kBlock <= channels; c += kBlock) {
        T sum[kBlock] = {};
        for (int j = 0; j < count; ++j)
            for (int i = 0; i < kBlock; ++i) sum[i] += share[j] * there[j][c + i];
        for (int i = 0; i < kBlock; ++i) y[c + i] = sum[i];
    }
    for (; c < channels; ++c) {
        T sum = 0;
        for (int j = 0; j < count; ++j) sum += share[j] * there[j][c];
        y[c] = sum;
    }
}

enum { SPCY_POOL_ROWS = 64 };  // points, or segments of many, that a thread takes at a time

// Reduce the input rows of each output row, (n_out, channels); `order` is the row of each output rank, or NULL.
template <typename T>
static inline void spcy_pool(const T* features, spcy_pairs pairs, const int32_t* order, int64_t tile_size,
                             int64_t n_out, int64_t channels, int operation, T* out, spcy_team team) {
    spcy_parallel_for(team, pairs.n_tiles, [=](int64_t tile, int) {
        const int64_t first = tile * tile_size, last = n_out - first < tile_size ? n_out : first + tile_size;
        for (int64_t rank = first; rank < last; ++rank)
            spcy_fill_row(out + (order ? order[rank] : rank) * channels, channels, operation);
        spcy_each_pair(pairs, tile, [=](int64_t in, int64_t out_row) {
            spcy_combine_row(out + out_row * channels, features + in * channels, channels, operation);
        });
    });
}

static inline void spcy_count_pairs_per_row(spcy_pairs pairs, int32_t* counts, spcy_team team) {
    spcy_parallel_pairs(team, pairs, [=](int64_t, int64_t out) { ++counts[out]; });
}

template <typename T>
static inline void spcy_reduce_segments(const T* features, int64_t channels, const int32_t* order,
                                        const int64_t* segment_ptr, int64_t segments, int operation, double* out,
                                        spcy_team team) {
    const int64_t fair = segments / (4 * team.threads), most = SPCY_POOL_ROWS;
    const int64_t size = fair < 1 ? 1 : fair < most ? fair : most;
    spcy_parallel_rows(team, segments, size, [=](int64_t begin, int64_t end, int) {
        for (int64_t s = begin; s < end; ++s)
            spcy_reduce_rows(features, channels, order, segment_ptr[s], segment_ptr[s + 1], operation,
                             out + s * channels);
    });
}

template <typename T>
static inline void spcy_interpolate(const T* features, int64_t channels, const int32_t* rows, const double* weights,
                                    int64_t points, int64_t corners, bool renormalize, T* out, spcy_team team) {
    spcy_parallel_rows(team, points, SPCY_POOL_ROWS, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            spcy_interpolate_row(features, channels, rows + i * corners, weights + i * corners, corners, renormalize,
                                 out + i * channels);
    });
}

#endif
