// Pools and segments: operations on rows, shared among threads.
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

// y = y + x.
template <typename S, typename T>
static inline void spcy_add_row(S* __restrict y, const T* __restrict x, int64_t channels) {
    for (int64_t c = 0; c < channels; ++c) y[c] += x[c];
}

// y = the greater of y and x, NaN if either is. Without branches, so that vectors can be.
template <typename S, typename T>
static inline void spcy_raise_row(S* __restrict y, const T* __restrict x, int64_t channels) {
    for (int64_t c = 0; c < channels; ++c) {
        const S value = x[c], old = y[c];
        y[c] = (value > old) | (value != value) ? value : old;
    }
}

// Reduce channels [first, first + size) of rows order[begin:end] (order NULL: the rows themselves) in double
// precision; SIZE is `size` where that is known.
template <int SIZE, typename S, typename T>
static inline void spcy_reduce_block(const T* features, int64_t channels, int64_t size, const int32_t* order,
                                     int64_t begin, int64_t end, int operation, S* y) {
    constexpr int kBlock = 32;
    const int64_t count = SIZE ? SIZE : size;
    double value[SIZE ? SIZE : kBlock];
    spcy_fill_row(value, count, operation);
    if (operation == SPCY_MAX)
        for (int64_t i = begin; i < end; ++i) spcy_raise_row(value, features + (order ? order[i] : i) * channels, count);
    else
        for (int64_t i = begin; i < end; ++i) spcy_add_row(value, features + (order ? order[i] : i) * channels, count);
    const double divisor = operation == SPCY_MEAN && end > begin ? (double)(end - begin) : 1.0;
    for (int64_t c = 0; c < count; ++c) y[c] = (S)(value[c] / divisor);
}

template <typename S, typename T>
static inline void spcy_reduce_rows(const T* features, int64_t channels, const int32_t* order, int64_t begin,
                                    int64_t end, int operation, S* y) {
#define SPCY_REDUCE(SIZE, first, size) \
    spcy_reduce_block<SIZE>(features + (first), channels, size, order, begin, end, operation, y + (first))
    if (operation == SPCY_FIRST && begin < end) end = begin + 1;
    int64_t c = 0;
    for (; c + 32 <= channels; c += 32) SPCY_REDUCE(32, c, 32);
    switch (channels - c) {
        case 0: break;
        case 3: SPCY_REDUCE(3, c, 3); break;  // points, ..
        case 4: SPCY_REDUCE(4, c, 4); break;  // .. and their intensity
        default: SPCY_REDUCE(0, c, channels - c);
    }
#undef SPCY_REDUCE
}

enum { SPCY_POOL_ROWS = 64 };  // segments that a thread takes at a time, where there are many

// Reduce the input rows of each output row, (n_out, channels); `order` is the row of each output rank, or NULL.
template <typename T>
static inline void spcy_pool(const T* features, spcy_pairs pairs, const int32_t* order, int64_t tile_size,
                             int64_t n_out, int64_t channels, int operation, T* out, spcy_team team) {
    spcy_parallel_for(team, pairs.n_tiles, [=](int64_t tile, int) {
        const int64_t first = tile * tile_size, last = n_out - first < tile_size ? n_out : first + tile_size;
        for (int64_t rank = first; rank < last; ++rank)
            spcy_fill_row(out + (order ? order[rank] : rank) * channels, channels, operation);
        if (operation == SPCY_MAX)
            spcy_each_pair(pairs, tile, [=](int64_t in, int64_t row) {
                spcy_raise_row(out + row * channels, features + in * channels, channels);
            });
        else
            spcy_each_pair(pairs, tile, [=](int64_t in, int64_t row) {
                spcy_add_row(out + row * channels, features + in * channels, channels);
            });
    });
}

static inline void spcy_count_pairs_per_row(spcy_pairs pairs, int32_t* counts, spcy_team team) {
    spcy_parallel_pairs(team, pairs, [=](int64_t, int64_t out) { ++counts[out]; });
}

template <typename S, typename T>
static inline void spcy_reduce_segments(const T* features, int64_t channels, const int32_t* order,
                                        const int64_t* segment_ptr, int64_t segments, int operation, S* out,
                                        spcy_team team) {
    const int64_t fair = segments / (4 * team.threads), most = SPCY_POOL_ROWS;
    const int64_t size = fair < 1 ? 1 : fair < most ? fair : most;
    spcy_parallel_rows(team, segments, size, [=](int64_t begin, int64_t end, int) {
        for (int64_t s = begin; s < end; ++s)
            spcy_reduce_rows(features, channels, order, segment_ptr[s], segment_ptr[s + 1], operation,
                             out + s * channels);
    });
}

#endif
