// Pools and segments: operations on rows, shared among threads.
#ifndef SPCY_CPU_POOL_H
#define SPCY_CPU_POOL_H

#include <stdint.h>
#include <string.h>

#include "common/sum.h"
#include "cpu/pairs.h"
#include "cpu/segments.h"
#include "cpu/tile.h"

enum { SPCY_SUM, SPCY_MAX, SPCY_MEAN };

// How many columns to fetch for what goes over `count` of them, from column c on. Of short rows the first fetches all:
// the others are read soon, and memory is read fast line by line. Of long ones without an order, none.
template <typename T>
static inline int64_t spcy_fetched(spcy_segment segment, int64_t channels, int64_t c, int64_t count) {
    if (channels * (int64_t)sizeof(T) <= SPCY_SHORT_ROW) return c ? 0 : channels;
    return segment.order ? count : 0;
}

typedef double spcy_two __attribute__((vector_size(16)));

template <typename V, typename T>
static inline V spcy_load_as_double(const T* x) {
    if constexpr (sizeof(V) == sizeof(double)) {
        return (V)*x;
    } else {
        typedef T Source __attribute__((vector_size(2 * sizeof(T)), may_alias, aligned(alignof(T))));
        return __builtin_convertvector(*reinterpret_cast<const Source*>(x), V);
    }
}

// Whether the sums of N vectors of columns of a segment's rows were exact in `high` alone, as those of a few float32
// almost always are.
template <typename V, int N, typename T>
static inline bool spcy_add_simply(const T* values, int64_t channels, int64_t fetched, spcy_segment segment, V* high) {
    constexpr int kLanes = sizeof(V) / sizeof(double);
    decltype((V{} != V{}) | (V{} != V{})) wrong[N] = {};
    const auto fetch = [=](int64_t at) { spcy_fetch_row(values + at, fetched); };
    spcy_each_row(segment, channels, fetch, [&](int64_t at) {
        for (int n = 0; n < N; ++n) {
            const V value = spcy_load_as_double<V>(values + at + n * kLanes), sum = high[n] + value;
            wrong[n] |= (sum - high[n] != value) | (sum - value != high[n]);  // of the two, the lesser's is exact
            high[n] = sum;
        }
    });
    const char none[sizeof(wrong)] = {};
    return memcmp(wrong, none, sizeof(wrong)) == 0;
}

// The sums of such columns, each row's value being values + lows (NULL: values). Over a divisor to `out`, or, where
// `out_lows` is given, as they are kept. Returns whether one is loose.
template <typename V, int N, typename S, typename T>
static inline bool spcy_sum_columns(const T* values, const double* lows, int64_t channels, int64_t fetched,
                                    spcy_segment segment, double divisor, S* out, double* out_lows) {
    constexpr int kLanes = sizeof(V) / sizeof(double);
    V high[N] = {}, low[N] = {}, loose[N] = {};
    if (sizeof(T) == sizeof(double) || lows || !spcy_add_simply<V, N>(values, channels, fetched, segment, high)) {
        for (int n = 0; n < N; ++n) high[n] = V{};
        const auto fetch = [=](int64_t at) { spcy_fetch_row(values + at, fetched); };
        spcy_each_row(segment, channels, fetch, [&](int64_t at) {
            for (int n = 0; n < N; ++n)
                spcy_add_exactly(spcy_load_as_double<V>(values + at + n * kLanes), high[n], low[n], loose[n]);
            for (int n = 0; lows && n < N; ++n)
                spcy_add_exactly(spcy_load_as_double<V>(lows + at + n * kLanes), high[n], low[n], loose[n]);
        });
    }
    double highs[N * kLanes], rests[N * kLanes], losses[N * kLanes];
    memcpy(highs, high, sizeof(high));
    memcpy(rests, low, sizeof(low));
    memcpy(losses, loose, sizeof(loose));
    bool any = false;
    for (int c = 0; c < N * kLanes; ++c) {
        any |= losses[c] != 0;
        out[c] = (S)(out_lows ? highs[c] : (highs[c] + rests[c]) / divisor);
        if (out_lows) out_lows[c] = rests[c];
    }
    return any;
}

enum { SPCY_POOL_ROWS = 64 };  // segments that a thread takes at a time, where there are many

// The interface of pools: what one SIMD level offers, and the choice between levels.
typedef struct {
    const void* features;  // (n_in, channels): float, double, bfloat16 or float16
    void* out;             // (n_out, channels), maxima of that dtype, sums and means of the type that is summed
    spcy_pairs pairs;
    spcy_ranks ranks;
    const int32_t* counts;  // (n_out,), what each is divided by, or NULL
    int64_t channels;
    int operation;
} spcy_pool_plan;

typedef struct {
    // Reduce the input rows of each output row of a tile.
    void (*pool)(const spcy_pool_plan* plan, int64_t tile);
    // Reduce the rows of a segment, sums in double precision, to floats or to doubles.
    void (*reduce)(const void* features, int64_t channels, spcy_segment segment, int operation, float* y);
    void (*reduce_to_doubles)(const void* features, int64_t channels, spcy_segment segment, int operation, double* y);
} spcy_pool_kernels;

SPCY_LEVEL_TABLES(spcy_pool_kernels)

static inline void spcy_pool(const spcy_pool_kernels* kernels, const spcy_pool_plan* plan, spcy_team team) {
    spcy_parallel_for(team, plan->pairs.n_tiles, [=](int64_t tile, int) { kernels->pool(plan, tile); });
}

static inline void spcy_count_pairs_per_row(spcy_pairs pairs, int32_t* counts, spcy_team team) {
    spcy_parallel_pairs(team, pairs, [=](int64_t, int64_t out, int64_t) { ++counts[out]; });
}

template <typename S>
static inline void spcy_reduce_segments(const spcy_pool_kernels* kernels, const void* features, int64_t channels,
                                        const int32_t* order, const int64_t* segment_ptr, int64_t segments,
                                        int operation, S* out, spcy_team team) {
    const auto reduce = [=](int64_t s, spcy_segment segment) {
        if constexpr (sizeof(S) == sizeof(double))
            kernels->reduce_to_doubles(features, channels, segment, operation, out + s * channels);
        else
            kernels->reduce(features, channels, segment, operation, out + s * channels);
    };
    spcy_parallel_segments(team, order, segment_ptr, segments, SPCY_POOL_ROWS, reduce);
}

// The exact sum of the rows of each segment, or their mean, as of spcy_sum_columns; which of them are loose.
template <typename S, typename T>
static inline void spcy_sum_segments(const T* values, const double* lows, int64_t channels, const int32_t* order,
                                     const int64_t* segment_ptr, int64_t segments, bool mean, S* out, double* out_lows,
                                     int32_t* loose, spcy_team team) {
    spcy_parallel_segments(team, order, segment_ptr, segments, SPCY_POOL_ROWS, [=](int64_t s, spcy_segment segment) {
        const int64_t count = segment.end - segment.begin;
        if (count == 1 && !lows && !out_lows) {  // as are most: + 0 makes -0 a sum
            loose[s] = 0;
            const auto fetch = [=](int64_t at) { spcy_fetch_row(values + at, channels); };
            return spcy_each_row(segment, channels, fetch, [=](int64_t at) {
                for (int64_t c = 0; c < channels; ++c) out[s * channels + c] = (S)(values[at + c] + T(0));
            });
        }
        const double divisor = mean && count > 0 ? (double)count : 1.0;
        const auto sum = [=](auto columns, int64_t c, int64_t count) {
            const int64_t at = s * channels + c, fetched = spcy_fetched<T>(segment, channels, c, count);
            return columns(values + c, lows ? lows + c : nullptr, channels, fetched, segment, divisor, out + at,
                           out_lows ? out_lows + at : nullptr);
        };
        bool any = false;
        int64_t c = 0;
        for (; c + 4 <= channels; c += 4) any |= sum(spcy_sum_columns<spcy_two, 2, S, T>, c, 4);
        if (c + 3 == channels) any |= sum(spcy_sum_columns<double, 3, S, T>, c, 3);
        if (c + 2 == channels) any |= sum(spcy_sum_columns<spcy_two, 1, S, T>, c, 2);
        if (c + 1 == channels) any |= sum(spcy_sum_columns<double, 1, S, T>, c, 1);
        loose[s] = any;
    });
}

#endif
