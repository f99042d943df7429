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
        y[c] = ((value > old) | (value != value)) ? value : old;
    }
}

// The sum of rows order[begin:end] (order NULL: the rows themselves) in double precision, by blocks of channels, over a
// divisor.
template <typename S, typename T>
static inline void spcy_add_rows(const T* features, int64_t channels, const int32_t* order, int64_t begin, int64_t end,
                                 double divisor, S* y) {
    constexpr int kBlock = 32;
    for (int64_t first = 0; first < channels; first += kBlock) {
        const int64_t size = channels - first < kBlock ? channels - first : kBlock;
        double value[kBlock];
        spcy_fill_row(value, size, SPCY_SUM);
        for (int64_t i = begin; i < end; ++i)
            spcy_add_row(value, features + (order ? order[i] : i) * channels + first, size);
        for (int64_t c = 0; c < size; ++c) y[first + c] = (S)(value[c] / divisor);
    }
}

// The greatest of a column of such rows; NaN, if one is.
template <typename T>
static inline double spcy_greatest(const T* column, int64_t channels, const int32_t* order, int64_t begin,
                                   int64_t end) {
    double value = -std::numeric_limits<double>::infinity();
    for (int64_t i = begin; i < end; ++i)
        spcy_raise_row(&value, column + (order ? order[i] : i) * channels, 1);
    return value;
}

// The same of 2 * PAIRS columns, in registers: NaN is looked for in all of them together.
template <int PAIRS, typename S, typename T>
static inline void spcy_greatest_pairs(const T* columns, int64_t channels, const int32_t* order, int64_t begin,
                                       int64_t end, S* y) {
    typedef double Pair __attribute__((vector_size(16)));
    typedef int64_t Mask __attribute__((vector_size(16)));
    typedef T Source __attribute__((vector_size(2 * sizeof(T)), may_alias, aligned(alignof(T))));
    Pair value[PAIRS];
    Mask nan = {};
    for (int p = 0; p < PAIRS; ++p) value[p] = Pair{} - std::numeric_limits<double>::infinity();
    for (int64_t i = begin; i < end; ++i) {
        const Source* x = reinterpret_cast<const Source*>(columns + (order ? order[i] : i) * channels);
        for (int p = 0; p < PAIRS; ++p) {
            const Pair more = __builtin_convertvector(x[p], Pair);
            value[p] = more > value[p] ? more : value[p];
            nan |= (Mask)(more != more);
        }
    }
    for (int c = 0; c < 2 * PAIRS; ++c) y[c] = (S)value[c / 2][c % 2];
    for (int c = 0; (nan[0] | nan[1]) && c < 2 * PAIRS; ++c)
        y[c] = (S)spcy_greatest(columns + c, channels, order, begin, end);
}

template <typename S, typename T>
static inline void spcy_reduce_rows(const T* features, int64_t channels, const int32_t* order, int64_t begin,
                                    int64_t end, int operation, S* y) {
    if (operation == SPCY_FIRST && begin < end) end = begin + 1;
    if (operation != SPCY_MAX) {
        const double divisor = operation == SPCY_MEAN && end > begin ? (double)(end - begin) : 1.0;
        return spcy_add_rows(features, channels, order, begin, end, divisor, y);
    }
    int64_t c = 0;
    for (; c + 16 <= channels; c += 16) spcy_greatest_pairs<8>(features + c, channels, order, begin, end, y + c);
    for (; c + 2 <= channels; c += 2) spcy_greatest_pairs<1>(features + c, channels, order, begin, end, y + c);
    if (c < channels) y[c] = (S)spcy_greatest(features + c, channels, order, begin, end);
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
